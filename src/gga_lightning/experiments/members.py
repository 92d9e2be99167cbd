"""The models that ``gga-soup`` averages: read from run folders, and checked to match."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from gga_lightning.experiments.jobs import Job
from gga_lightning.experiments.models import chosen_checkpoint, made_from, saved_config
from gga_lightning.report.metric import Metric, parse_metric

__all__ = ["Member", "check_match", "read_member"]

# entries that must be equal in the results of all members, and what a difference means
_EQUAL = {
    "data": "trained on other data",
    "task": "is of another task",
    "metric": "has another metric",
    "test_domains": "holds out another domain",
    "source_domains": "trained on other domains",
    "classes": "has other classes, or the same in another order",
    "input_shape": "has inputs of another shape",
    "split_seed": "has other splits: what it validates on, others may have trained on. Give all "
    "runs one `data.split_seed`",
    "preprocess": "prepares inputs in another way",  # which may depend on the split
}


@dataclass
class Member:
    """A model to average.

    Attributes:
        folder: Its run folder.
        config: The run's configuration.
        result: The run's result.
        state: The model's weights.
        step: The optimizer step of the weights.
        metric: The metric of its models.
        accuracy: On the validation parts of the source domains, in [0, 1]; or the value of
            another task's metric.
    """

    folder: Path
    config: DictConfig
    result: dict[str, Any]
    state: dict[str, Tensor]
    step: int
    metric: Metric
    accuracy: float


def read_member(folder: Path, selection: str, trust: Sequence[str]) -> Member:
    """Reads the model that a selection rule chose from a run.

    Args:
        folder: The run folder.
        selection: See :func:`~gga_lightning.experiments.evaluate.load_model`.
        trust: See :func:`~gga_lightning.experiments.evaluate.load_model`.

    Returns:
        The model.

    Raises:
        ValueError: If the run is not finished, or its files are missing or damaged.
    """
    config = saved_config(folder, trust)
    result = Job(folder).result()
    if result is None:
        raise ValueError(
            f"{folder} must be a finished run, which has a result.json. Run its command again."
        )
    checkpoint = chosen_checkpoint(folder, selection)[1]
    with made_from(folder / "result.json", "`selections` is damaged"):
        metric = parse_metric(result)
        accuracy = float(result["selections"][selection][metric.key("val")])
    state, step = checkpoint["state_dict"], checkpoint["global_step"]
    return Member(folder, config, result, state, step, metric, accuracy)


def check_match(members: Sequence[Member]) -> None:
    """Refuses models that cannot be averaged, with the first difference.

    Args:
        members: The models.

    Raises:
        ValueError: If two of them do not match.
    """
    first, *others = members
    for other in others:
        for name, meaning in _EQUAL.items():
            pair = first.result.get(name), other.result.get(name)
            if pair[0] != pair[1]:
                raise ValueError(
                    f"{other.folder} cannot be averaged with {first.folder}: it {meaning} "
                    f"(`{name}`: {_short(pair[1])} instead of {_short(pair[0])})."
                )
        shapes = [
            {name: tuple(value.shape) for name, value in member.state.items()}
            for member in (first, other)
        ]
        names = [n for n in {**shapes[0], **shapes[1]} if shapes[0].get(n) != shapes[1].get(n)]
        if names:
            sizes = [shape.get(names[0], "no such weights") for shape in shapes]
            raise ValueError(
                f"{other.folder} cannot be averaged with {first.folder}: its model is another "
                f"one (`{names[0]}`: {sizes[1]} instead of {sizes[0]}). Average runs of one "
                "backbone and algorithm."
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
