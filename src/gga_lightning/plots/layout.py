"""What the figures share: axes, rows with their names, and the colours of the kinds of rows."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

__all__ = [
    "KINDS",
    "canvas",
    "explain_kinds",
    "folded",
    "name_rows",
    "row_height",
    "row_panels",
    "shaped",
]

_LABEL_WIDTH = 44  # characters in a line
_TITLE_WIDTH = 20

# What a row is: its colour, from a palette that the colour-blind can tell apart, and its marker.
KINDS = {
    "method": ("#0072b2", "o"),
    "control": ("#d55e00", "s"),
    "plain": ("#6b6b6b", "D"),
    "baseline": ("black", "^"),
}


def shaped(name: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Checks an array's shape.

    Args:
        name: What the caller calls it.
        values: The array.
        shape: The shape that it must have.

    Returns:
        The array, of floats.

    Raises:
        ValueError: If it has another shape.
    """
    found = np.asarray(values, dtype=float)
    if found.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, got {found.shape}.")
    return found


def folded(text: str, width: int = _LABEL_WIDTH) -> str:
    """Breaks a name into lines; a dollar sign stays one, instead of beginning a formula."""
    return textwrap.fill(text, width).replace("$", r"\$")


def row_height(labels: Sequence[str]) -> float:
    """Computes a figure's height in inches."""
    lines = sum(folded(label).count("\n") + 1 for label in labels)
    return 1.7 + 0.16 * len(labels) + 0.14 * lines


def row_panels(labels: Sequence[str], titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Makes panels side by side that share their rows and their scale.

    Args:
        labels: The rows' names, from top to bottom.
        titles: The panels' titles.

    Returns:
        The figure and its panels.
    """
    longest = min(max(map(len, labels), default=0), _LABEL_WIDTH)
    width = 1.0 + 0.075 * longest + max(5.5, 1.7 * len(titles))
    figure = Figure(figsize=(width, row_height(labels)), layout="constrained")
    axes = list(figure.subplots(1, len(titles), sharex=True, sharey=True, squeeze=False)[0])
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(folded(title, _TITLE_WIDTH), fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.grid(axis="x", color="0.92", lw=0.8)
        name_rows(ax, labels)
    return figure, axes


def name_rows(ax: Axes, labels: Sequence[str]) -> None:
    """Names the rows, the first on top; every other one is shaded to guide the eye."""
    ax.set_yticks(range(len(labels)), [folded(label) for label in labels], fontsize=8)
    ax.tick_params(axis="y", left=False)
    ax.tick_params(axis="x", labelsize=8)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    for row in range(0, len(labels), 2):
        ax.axhspan(row - 0.5, row + 0.5, color="0.965", lw=0, zorder=0)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)


def explain_kinds(figure: Figure, kinds: Sequence[str]) -> None:
    """Adds a legend of the kinds that there are."""
    handles = [
        Line2D([], [], color=color, marker=marker, lw=1.4, ms=5, label=kind)
        for kind, (color, marker) in KINDS.items()
        if kind in kinds
    ]
    figure.legend(handles=handles, loc="outside right center", fontsize=8, frameon=False)


def canvas(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Gives the figure to draw in, a new one if there are no axes yet."""
    if ax is not None:
        figure = ax.get_figure(root=True)
        assert figure is not None
        return figure, ax
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()
