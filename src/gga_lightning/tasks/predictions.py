"""What models predict for an input, by task."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor

__all__ = [
    "AnyPrediction",
    "LabelsPrediction",
    "MaskPrediction",
    "Prediction",
    "ValuesPrediction",
]


Cell = tuple[str, str, Literal["left", "right"]]
"""A column's name, the text in it, and how the column is aligned."""


class AnyPrediction(Protocol):
    """A prediction of any task.

    Attributes:
        source: The image's file as a path; None for an input that was not given by its path.
    """

    @property
    def source(self) -> str | None: ...  # noqa: D102

    def cells(self) -> list[Cell]:
        """Describes the prediction in a row of a table."""
        ...

    def columns(self) -> dict[str, str | float]:
        """Lays out all of the prediction for a CSV file, column to value."""
        ...

    def entries(self) -> dict[str, Any]:
        """Lays out the prediction for JSON."""
        ...


class Prediction(NamedTuple):
    """What a model predicts for an image.

    Attributes:
        label: The most probable class.
        probability: Its probability, in [0, 1].
        probabilities: Class to probability, in the order of the model's classes.
        source: The image's file as a path; None for an image that was not given by its path.

    Example:
        >>> found = Prediction("cat", 0.75, {"cat": 0.75, "dog": 0.25}, source="images/1.jpg")
        >>> f"{found.source}: {found.label} ({found.probability:.0%})"
        'images/1.jpg: cat (75%)'
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    source: str | None = None

    def cells(self) -> list[Cell]:
        """Describes the prediction in a row of a table."""
        probability = f"{self.probability:.1%}"
        return [("class", self.label, "left"), ("probability", probability, "right")]

    def columns(self) -> dict[str, str | float]:
        """Lays out all of the prediction for a CSV file, column to value."""
        # the prefix keeps a class that is called "file" or "label" apart
        return {
            "label": self.label,
            "probability": self.probability,
            **_prefixed("p", self.probabilities),
        }

    def entries(self) -> dict[str, Any]:
        """Lays out the prediction for JSON."""
        return _without(self._asdict(), "source")


class LabelsPrediction(NamedTuple):
    """Which labels a model predicts for an image, where several can be right at once.

    Attributes:
        labels: Those with a probability of at least 0.5, in the order of the model's labels.
        probabilities: Label to probability, in [0, 1].
        source: The image's file as a path; None for an image that was not given by its path.

    Example:
        >>> LabelsPrediction(["cat"], {"cat": 0.75, "dog": 0.25}).columns()
        {'labels': 'cat', 'p_cat': 0.75, 'p_dog': 0.25}
    """

    labels: list[str]
    probabilities: dict[str, float]
    source: str | None = None

    def cells(self) -> list[Cell]:
        """Describes the prediction in a row of a table."""
        return [("labels", ", ".join(self.labels) or "-", "left")]

    def columns(self) -> dict[str, str | float]:
        """Lays out all of the prediction for a CSV file, column to value."""
        return {"labels": ", ".join(self.labels), **_prefixed("p", self.probabilities)}

    def entries(self) -> dict[str, Any]:
        """Lays out the prediction for JSON."""
        return _without(self._asdict(), "source")


class ValuesPrediction(NamedTuple):
    """The numbers that a model predicts.

    Attributes:
        values: Name to number, in the order of the model's outputs.
        source: The image's file as a path; None for an input that was not given by its path.

    Example:
        >>> ValuesPrediction({"age": 41.5}).values["age"]
        41.5
    """

    values: dict[str, float]
    source: str | None = None

    def cells(self) -> list[Cell]:
        """Describes the prediction in a row of a table."""
        return [(name, f"{value:.4g}", "right") for name, value in self.values.items()]

    def columns(self) -> dict[str, str | float]:
        """Lays out all of the prediction for a CSV file, column to value."""
        return _prefixed("value", self.values)

    def entries(self) -> dict[str, Any]:
        """Lays out the prediction for JSON."""
        return _without(self._asdict(), "source")


class MaskPrediction(NamedTuple):
    """The class that a model predicts for each pixel of an image.

    Attributes:
        mask: The classes' numbers, int64 of the size of the model's input, shape ``(H, W)``.
        shares: Class to its share of the pixels, in [0, 1].
        source: The image's file as a path; None for an image that was not given by its path.

    Example:
        >>> import torch
        >>> MaskPrediction(torch.zeros(2, 2), {"road": 1.0, "sky": 0.0}).entries()["mask"]
        [[0.0, 0.0], [0.0, 0.0]]
    """

    mask: Tensor
    shares: dict[str, float]
    source: str | None = None

    def cells(self) -> list[Cell]:
        """Describes the prediction in a row of a table."""
        return [(name, f"{share:.1%}", "right") for name, share in self.shares.items()]

    def columns(self) -> dict[str, str | float]:
        """Lays out the shares of the pixels for a CSV file, column to value."""
        return _prefixed("share", self.shares)

    def entries(self) -> dict[str, Any]:
        """Lays out the prediction for JSON, the mask as a list of its rows."""
        return {"shares": self.shares, "mask": self.mask.tolist()}


def _prefixed(prefix: str, numbers: Mapping[str, float]) -> dict[str, str | float]:
    return {f"{prefix}_{name}": number for name, number in numbers.items()}


def _without(entries: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in entries.items() if key != name}
