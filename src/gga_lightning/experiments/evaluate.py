"""``gga-eval``: evaluates a selected model on its held-out domain or on new data."""

import argparse
import difflib
import json
import os
import sys
import warnings
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Subset

from gga_lightning.data import DomainDataset
from gga_lightning.data.loaders import DomainLoaders
from gga_lightning.data.names import plain_name
from gga_lightning.experiments.configuration import config_directory, explain
from gga_lightning.experiments.models import (
    DEFAULT_SELECTION,
    add_model_options,
    config_file,
    data_facts,
    load_model,
    made_from,
    quiet_trainer,
    saved_config,
)
from gga_lightning.experiments.tasks import make_task, metric_of
from gga_lightning.experiments.terminal import tidy
from gga_lightning.experiments.train import make_data
from gga_lightning.experiments.trust import require_trusted
from gga_lightning.report.metric import ACCURACY, Metric
from hydra_plugins.gga_lightning_sweeper import names_as_text

__all__ = ["Accuracy", "Score", "WholeDomains", "evaluate", "load_model", "main"]

_SHOWN = 12  # classes named in one message


class Accuracy(NamedTuple):
    """How often a model is right on a domain.

    Attributes:
        domain: The domain.
        part: ``"test"``: the part of a held-out domain that is reported; ``"seen"``: its groups
            that were trained on in other domains, where splits are by group;
            ``"all"``: all samples; ``"all (source)"``: all samples of a domain with the
            same name as a domain that the model was trained on.
        samples: The number of samples.
        accuracy: In [0, 1].

    Example:
        >>> found = Accuracy(domain="sketch", part="test", samples=200, accuracy=0.5)
        >>> f"{found.domain}: {found.accuracy:.0%}"
        'sketch: 50%'
    """

    domain: str
    part: str
    samples: int
    accuracy: float

    @property
    def value(self) -> float:
        """The accuracy, under the name that :class:`Score` has for it."""
        return self.accuracy


class Score(NamedTuple):
    """How good a model is on a domain, by the metric of another task than classification.

    Attributes:
        domain: The domain.
        part: See :class:`Accuracy`.
        samples: The number of samples.
        metric: The metric's name, such as ``"rmse"``.
        value: Its value.
    """

    domain: str
    part: str
    samples: int
    metric: str
    value: float


