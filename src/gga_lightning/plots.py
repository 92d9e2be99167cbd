"""Figures from plain arrays, for runs, reports and notebooks alike."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

__all__ = ["plot_cosine_matrix", "plot_cosines"]

_WINDOW = "#f2c14e"
_MINIMUM = "black"
_PAIRS = "steelblue"


def plot_cosines(
    steps: ArrayLike,
    cosines: ArrayLike,
    domains: Sequence[str],
    *,
    window: tuple[int, int] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draws the pairwise cosines between domain gradients over the steps of a training.

    Args:
        steps: T optimizer steps.
        cosines: Cosine matrices, shape ``(T, D, D)``.
        domains: The D domains' names.
        window: First step and end of the search window, shaded.
        ax: Where to draw; a new figure if None.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit.
    """
    times, values = np.asarray(steps), np.asarray(cosines, dtype=float)
    count = len(domains)
    if values.shape != (len(times), count, count):
        raise ValueError(
            f"`cosines` must have shape ({len(times)}, {count}, {count}), one matrix a step, "
            f"got {values.shape}."
        )
    figure, ax = _canvas(ax, (7.0, 3.6))
    if window is not None:
        ax.axvspan(*window, color=_WINDOW, alpha=0.35, lw=0, label="search window")
    ax.axhline(0.0, color="grey", lw=0.8)
    pairs = list(itertools.combinations(range(count), 2))
    few = len(pairs) <= 6  # beyond that, single pairs cannot be told apart
    for row, column in pairs:
        if few:
            label = f"{domains[row]} / {domains[column]}"
            ax.plot(times, values[:, row, column], lw=1.1, label=label)
        else:
            ax.plot(times, values[:, row, column], lw=0.7, color=_PAIRS, alpha=0.45)
    if not few:
        ax.plot([], [], color=_PAIRS, alpha=0.45, label=f"{len(pairs)} pairs")
    if len(pairs) > 1:
        lowest = np.min([values[:, row, column] for row, column in pairs], axis=0)
        ax.plot(times, lowest, color=_MINIMUM, lw=1.6, ls=(0, (3, 1.2)), label="minimum")
    ax.set(xlabel="optimizer step", ylabel="cosine similarity")
    ax.set_title("Agreement of the source domains' gradients", fontsize=10, loc="left")
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def plot_cosine_matrix(
    cosines: ArrayLike, domains: Sequence[str], *, ax: Axes | None = None
) -> Figure:
    """Draws one cosine matrix as a heat map with its numbers.

    Args:
        cosines: Shape ``(D, D)``.
        domains: The D domains' names.
        ax: Where to draw; a new figure if None.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit.
    """
    values = np.asarray(cosines, dtype=float)
    count = len(domains)
    if values.shape != (count, count):
        raise ValueError(f"`cosines` must have shape ({count}, {count}), got {values.shape}.")
    figure, ax = _canvas(ax, (1.6 + 0.75 * count, 1.2 + 0.75 * count))
    image = ax.imshow(values, cmap="RdBu", vmin=-1.0, vmax=1.0)
    ax.set_xticks(range(count), domains, rotation=45, ha="right")
    ax.set_yticks(range(count), domains)
    for row in range(count):
        for column in range(count):
            value = values[row, column]
            ink = "white" if abs(value) > 0.6 else "black"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=9)
    figure.colorbar(image, ax=ax, shrink=0.8, label="cosine similarity")
    return figure


def _canvas(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    if ax is not None:
        figure = ax.get_figure(root=True)
        assert figure is not None
        return figure, ax
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()
