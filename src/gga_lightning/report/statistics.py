"""Cells, averages, and paired differences with their intervals; all in percent or points."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import bootstrap

from gga_lightning.report.methods import Method
from gga_lightning.report.rules import Accuracies, Trial, apply_rule

__all__ = ["EQUAL", "Cell", "Comparison", "Difference", "Row", "compare", "compute_comparison"]

_CONFIDENCE = 0.95
_RESAMPLES = 10_000
_BATCH = 500  # resamples at a time, so that hundreds of rows fit into memory
_SEED = 0
EQUAL = 1e-9  # points


@dataclass(frozen=True)
class Cell:
    """A mean over trials.

    Attributes:
        mean: In percent.
        error: The population's deviation over the root of ``n``: the reference suite's standard
            error, which is too small for few trials and 0 for one.
        n: How many trials.
    """

    mean: float
    error: float
    n: int


@dataclass(frozen=True)
class Difference:
    """A row against the baseline, paired by trial.

    Attributes:
        mean: Mean over the common trials of the difference of the averages over the domains that
            both have, in points.
        low: Lower end of the 95 % percentile bootstrap interval over trials, None with one trial.
        high: Upper end.
        pairs: How many trials both have.
        better: How many of them are above 0; likewise ``equal`` and ``worse``.
        equal: How many are 0.
        worse: How many are below 0.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int
    better: int
    equal: int
    worse: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Row:
    """A method under one selection rule.

    Attributes:
        method: The method.
        accuracies: Trial and domain to an accuracy, in [0, 1].
        cells: Domain to its mean over trials; missing ones are left out.
        average: Over the trials that have all domains, of the mean over domains; None if a cell
            is missing or no trial has all.
        sd: Sample standard deviation of these means over trials, None with less than two.
        n: How many trials have all domains.
        difference: To the baseline; None without one, without common trials, or for itself.
        cost: Mean time of a run over that of the baseline's.
    """

    method: Method
    accuracies: Accuracies
    cells: Mapping[str, Cell]
    average: Cell | None
    sd: float | None
    n: int
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
    """

    data: str
    rule: str
    domains: Sequence[str]
    rows: Sequence[Row]

    @property
    def baseline(self) -> Row | None:
        """The row that the others are compared with."""
        return next((row for row in self.rows if row.method.kind == "baseline"), None)


def compute_comparison(
    data: str, rule: str, methods: Iterable[Method], domains: Sequence[str]
) -> Comparison:
    """Applies a selection rule to the methods of one data set.

    Args:
        data: The data set.
        rule: One of ``RULES``.
        methods: Its methods, their kinds complete.
        domains: The held-out domains.

    Returns:
        A row for each method, compared with the baseline if there is one.
    """
    rows = [_row(method, apply_rule(rule, method.runs), domains) for method in methods]
    comparison = Comparison(data, rule, domains, rows)
    baseline = comparison.baseline
    if baseline is None:
        return comparison
    others = [row for row in rows if row is not baseline]
    differences = iter(compare([row.accuracies for row in others], baseline.accuracies))
    return replace(
        comparison,
        rows=[
            replace(
                row,
                difference=None if row is baseline else next(differences),
                cost=_seconds(row.method) / _seconds(baseline.method),
            )
            for row in rows
        ],
    )


def compare(rows: Sequence[Accuracies], baseline: Accuracies) -> list[Difference | None]:
    """Compares methods with a baseline, paired by trial.

    Args:
        rows: Each method's accuracies by trial and domain, in [0, 1].
        baseline: Those of the baseline.

    Returns:
        Each method's difference, None where no trial and domain are common.
    """
    paired = [_paired(row, baseline) for row in rows]
    intervals = _intervals(paired)
    return [
        None
        if not len(values)
        else Difference(
            float(values.mean()),
            *interval,
            pairs=len(values),
            better=int((values > EQUAL).sum()),
            equal=int((np.abs(values) <= EQUAL).sum()),
            worse=int((values < -EQUAL).sum()),
        )
        for values, interval in zip(paired, intervals, strict=True)
    ]


def _row(method: Method, accuracies: Accuracies, domains: Sequence[str]) -> Row:
    by_domain: dict[str, list[float]] = defaultdict(list)
    by_trial: dict[Trial, list[float]] = defaultdict(list)
    for (trial, domain), accuracy in sorted(accuracies.items()):
        by_domain[domain].append(100 * accuracy)
        by_trial[trial].append(100 * accuracy)
    cells = {domain: _cell(by_domain[domain]) for domain in domains if domain in by_domain}
    complete = [
        math.fsum(values) / len(values)
        for values in by_trial.values()
        if len(values) == len(domains)
    ]
    return Row(
        method,
        accuracies,
        cells,
        average=_cell(complete) if complete else None,
        sd=float(np.std(complete, ddof=1)) if len(complete) > 1 else None,
        n=len(complete),
    )


def _cell(values: Sequence[float]) -> Cell:
    count = len(values)
    return Cell(float(np.mean(values)), float(np.std(values)) / math.sqrt(count), count)


def _paired(row: Accuracies, baseline: Accuracies) -> np.ndarray:
    """The difference of each common trial, in points; a trial's mean is over common domains."""
    differences: dict[Trial, list[float]] = defaultdict(list)
    for trial, domain in sorted(row.keys() & baseline.keys()):
        cell = trial, domain
        differences[trial].append(100 * (row[cell] - baseline[cell]))
    return np.array([math.fsum(values) / len(values) for values in differences.values()])


def _intervals(samples: Sequence[np.ndarray]) -> list[tuple[float | None, float | None]]:
    """Bootstrap intervals of the means, all samples of one size at once."""
    # the same resamples serve them all: no row's interval depends on what other rows there are
    intervals: list[tuple[float | None, float | None]] = [(None, None)] * len(samples)
    for size in {len(sample) for sample in samples if len(sample) > 1}:
        indices = [index for index, sample in enumerate(samples) if len(sample) == size]
        found = bootstrap(
            (np.stack([samples[index] for index in indices]),),
            np.mean,
            axis=-1,
            vectorized=True,
            method="percentile",
            confidence_level=_CONFIDENCE,
            n_resamples=_RESAMPLES,
            batch=_BATCH,
            rng=np.random.default_rng(_SEED),
        ).confidence_interval
        for index, low, high in zip(indices, found.low, found.high, strict=True):
            intervals[index] = float(low), float(high)
    return intervals


def _seconds(method: Method) -> float:
    """Mean time of a run with one domain held out."""
    return float(np.mean([run.seconds for run in method.runs if len(run.test_domains) == 1]))
