"""Computes cells, averages, and paired differences with intervals, in percent and points.

Values of metrics that are not in percent keep their unit.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from scipy.special import stdtr, stdtrit

from gga_lightning.report.methods import Method
from gga_lightning.report.metric import ACCURACY, Metric
from gga_lightning.report.results import Trial
from gga_lightning.report.rules import Accuracies, apply_rule

__all__ = [
    "AVERAGE",
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
AVERAGE = "Avg"
FEWEST = 5  # pairs that a test needs
EQUAL = 1e-9  # points; smaller differences are rounding errors


@dataclass(frozen=True)
class Cell:
    """A mean over trials.

    Attributes:
        mean: The mean in percent.
        error: Its standard error, by DomainBed's formula on request; None with one trial.
        sd: Sample standard deviation over the trials; None with one trial.
        trials: The trials.
    """

    mean: float
    error: float | None
    sd: float | None
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Difference:
    """The difference between a row and its base, paired by trial.

    Attributes:
        base: The base's label.
        values: For each trial, the difference of the means over ``domains``, in points. It is
            above 0 if the row is better, also for metrics of which the lowest value is the best.
        trials: The trials in which both rows have all of ``domains``.
        domains: The domains that both rows have.
        mean: Mean of the values.
        low: Lower end of the 95 % paired t interval; None with one trial.
        high: Upper end.
        p: Two-sided p-value of the paired t test. None with fewer than ``FEWEST`` trials, and if
            all values are equal.
        clear: Whether ``p`` is below 0.05 after correction for all rows of the comparison (Holm).
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
        """How many values are above, at and below 0; None if there are fewer than ``FEWEST``."""
        if len(self.values) < FEWEST:
            return None
        signs = [0 if abs(value) <= EQUAL else math.copysign(1, value) for value in self.values]
        return signs.count(1), signs.count(0), signs.count(-1)


@dataclass(frozen=True)
class Row:
    """A method under one selection rule.

    Attributes:
        method: The method.
        accuracies: Trial and domain to an accuracy, in [0, 1], or to a value of another metric.
        cells: For each column of the comparison, the mean over trials; None if there are none.
        difference: The difference to the method's base; None without base or common trials.
        cost: Mean time of a run, divided by the base's; None without base.
    """

    method: Method
    accuracies: Accuracies
    cells: Sequence[Cell | None]
    difference: Difference | None = None
    cost: float | None = None

    @property
    def average(self) -> Cell | None:
        """The cell of the mean over domains, in the trials that have all of them."""
        return self.cells[-1]


@dataclass(frozen=True)
class Comparison:
    """The rows of one data set under one selection rule.

    Attributes:
        data: The data set.
        rule: The selection rule.
        domains: The held-out domains, in the data set's order.
        rows: The methods, in order.
        domainbed: Whether errors divide by n, as DomainBed's do, instead of n - 1. These are too
            small for few trials.
        metric: The metric of the models.
    """

    data: str
    rule: str
    domains: Sequence[str]
    rows: Sequence[Row]
    domainbed: bool = False
    metric: Metric = ACCURACY

    @property
    def columns(self) -> Sequence[str]:
        """The names of the cells: the domains and the average."""
        return (*self.domains, AVERAGE)


def compute_comparison(
    data: str,
    rule: str,
    methods: Iterable[Method],
    domains: Sequence[str],
    *,
    domainbed: bool = False,
) -> Comparison:
    """Applies a selection rule to the methods of one data set, each compared with its base."""
    methods = list(methods)
    metric = next((run.metric for method in methods for run in method.runs), ACCURACY)
    rows = {
        method.label: _row(method, apply_rule(rule, method.runs), domains, domainbed, metric.scale)
        for method in methods
    }
    compared = [_compared(row, rows.get(row.method.base or ""), metric) for row in rows.values()]
    tested = {
        row.method.label: row.difference.p
        for row in compared
        if row.difference and row.difference.p is not None
    }
    corrected = zip(tested, holm(list(tested.values())), strict=True)
    clear = {label for label, p in corrected if p < 1 - _CONFIDENCE}
    final = [
        replace(row, difference=replace(row.difference, clear=row.method.label in clear))
        if row.difference
        else row
        for row in compared
    ]
    return Comparison(data, rule, domains, final, domainbed, metric)


def compare(
    row: Accuracies, base: Accuracies, label: str = "", metric: Metric = ACCURACY
) -> Difference | None:
    """Compares a method with its base on their common domains, in the trials that have them all."""
    common = row.keys() & base.keys()
    domains = sorted({domain for _, domain in common})
    trials = sorted({trial for trial, _ in common})
    trials = [t for t in trials if all((t, domain) in common for domain in domains)]
    if not trials:
        return None
    scale = metric.scale if metric.higher_is_better else -metric.scale
    values = [scale * fmean(row[t, domain] - base[t, domain] for domain in domains) for t in trials]
    low, high = t_interval(values) if len(values) > 1 else (None, None)
    return Difference(
        label, tuple(values), tuple(trials), tuple(domains), fmean(values), low, high, _p(values)
    )


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Computes the 95 % t interval of a mean.

    For normal values it covers the mean in 95 % of the samples, even of small ones. A bootstrap
    interval does not.

    Args:
        values: A sample of at least two values.

    Returns:
        The lower and the upper end.

    Example:
        >>> low, high = t_interval([0.1, 0.05, 1.0])
        >>> f"[{low:.2f}, {high:.2f}]"
        '[-0.94, 1.71]'
    """
    half = float(stdtrit(len(values) - 1, 0.5 + _CONFIDENCE / 2)) * _error(values)
    return fmean(values) - half, fmean(values) + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for the number of tests, by Holm's method.

    Args:
        p_values: The p-values of m tests.

    Returns:
        The corrected ones, in the same order: the smallest times m, the next times m - 1 and so
        forth, none smaller than the one before it or larger than 1.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Example:
        >>> holm([0.25, 0.03125, 0.125])
        [0.25, 0.09375, 0.25]
    """
    values = np.array(p_values)
    order = np.argsort(values)
    scaled = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected.tolist()


def _row(
    method: Method, accuracies: Accuracies, domains: Sequence[str], domainbed: bool, scale: float
) -> Row:
    cells = sorted(accuracies)
    columns = [{t: scale * accuracies[t, d] for t, d in cells if d == domain} for domain in domains]
    complete = sorted(set.intersection(*map(set, columns)))
    columns.append({trial: fmean(column[trial] for column in columns) for trial in complete})
    return Row(method, accuracies, [_cell(column, domainbed) for column in columns])


def _cell(found: Mapping[Trial, float], domainbed: bool) -> Cell | None:
    if not found:
        return None
    values = list(found.values())
    error = sd = None
    if len(values) > 1:
        error = _error(values, ddof=0 if domainbed else 1)
        sd = float(np.std(values, ddof=1))
    return Cell(fmean(values), error, sd, tuple(found))


def _compared(row: Row, base: Row | None, metric: Metric) -> Row:
    if base is None:
        return row
    difference = compare(row.accuracies, base.accuracies, base.method.label, metric)
    return replace(row, difference=difference, cost=_seconds(row) / _seconds(base))


def _error(values: Sequence[float], ddof: int = 1) -> float:
    return float(np.std(values, ddof=ddof)) / math.sqrt(len(values))


def _p(values: Sequence[float]) -> float | None:
    if len(values) < FEWEST or _error(values) <= EQUAL:
        return None
    return float(2 * stdtr(len(values) - 1, -abs(fmean(values)) / _error(values)))


def _seconds(row: Row) -> float:
    return fmean(run.seconds for run in row.method.main_runs)
