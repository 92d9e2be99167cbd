"""The metric of a run: the accuracy, or that of another task."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ACCURACY", "Metric", "earliest_best", "parse_metric", "rounding"]

_TIE = 1e-6


@dataclass(frozen=True)
class Metric:
    """A metric, as ``result.json`` describes it.

    Attributes:
        task: The task's name.
        name: Its name in logs and results.
        title: Its name in tables.
        higher_is_better: Whether the best value is the highest.
        in_percent: Whether it is in [0, 1], and shown in percent.
    """

    task: str = "classification"
    name: str = "acc"
    title: str = "accuracy"
    higher_is_better: bool = True
    in_percent: bool = True

    @property
    def scale(self) -> float:
        """What values are multiplied by in tables."""
        return 100.0 if self.in_percent else 1.0

    @property
    def unit(self) -> str:
        """What differences are given in."""
        return "points" if self.in_percent else self.title

    @property
    def values_key(self) -> str:
        """What ``evaluations`` in ``result.json`` call the values of all parts."""
        return "accuracies" if self.name == "acc" else "values"

    def key(self, part: str) -> str:
        """Names a part's mean in ``selections`` of ``result.json``, such as ``val_acc``."""
        return f"{part}_{self.name}"

    def shown(self, value: float) -> str:
        """Writes a value, such as ``81.3%`` or ``0.0421``."""
        return f"{value:.1%}" if self.in_percent else f"{value:.4g}"

    def number(self, value: float) -> str:
        """Writes a value, multiplied by the scale, in a table."""
        return f"{value:.1f}" if self.in_percent else f"{value:.4g}"

    def error(self, value: float) -> str:
        """Writes the error of such a value."""
        return f"{value:.1f}" if self.in_percent else f"{value:.2g}"

    def difference(self, value: float) -> str:
        """Writes the difference of two such values, with its sign."""
        return f"{value:+.1f}" if self.in_percent else f"{value:+.3g}"


ACCURACY = Metric()
"""The metric of classification."""


def parse_metric(result: Mapping[str, Any]) -> Metric:
    """Reads the metric of a ``result.json``.

    Args:
        result: What the file holds. Results of classification do not name their metric.

    Returns:
        The metric.

    Raises:
        ValueError: If ``metric`` is damaged.
    """
    found = result.get("metric")
    if found is None:
        return ACCURACY
    kinds = {"name": str, "title": str, "higher_is_better": bool, "in_percent": bool}
    task = result.get("task")
    right = isinstance(found, dict) and all(type(found.get(n)) is k for n, k in kinds.items())
    if not right or not isinstance(task, str):
        raise ValueError(f"`metric` must describe the metric of `task`, is {found}")
    return Metric(task, **{name: found[name] for name in kinds})


def earliest_best(values: Iterable[float], *, higher_is_better: bool = True) -> int:
    """Finds the best value; the earliest wins a tie.

    Checkpoints, ``result.json`` and reports all use this rule. A later value is better only if it
    exceeds the best one before it by more than rounding: 1e-6, or for values above 1 that share of
    them. The choice among the first n values is therefore known when the n-th arrives. NaN is
    worse than any other value.

    Args:
        values: At least one.
        higher_is_better: Whether the best value is the highest. If not, it is the lowest.

    Returns:
        Its index.

    Example:
        >>> earliest_best([0.25, 0.5, 0.5 + 6e-8, 0.5])
        1
        >>> earliest_best([0.25, 0.5, 0.125], higher_is_better=False)
        2
    """
    sign = 1.0 if higher_is_better else -1.0
    listed = [-math.inf if math.isnan(value) else sign * value for value in values]
    best = 0
    for index, value in enumerate(listed):
        if value > listed[best] + rounding(listed[best]):
            best = index
    return best


def rounding(value: float) -> float:
    """Computes how far two values that count as equal may differ.

    Args:
        value: One of them.

    Returns:
        The rounding error of metrics, which are logged in single precision.
    """
    return _TIE * max(1.0, abs(value)) if math.isfinite(value) else 0.0
