"""Reads a finished run from its ``result.json``, and checks it."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from gga_lightning.report.metric import ACCURACY, Metric, earliest_best, parse_metric, rounding

__all__ = [
    "RecordedPass",
    "Run",
    "Search",
    "Selection",
    "Trial",
    "parse_result",
    "part_means",
    "same_selection",
    "seen_groups",
]

# Rule to what it maximizes. SWAD's selection is of averaged weights, which no evaluation has.
_CRITERIA = {"training_domain_validation": "val_acc", "oracle": "oracle_acc", "last": "step"}
_TEXTS = ("data", "algorithm", "annealing", "backbone", "config_hash")
_SEEDS = ("seed", "split_seed", "hparams_seed")


class Trial(NamedTuple):
    """One repetition of an experiment: the seed of the splits, and that of everything else."""

    split_seed: int
    seed: int


@dataclass(frozen=True)
class RecordedPass:
    """One validation pass.

    Attributes:
        step: Number of optimizer steps taken.
        accuracies: In [0, 1], or values of another metric, by part: ``val/<source>``;
            ``test/<held out>``, which is reported; and the smaller part ``oracle/<held out>``, or
            ``seen/<held out>``, whose groups were trained on in other domains.
    """

    step: int
    accuracies: Mapping[str, float]


class Selection(NamedTuple):
    """The evaluation that a model selection rule chose.

    Attributes:
        step: Number of optimizer steps taken.
        val_acc: Mean over the source domains' validation parts, in [0, 1]; or, here and below, of
            another metric than the accuracy.
        oracle_acc: Mean over the held-out domains' parts that are not reported.
        test_acc: Mean over the held-out domains' parts that are reported.
    """

    step: int
    val_acc: float
    oracle_acc: float
    test_acc: float


@dataclass(frozen=True)
class Search:
    """Summary of a run's search.

    Attributes:
        mean_gain: Mean gain in cosine over the searched steps, None if there were none.
        mean_transfer: The same on the next batch, None if it was not measured.
        seconds: Time of the search.
        window: First step and end of the search, None if unknown.
    """

    mean_gain: float | None
    mean_transfer: float | None
    seconds: float
    window: tuple[int, int] | None


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: The run folder.
        data: The data set.
        data_path: The folder of users' own data; None for other data.
        test_domains: The held-out domains.
        source_domains: The others, in the data set's order.
        algorithm: The option chosen in the Hydra group of this name.
        annealing: Likewise.
        backbone: Likewise.
        seed: The seed of everything but the splits.
        split_seed: The seed of the splits.
        hparams_seed: The number of the draw of hyperparameters.
        hyperparameters: The values that were drawn.
        evaluations: Every validation pass, in order.
        selections: Rule to the evaluation that it chose.
        search: Summary of the search, None if there was none.
        diverged: The step at which a loss or weight was found not finite; None if all were finite.
        seconds: Time of the run.
        versions: Package to its version.
        config_hash: Equal for runs of the same job.
        overrides: The job's Hydra overrides.
        settings: The flattened configuration, without seeds, held-out domains and
            hyperparameters.
        metric: The metric of its models.
    """

    folder: Path
    data: str
    data_path: str | None
    test_domains: tuple[str, ...]
    source_domains: tuple[str, ...]
    algorithm: str
    annealing: str
    backbone: str
    seed: int
    split_seed: int
    hparams_seed: int
    hyperparameters: Mapping[str, Any]
    evaluations: tuple[RecordedPass, ...]
    selections: Mapping[str, Selection]
    search: Search | None
    diverged: int | None
    seconds: float
    versions: Mapping[str, str]
    config_hash: str
    overrides: tuple[str, ...]
    settings: Mapping[str, Any]
    metric: Metric = ACCURACY

    @property
    def single(self) -> bool:
        """Whether one domain is held out. Runs that hold out more serve selection only."""
        return len(self.test_domains) == 1

    @property
    def trial(self) -> Trial:
        """The trial that the run belongs to."""
        return Trial(self.split_seed, self.seed)


def parse_result(folder: Path, result: object) -> Run:
    """Makes a run from the content of a ``result.json``; a ValueError names what is wrong."""
    if not isinstance(result, dict):
        raise ValueError(f"must hold an object, holds {_shown(result)}")
    held_out = _names(result, "test_domains")
    sources = _names(result, "source_domains")
    if not held_out or not sources or set(held_out) & set(sources):
        raise ValueError("`test_domains` and `source_domains` must be disjoint and not empty")
    metric = parse_metric(result)
    evaluations = tuple(
        _evaluation(entry, sources, held_out, metric)
        for entry in _take(result, "evaluations", list)
    )
    stored = {
        rule: _selection(rule, entry, metric)
        for rule, entry in _take(result, "selections", dict).items()
    }
    _check_selections(stored, evaluations, metric)
    search = _take(result, "search", (dict, type(None)))
    path = _take({"data_path": None, **result}, "data_path", (str, type(None)))
    return Run(
        folder=folder,
        data_path=None if path is None else str(Path(path)),  # without a slash at its end
        test_domains=held_out,
        source_domains=sources,
        **{name: _take(result, name, str) for name in _TEXTS},
        **{name: _take(result, name, int) for name in _SEEDS},
        hyperparameters=_take(result, "hyperparameters", dict),
        evaluations=evaluations,
        selections=stored,
        search=None if search is None else _search(search),
        diverged=_take({"diverged": None, **result}, "diverged", (int, type(None))),
        seconds=_number(result, "seconds"),
        versions={str(k): str(v) for k, v in _take(result, "versions", dict).items()},
        overrides=_names(result, "overrides"),
        settings=_take(result, "settings", dict),
        metric=metric,
    )


