"""One finished run: what its ``result.json`` holds, checked."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "RecordedPass",
    "Run",
    "Search",
    "Selection",
    "earliest_best",
    "mean",
    "parse_result",
    "same_selection",
    "seen_groups",
]

_TIE = 1e-6  # accuracies are logged in single precision: closer ones are equal
_RULES = ("training_domain_validation", "oracle", "last")
_TEXTS = ("data", "algorithm", "annealing", "backbone", "config_hash")
_SEEDS = ("seed", "split_seed", "hparams_seed")
T = TypeVar("T")


@dataclass(frozen=True)
class RecordedPass:
    """One validation pass.

    Attributes:
        step: How many optimizer steps were taken.
        accuracies: In [0, 1], by part: ``val/<source>``, ``test/<held out>``, which is reported,
            and ``oracle/<held out>``, the smaller one, or ``seen/<held out>``, whose groups were
            trained on in other domains.
    """

    step: int
    accuracies: Mapping[str, float]


@dataclass(frozen=True)
class Selection:
    """The evaluation that a model selection rule chose.

    Attributes:
        step: How many optimizer steps were taken.
        val_acc: Mean over the source domains' validation parts, in [0, 1].
        oracle_acc: Mean over the held-out domains' parts that are not reported.
        test_acc: Mean over the held-out domains' parts that are reported.
    """

    step: int
    val_acc: float
    oracle_acc: float
    test_acc: float


@dataclass(frozen=True)
class Search:
    """What the search of a run did.

    Attributes:
        mean_gain: Mean gain in cosine over the searched steps, None if there were none.
        mean_transfer: The same on the next batch, None where that was not measured.
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
        folder: Where it is.
        data: The data set.
        data_path: Where its files are, for users' own data; None for others.
        test_domains: The held-out domains.
        source_domains: The others, in the data set's order.
        algorithm: The chosen option of the group ``algorithm``; so too ``annealing``, ``backbone``.
        seed: The seed of everything but the splits.
        split_seed: The seed of the splits.
        hparams_seed: Which draw of hyperparameters.
        hyperparameters: What that draw set.
        evaluations: Every validation pass, in order.
        selections: Rule to what it chose.
        search: What the search did, None where there was none.
        diverged: The step by which losses or weights were not finite; None if they were.
        seconds: Time of the run.
        versions: Package to its version.
        config_hash: The same job, the same hash.
        overrides: What was typed or swept for this job.
        settings: The flattened configuration, without seeds, held-out domains and
            hyperparameters.
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


def parse_result(folder: Path, result: object) -> Run:
    """Makes a run of what a ``result.json`` holds, or raises a ValueError that names the fault."""
    if not isinstance(result, dict):
        raise ValueError(f"must hold an object, holds {_shown(result)}")
    held_out = _names(result, "test_domains")
    sources = _names(result, "source_domains")
    if not held_out or not sources or set(held_out) & set(sources):
        raise ValueError("`test_domains` and `source_domains` must be apart and not empty")
    evaluations = tuple(
        _evaluation(entry, sources, held_out) for entry in _take(result, "evaluations", list)
    )
    stored = {
        rule: _selection(rule, entry) for rule, entry in _take(result, "selections", dict).items()
    }
    missing = [rule for rule in _RULES if rule not in stored]
    if missing:
        raise ValueError(f"`selections` lacks `{missing[0]}`")
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
        selections=_checked(stored, evaluations, sources, held_out),
        search=None if search is None else _search(search),
        diverged=_take({"diverged": None, **result}, "diverged", (int, type(None))),
        seconds=_number(result, "seconds"),
        versions={str(k): str(v) for k, v in _take(result, "versions", dict).items()},
        overrides=_names(result, "overrides"),
        settings=_take(result, "settings", dict),
    )


def seen_groups(run: Run) -> Run | None:
    """Puts the accuracies on seen groups in the place of those that are reported.

    Args:
        run: A run.

    Returns:
        The same run, with the same selections, whose accuracies on held-out domains are those
        on the groups that were trained on in other domains. None if it has no such part. A run
        that holds out several domains is returned as it is, since it only serves to select.
    """
    if len(run.test_domains) > 1:
        return run
    domain = next(iter(run.test_domains))
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
        rule: replace(chosen, test_acc=chosen.oracle_acc) for rule, chosen in run.selections.items()
    }
    return replace(run, evaluations=evaluations, selections=selections)