def evaluate(
    folder: str | Path,
    selection: str = DEFAULT_SELECTION,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    trust: Sequence[str] = (),
) -> Sequence[Accuracy | Score]:
    """Evaluates the model that a selection rule chose from a run.

    Args:
        folder: See :func:`load_model`.
        selection: See :func:`load_model`.
        overrides: Hydra overrides of data. With ``data=NAME``, and settings of that data, all
            samples of all its domains are evaluated; images get the run's size and
            normalization, unless the settings name others. With settings alone, such as
            ``data.root=DIR``, it is the run's own data, and the parts of its held-out domains
            that the run reports. Classes are matched by name, and the data may lack some.
        device: ``"auto"``, ``"cpu"`` or ``"gpu"``.
        trust: See :func:`load_model`.

    Returns:
        An :class:`Accuracy` for each domain, or a :class:`Score` if the run's task is not
        classification.

    Raises:
        ValueError: If the data have a class that the model does not know (other outputs than the
            model, if the task is not classification), or inputs of another shape, if an override
            is not one of data, or as :func:`load_model`.
    """
    folder = Path(folder)
    module = load_model(folder, selection, trust=trust)
    config = saved_config(folder, trust)
    facts = data_facts(folder, config)
    data = _data(folder, config, module.preprocess, overrides, trust)
    metric = metric_of(module.task)
    if metric == ACCURACY:
        data.class_numbers = _class_numbers(data, facts.classes)
    elif data.classes != list(facts.classes):
        raise ValueError(
            f"the data must have the model's outputs, {_listed(list(facts.classes))}, but "
            f"{data.name!r} has {_listed(data.classes)}."
        )
    _check_shape(data, facts)
    trainer = quiet_trainer(folder, config, device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        warnings.filterwarnings("ignore", ".*LeafSpec")  # Lightning's, of torch
        trainer.test(module, datamodule=data, verbose=False)
    loaders = cast(dict[str, DataLoader[Any]], trainer.test_dataloaders)
    sources = facts.source_domains if data.name == facts.name else ()
    found: list[Accuracy | Score] = []
    for name, loader in loaders.items():
        part, _, domain = name.partition("/")
        part += " (source)" if domain in sources else ""
        value = float(trainer.callback_metrics[f"{name}/{metric.name}"])
        size = len(cast(Sized, loader.dataset))
        if metric == ACCURACY:
            found.append(Accuracy(domain, part, size, value))
        else:
            found.append(Score(domain, part, size, metric.name, value))
    return found


class WholeDomains(DomainLoaders):
    """Loads all samples of all domains, of any number and size: nothing is split or held out."""

    def __init__(
        self, dataset: DomainDataset, *, eval_batch_size: int, num_workers: int, **training: Any
    ) -> None:
        """Takes the domains.

        Args:
            dataset: The domains.
            eval_batch_size: Samples in a batch; at least 1.
            num_workers: Worker processes.
            **training: Further arguments of :class:`~gga_lightning.data.DomainDataModule`, which
                are not used.
        """
        super().__init__(dataset, eval_batch_size=eval_batch_size, num_workers=num_workers)

    def test_dataloader(self) -> dict[str, DataLoader[Any]]:
        """Makes one loader for each domain, ``all/<domain>``."""
        return {
            f"all/{name}": self._evaluation_loader(Subset(domain, range(len(cast(Sized, domain)))))
            for name, domain in self._dataset.domains.items()
        }


def _data(
    folder: Path,
    config: DictConfig,
    preprocess: object,
    overrides: Sequence[str],
    trust: Sequence[str],
) -> DomainLoaders:
    """The run's data, or those that the overrides choose, with inputs prepared as in the run."""
    settings = getattr(preprocess, "dataset_settings", dict)()
    if "as_uint8" in config.data.dataset:
        settings["as_uint8"] = config.data.dataset.as_uint8
    overrides = names_as_text(overrides)
    given = _settings_of(overrides)
    if overrides:
        config.data = _other_data(folder, overrides, given)
        if "data" not in given:
            require_trusted(config.data, trust)
    dataset = config.data.dataset
    for name in settings:
        if name in dataset and f"data.dataset.{name}" not in given:
            dataset[name] = settings[name]
    if overrides:
        return make_data(config)
    with made_from(config_file(folder), "the run's data cannot be made"):
        return make_data(config)


def _settings_of(overrides: Sequence[str]) -> list[str]:
    """The names of the settings that are overridden, all of them of the data."""
    names = [o.key_or_group for o in OverridesParser.create().parse_overrides(list(overrides))]
    for word, name in zip(overrides, names, strict=True):
        if name.partition(".")[0] != "data":
            raise ValueError(
                "overrides must be of the data, as all else is the run's: `data=...` or "
                f"`data.NAME=...`, got {word!r}."
            )
    return names


def _other_data(folder: Path, overrides: Sequence[str], given: Sequence[str]) -> DictConfig:
    """The run's data with other settings, or all samples of the data that are chosen."""
    if "data" not in given:
        with initialize_config_dir(str((folder / ".hydra").resolve()), version_base="1.3"):
            return compose("config", list(overrides)).data
    with initialize_config_dir(config_directory(), version_base="1.3"):
        data = compose("train", list(overrides)).data
    data._target_ = f"{WholeDomains.__module__}.{WholeDomains.__name__}"
    return data


def _check_shape(data: DomainLoaders, facts: Any) -> None:
    if data.input_shape != tuple(facts.input_shape):
        raise ValueError(
            f"the data must have inputs of the model's shape, {tuple(facts.input_shape)}, but "
            f"those of {data.name!r} are {data.input_shape}; that of images is set by "
            "`data.dataset.image_size`."
        )


def _class_numbers(data: DomainLoaders, classes: Sequence[str]) -> list[int]:
    """The model's number of each class of the data, by its name or one that looks the same."""
    numbers = {plain_name(name): number for number, name in enumerate(classes)}
    numbers |= {name: number for number, name in enumerate(classes)}
    found = [numbers.get(name, numbers.get(plain_name(name))) for name in data.classes]
    unknown = [name for name, number in zip(data.classes, found, strict=True) if number is None]
    if unknown:
        raise ValueError(
            f"the data must have no other classes than the model, but {data.name!r} also has "
            f"{_listed([_with_guess(name, classes) for name in unknown])}. Classes are matched by "
            f"name, and the model's {len(classes)} classes are "
            f"{_listed([repr(name) for name in classes])}. Rename these classes in the data, or "
            "leave their samples out."
        )
    return [number for number in found if number is not None]


def _with_guess(name: str, classes: Sequence[str]) -> str:
    """The name and, if there is one, the class that may be meant."""
    folded = {plain_name(known).casefold(): known for known in classes}
    close = difflib.get_close_matches(plain_name(name).casefold(), folded, n=1)
    return f"{name!r} (did you mean {folded[close[0]]!r}?)" if close else repr(name)


def _listed(names: Sequence[str]) -> str:
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*names[:_SHOWN], *more])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``gga-eval``: an error in a run is printed in one line, and the next run follows.

    Args:
        arguments: Those of the command line; the process's own if None.

    Returns:
        The exit status, 0 if all runs were evaluated.
    """
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    runs = [word for word in options.words if "=" not in word or Path(word).is_dir()]
    overrides = [word for word in options.words if word not in runs]
    if not runs:
        parser.error("there must be at least one RUN, a run folder of gga-train")
    status = 0
    for run in runs:
        try:
            with tidy("gga-eval"):
                found = evaluate(
                    run, options.selection, overrides, device=options.device, trust=options.trust
                )
        except Exception as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            print(f"gga-eval: {explain(error)}", file=sys.stderr)
            status = 1
        else:
            _show(run, options, found, metric_of(make_task(saved_config(Path(run), options.trust))))
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gga-eval",
        usage="%(prog)s RUN... [data=NAME] [data.SETTING=VALUE...] [options]",
        description="Evaluates the model that a selection rule chose: on the part of the held-out "
        "domain that its run reports or, with data=NAME, on all samples of other data, whose "
        "classes are matched by name. Settings alone are those of the run's own data: "
        "data.root=PLACE, if they have been moved.",
    )
    parser.add_argument("words", nargs="+", help=argparse.SUPPRESS)
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="one line of JSON a run")
    return parser


def _show(
    run: str, options: argparse.Namespace, found: Sequence[Accuracy | Score], metric: Metric
) -> None:
    """Prints a run's accuracies, or values of its task's metric."""
    if options.json:
        rows = [row._asdict() for row in found]
        told = {"run": run, "selection": options.selection, metric.values_key: rows}
        print(json.dumps(told))
        return
    console = Console(markup=False, emoji=False)  # names may have brackets and colons
    console.print(f"{run}: {options.selection}", highlight=False, soft_wrap=True)
    table = Table("domain", "part", "samples", metric.title)
    for column in table.columns[2:]:
        column.justify = "right"
    for row in found:
        table.add_row(row.domain, row.part, f"{row.samples:,}", metric.shown(row.value))
    if len(found) > 1 and not any(row.part == "seen" for row in found):
        table.add_section()
        mean = sum(row.value for row in found) / len(found)
        table.add_row("mean", "", f"{sum(row.samples for row in found):,}", metric.shown(mean))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