def seen_groups(run: Run) -> Run | None:
    """Replaces the reported accuracies by those on groups that were seen in training.

    Args:
        run: A run.

    Returns:
        The run with the same selections and these accuracies, or None if it has no such groups. A
        run with several held-out domains is returned unchanged, since it serves selection only.
    """
    if not run.single:
        return run
    [domain] = run.test_domains
    if not all(f"seen/{domain}" in passed.accuracies for passed in run.evaluations):
        return None
    evaluations = tuple(
        replace(
            passed,
            accuracies={**passed.accuracies, f"test/{domain}": passed.accuracies[f"seen/{domain}"]},
        )
        for passed in run.evaluations
    )
    selections = {
        rule: chosen._replace(test_acc=chosen.oracle_acc) for rule, chosen in run.selections.items()
    }
    return replace(run, evaluations=evaluations, selections=selections)


def same_selection(one: Selection, other: Selection) -> bool:
    """Compares two selections, up to the precision in which accuracies are logged."""
    return all(abs(a - b) <= rounding(a) for a, b in zip(one, other, strict=True))


def part_means(accuracies: Mapping[str, float]) -> tuple[float, float, float]:
    """Averages the accuracies of one validation pass over the domains, for each kind of part.

    Args:
        accuracies: Those of a :class:`RecordedPass`.

    Returns:
        The means over the parts ``val``, ``oracle`` or ``seen``, and ``test``.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for name, value in accuracies.items():
        values[name.partition("/")[0]].append(value)
    return fmean(values["val"]), fmean(values["oracle"] + values["seen"]), fmean(values["test"])


def _evaluation(
    entry: Any, sources: tuple[str, ...], held_out: tuple[str, ...], metric: Metric
) -> RecordedPass:
    if not isinstance(entry, dict):
        raise ValueError(f"`evaluations` must hold objects, holds {_shown(entry)}")
    accuracies = _take(entry, metric.values_key, dict)
    names = [f"val/{domain}" for domain in sources]
    names += [f"test/{domain}" for domain in held_out]
    names += [f"seen/{d}" if f"seen/{d}" in accuracies else f"oracle/{d}" for d in held_out]
    return RecordedPass(
        _take(entry, "step", int), {name: _value(accuracies, name, metric) for name in names}
    )


def _selection(rule: str, entry: Any, metric: Metric) -> Selection:
    if not isinstance(entry, dict):
        raise ValueError(f"`selections.{rule}` must be an object, is {_shown(entry)}")
    names = (metric.key(part) for part in ("val", "oracle", "test"))
    values = (_value(entry, name, metric) for name in names)
    return Selection(_take(entry, "step", int), *values)


def _search(entry: Mapping[str, Any]) -> Search:
    optional = (int, float, type(None))
    window = entry.get("window")
    if window is not None and not (
        isinstance(window, list) and len(window) == 2 and all(isinstance(e, int) for e in window)
    ):
        raise ValueError(f"`window` must be two steps, is {_shown(window)}")
    return Search(
        _take(entry, "mean_gain", optional),
        _take(entry, "mean_transfer", optional),
        _number(entry, "seconds"),
        None if window is None else (window[0], window[1]),
    )


def _check_selections(
    stored: Mapping[str, Selection], evaluations: Iterable[RecordedPass], metric: Metric
) -> None:
    """Checks that each selection is one of the evaluations, and that no other one is better."""
    for rule in _CRITERIA:
        if rule not in stored:
            raise ValueError(f"`selections` lacks `{rule}`")
    passes = [Selection(found.step, *part_means(found.accuracies)) for found in evaluations]
    for rule, criterion in _CRITERIA.items() if passes else ():
        same = [found for found in passes if same_selection(found, stored[rule])]
        values = [getattr(found, criterion) for found in (*same[:1], *passes)]
        higher = metric.higher_is_better or criterion == "step"
        if not same or earliest_best(values, higher_is_better=higher) != 0:
            raise ValueError(f"`selections.{rule}` disagrees with `evaluations`")


def _take(entry: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """Looks up a value and checks its type."""
    if name not in entry:
        raise ValueError(f"`{name}` is missing")
    value = entry[name]
    # bool is a subclass of int
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"`{name}` has the wrong type: {_shown(value)}")
    return value


def _names(entry: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = _take(entry, name, list)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"`{name}` must hold strings, is {_shown(values)}")
    return tuple(values)


def _number(entry: Mapping[str, Any], name: str) -> float:
    value = float(_take(entry, name, (int, float)))
    if not math.isfinite(value):
        raise ValueError(f"`{name}` must be finite, is {value}")
    return value


def _value(entry: Mapping[str, Any], name: str, metric: Metric) -> float:
    value = _number(entry, name)
    if metric.in_percent and not 0.0 <= value <= 1.0:
        raise ValueError(f"`{name}` must be in [0, 1], is {value}")
    return value


def _shown(value: Any) -> str:
    """Writes a value, shortened to 40 characters."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
