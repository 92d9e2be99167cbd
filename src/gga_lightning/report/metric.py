"""By what a run's models are judged: the accuracy, or the metric of another task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ACCURACY", "Metric", "parse_metric"]


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

    def number(self, value: float, *, sign: bool = False) -> str:
        """Writes a value that was multiplied by the scale, for a column of a table."""
        plus = "+" if sign else ""
        return f"{value:{plus}.1f}" if self.in_percent else f"{value:{plus}.4g}"


ACCURACY = Metric()


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
