"""Cells, averages, and paired differences with their intervals; all in percent or points."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

from gga_lightning.report.methods import Method
from gga_lightning.report.results import mean
from gga_lightning.report.rules import Accuracies, Trial, apply_rule

__all__ = [
    "EQUAL",
    "FEWEST",
    "Cell",
    "Comparison",
    "Difference",
    "Row",
    "compare",
    "compute_comparison",
    "holm",
    "t_interval",
]

_CONFIDENCE = 0.95
FEWEST = 5  # pairs that it takes to call a difference clear
EQUAL = 1e-9  # points


@dataclass(frozen=True)
class Cell:
    """A mean over trials.

    Attributes:
        mean: In percent.
        error: Its standard error, None with one trial. DomainBed's, if that was asked for.
        sd: Sample standard deviation over the trials, None with one.
        trials: Over which trials.
    """

    mean: float
    error: float | None
    sd: float | None
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Difference:
    """A row against its base, paired by trial.

    Attributes:
        base: The base's label.
        values: One difference for each common trial, in points, of the means over ``domains``.
        trials: The trials in which both have all of these domains.
        domains: The domains that both have.
        mean: Mean of the values.
        low: Lower end of the 95 % paired t interval, None with one trial.
        high: Upper end.
        p: Two-sided p-value of the paired t test. None with fewer than ``FEWEST`` trials, and
            where the values are equal, so that their spread is unknown.
        clear: Whether ``p`` is below 0.05, corrected for all rows of the comparison (Holm).
    """

    base: str
    values: tuple[float, ...]
    trials: tuple[Trial, ...]
    domains: tuple[str, ...]
    mean: float
    low: float | None
    high: float | None
    p: float | None
    clear: bool = False

    @property
    def counts(self) -> tuple[int, int, int] | None:
        """How many values are above, at and below 0; None with fewer than ``FEWEST``."""
        if len(self.values) < FEWEST:
            return None
        signs = [0 if abs(value) <= EQUAL else math.copysign(1, value) for value in self.values]
        return signs.count(1), signs.count(0), signs.count(-1)


@dataclass(frozen=True)
class Row:
    """A method under one selection rule.

    Attributes:
        method: The method.
        accuracies: Trial and domain to an accuracy, in [0, 1].
        cells: Domain to its mean over trials; missing ones are left out.
        average: Over the trials that have all domains, of the mean over domains; None if no trial
            has all.
        difference: To the method's base; None without one or without common trials.
        cost: Mean time of a run over that of the base's.
    """

    method: Method
    accuracies: Accuracies
    cells: Mapping[str, Cell]
    average: Cell | None
    difference: Difference | None = None
    cost: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The rows of one data set under one selection rule.

    Attributes:
        data: The data set.
        rule: The selection rule.
        domains: The held-out domains, in the data set's order.
        rows: The methods, in order.
        domainbed: Whether the cells' errors are DomainBed's, from the population's deviation, which
            makes them too small for few trials.
    """

    data: str
    rule: str
    domains: Sequence[str]
    rows: Sequence[Row]
    domainbed: bool = False


def compute_comparison(
    data: str,
    rule: str,
    methods: Iterable[Method],
    domains: Sequence[str],
    *,
    domainbed: bool = False,
) -> Comparison:
    """Applies a selection rule to the methods of one data set, each compared with its base."""
    rows = {
        method.label: _row(method, apply_rule(rule, method.runs), domains, domainbed)
        for method in methods
    }
    compared = [_compared(row, rows.get(row.method.base or "")) for row in rows.values()]
    tested = {
        row.method.label: row.difference.p
        for row in compared
        if row.difference is not None and row.difference.p is not None
    }
    corrected = zip(tested, holm(list(tested.values())), strict=True)
    clear = {label for label, p in corrected if p < 1 - _CONFIDENCE}
    final = [
        replace(row, difference=replace(row.difference, clear=True))
        if row.difference is not None and row.method.label in clear
        else row
        for row in compared
    ]
    return Comparison(data, rule, domains, final, domainbed)


def compare(row: Accuracies, base: Accuracies, label: str = "") -> Difference | None:
    """Compares a method with its base over their common domains, in trials that have all."""
    common = row.keys() & base.keys()
    domains = sorted({domain for _, domain in common})
    trials = sorted({trial for trial, _ in common})
    trials = [t for t in trials if all((t, domain) in common for domain in domains)]
    if not trials:
        return None
    values = [100 * mean(row[t, domain] - base[t, domain] for domain in domains) for t in trials]
    low, high = t_interval(values) if len(values) > 1 else (None, None)
    return Difference(
        label, tuple(values), tuple(trials), tuple(domains), mean(values), low, high, _p(values)
    )


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Computes the 95 % t interval of a mean.

    Unlike a bootstrap interval it covers the mean of normal values in 95 % of samples of every
    size.

    Args:
        values: A sample of at least two.

    Returns:
        Its ends.

    Example:
        >>> low, high = t_interval([0.1, 0.05, 1.0])
        >>> f"[{low:.2f}, {high:.2f}]"
        '[-0.94, 1.71]'
    """
    half = float(stdtrit(len(values) - 1, 0.5 + _CONFIDENCE / 2)) * _error(values)
    return mean(values) - half, mean(values) + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number, by Holm's method.

    Args:
        p_values: Those of m tests.

    Returns:
        The corrected ones, in the same order: the smallest times m, the next times m - 1 and so
        forth, none smaller than one before it or larger than 1.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Example:
        >>> holm([0.25, 0.03125, 0.125])
        [0.25, 0.09375, 0.25]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _row(method: Method, accuracies: Accuracies, domains: Sequence[str], domainbed: bool) -> Row:
    by_domain: dict[str, dict[Trial, float]] = defaultdict(dict)
    by_trial: dict[Trial, list[float]] = defaultdict(list)
    for (trial, domain), accuracy in sorted(accuracies.items()):
        by_domain[domain][trial] = 100 * accuracy
        by_trial[trial].append(100 * accuracy)
    complete = {t: mean(values) for t, values in by_trial.items() if len(values) == len(domains)}
    return Row(
        method,
        accuracies,
        {domain: _cell(by_domain[domain], domainbed) for domain in domains if domain in by_domain},
        _cell(complete, domainbed) if complete else None,
    )


def _cell(found: Mapping[Trial, float], domainbed: bool) -> Cell:
    values = list(found.values())
    error = sd = None
    if len(values) > 1:
        sd = float(np.std(values, ddof=1))
        error = _error(values, 0 if domainbed else 1)
    return Cell(mean(values), error, sd, tuple(found))


def _compared(row: Row, base: Row | None) -> Row:
    if base is None:
        return row
    cost = _seconds(row.method) / _seconds(base.method)
    difference = compare(row.accuracies, base.accuracies, base.method.label)
    return replace(row, difference=difference, cost=cost)


def _error(values: Sequence[float], ddof: int = 1) -> float:
    return float(np.std(values, ddof=ddof)) / math.sqrt(len(values))


def _p(values: Sequence[float]) -> float | None:
    if len(values) < FEWEST or _error(values) <= EQUAL:
        return None
    return float(2 * stdtr(len(values) - 1, -abs(mean(values)) / _error(values)))


def _seconds(method: Method) -> float:
    """Mean time of a run, with one domain held out if there are such runs."""
    single = [run.seconds for run in method.runs if len(run.test_domains) == 1]
    return mean(single or [run.seconds for run in method.runs])
