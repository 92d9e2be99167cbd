"""Draws pictures with a model's predictions."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

__all__ = ["plot_predictions"]

_RIGHT, _WRONG = "#0072b2", "#d55e00"
_COLUMNS = 8
_LONGEST = 14  # characters of a class's name in a line


def plot_predictions(
    images: ArrayLike,
    targets: Sequence[str],
    predictions: Sequence[str],
    probabilities: Sequence[float] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    r"""Draws pictures with their predicted classes below them, in blue if right.

    The text below a picture is the predicted class with its probability and, if the prediction is
    wrong, the true class.

    Args:
        images: N pictures, shape ``(N, 3, height, width)``, integers from 0 to 255.
        targets: Their classes.
        predictions: Their predicted classes.
        probabilities: The probabilities of the predictions, in [0, 1]; not shown if None.
        title: The title of the figure.

    Returns:
        The figure, eight pictures in a row.

    Raises:
        ValueError: If there are no pictures, or the shapes do not fit.

    Example:
        >>> figure = plot_predictions(np.zeros((2, 3, 8, 8)), ["cat", "dog"], ["cat", "cat"])
        >>> [ax.get_title() for ax in figure.axes]
        ['cat', 'cat\n(dog)']
    """
    pictures = np.asarray(images)
    count = len(pictures)
    if not count or pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(
            f"`images` must have shape (N, 3, height, width), N at least 1, got {pictures.shape}."
        )
    sizes = {len(targets), len(predictions), count if probabilities is None else len(probabilities)}
    if sizes != {count}:
        raise ValueError(
            f"`targets`, `predictions` and `probabilities` must be of {count} pictures, got "
            f"{sorted(sizes)}."
        )
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(1.25 * columns, 1.6 * rows + 0.4), layout="constrained")
    for place, picture in enumerate(pictures):
        ax = figure.add_subplot(rows, columns, place + 1)
        ax.imshow(np.clip(picture, 0, 255).astype(np.uint8).transpose(1, 2, 0))
        ax.set_xticks([])
        ax.set_yticks([])
        right = predictions[place] == targets[place]
        text = _short(predictions[place])
        if probabilities is not None:
            text += f" {probabilities[place]:.0%}"
        if not right:
            text += f"\n({_short(targets[place])})"
        colour = _RIGHT if right else _WRONG
        # names may have dollar signs, which are no formulas
        ax.set_title(text, fontsize=8, color=colour, y=0.0, va="top", pad=-4, parse_math=False)
        for side in ax.spines.values():
            side.set_color(colour)
    if title is not None:
        figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