def earliest_best(values: Iterable[float]) -> int:
    """Finds the best value; the earliest wins a tie.

    This is the one rule for ties, for checkpoints, ``result.json`` and reports alike. A later
    value is better only if it exceeds the best one before it by more than rounding, 1e-6. The
    choice among the first n values is therefore known when the n-th arrives.

    Args:
        values: At least one.

    Returns:
        Its index.

    Example:
        >>> earliest_best([0.25, 0.5, 0.5 + 6e-8, 0.5])
        1
    """
    listed = list(values)
    best = 0
    for index, value in enumerate(listed):
        if value > listed[best] + _TIE:
            best = index
    return best


def mean(values: Iterable[float]) -> float:
    """Computes a mean that does not depend on the order of the values."""
    listed = list(values)
    return math.fsum(listed) / len(listed)


def same_selection(one: Selection, other: Selection) -> bool:
    """Compares steps, and accuracies up to the precision in which they were logged."""
    return one.step == other.step and all(
        abs(getattr(one, name) - getattr(other, name)) <= _TIE
        for name in ("val_acc", "oracle_acc", "test_acc")
    )


def _evaluation(entry: Any, sources: tuple[str, ...], held_out: tuple[str, ...]) -> RecordedPass:
    if not isinstance(entry, dict):
        raise ValueError(f"`evaluations` must hold objects, holds {_shown(entry)}")
    accuracies = _take(entry, "accuracies", dict)
    parts = [("val", sources), ("test", held_out), ("oracle", held_out)]
    names = [_part(accuracies, part, domain) for part, domains in parts for domain in domains]
    return RecordedPass(
        _take(entry, "step", int), {name: _accuracy(accuracies, name) for name in names}
    )


def _part(accuracies: Mapping[str, Any], part: str, domain: str) -> str:
    """The name of a part; with groups, the seen ones are in the place of the oracle's."""
    seen = f"seen/{domain}"
    return seen if part == "oracle" and seen in accuracies else f"{part}/{domain}"


def _selection(rule: str, entry: Any) -> Selection:
    if not isinstance(entry, dict):
        raise ValueError(f"`selections.{rule}` must be an object, is {_shown(entry)}")
    values = (_accuracy(entry, name) for name in ("val_acc", "oracle_acc", "test_acc"))
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


def _checked(
    stored: Mapping[str, Selection],
    evaluations: tuple[RecordedPass, ...],
    sources: tuple[str, ...],
    held_out: tuple[str, ...],
) -> Mapping[str, Selection]:
    """The stored selections, if the evaluations have none that is better."""
    passes = [
        Selection(
            evaluation.step,
            *(
                mean(
                    evaluation.accuracies[_part(evaluation.accuracies, part, domain)]
                    for domain in domains
                )
                for part, domains in (("val", sources), ("oracle", held_out), ("test", held_out))
            ),
        )
        for evaluation in evaluations
    ]
    criteria = {"training_domain_validation": "val_acc", "oracle": "oracle_acc", "last": "step"}
    for rule, criterion in criteria.items() if passes else ():
        # those of SWAD are of averaged weights, which are not among the evaluations
        own = [found for found in passes if same_selection(found, stored[rule])]
        values = [getattr(found, criterion) for found in (*own[:1], *passes)]
        if not own or earliest_best(values) != 0:
            raise ValueError(f"`selections.{rule}` disagrees with `evaluations`")
    return stored


def _take(entry: Mapping[str, Any], name: str, kind: type[T] | tuple[type, ...]) -> Any:
    """A value of the right kind."""
    if name not in entry:
        raise ValueError(f"`{name}` is missing")
    value = entry[name]
    # True is an int to Python
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"`{name}` is {_shown(value)}")
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


def _accuracy(entry: Mapping[str, Any], name: str) -> float:
    value = _number(entry, name)
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"`{name}` must be in [0, 1], is {value}")
    return value


def _shown(value: Any) -> str:
    """A value, short enough for one line."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
