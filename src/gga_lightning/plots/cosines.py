"""Draws how far the domains' gradients agree, over a training or at one step."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from gga_lightning.plots.layout import canvas, folded

__all__ = ["plot_cosine_matrix", "plot_cosines"]

_WINDOW = "#f2c14e"
_MINIMUM = "black"
_PAIRS = "steelblue"
_RAISED, _LOWERED = "#0072b2", "#d55e00"
_FEW = 6  # pairs; more lines cannot be told apart


def plot_cosines(
    steps: ArrayLike,
    cosines: ArrayLike,
    domains: Sequence[str],
    *,
    window: tuple[int, int] | None = None,
    search: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draws the pairwise cosines between domain gradients over the steps of a training.

    Up to six pairs are drawn one by one, more as their range, mean and minimum. With ``search``, a
    second panel below shows by how much each search changed the lowest cosine. Such a change is
    often a thousandth of the cosines themselves, and would not be visible among them.

    Args:
        steps: T optimizer steps.
        cosines: Cosine matrices, shape ``(T, D, D)``.
        domains: The D domains' names.
        window: First step and end of the search window, shaded.
        search: Of each of S searched steps the optimizer step, the lowest cosine before the
            search, and the lowest cosine after it; shape ``(S, 3)``.
        ax: Where to draw; a new figure if None. The panel for ``search`` needs a new figure.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit, or both ``search`` and ``ax`` are given.

    Example:
        >>> cosines = [[[1.0, -0.2], [-0.2, 1.0]], [[1.0, 0.1], [0.1, 1.0]]]
        >>> figure = plot_cosines([0, 10], cosines, ["art", "photo"], search=[(0, -0.2, -0.1)])
        >>> [ax.get_ylabel() for ax in figure.axes]
        ['cosine similarity', 'change in lowest cosine']
    """
    times, values = np.asarray(steps), np.asarray(cosines, dtype=float)
    count = len(domains)
    if values.shape != (len(times), count, count):
        raise ValueError(
            f"`cosines` must have shape ({len(times)}, {count}, {count}), one matrix a step, "
            f"got {values.shape}."
        )
    if search is not None and ax is not None:
        raise ValueError("`search` must be None where `ax` is given, as it needs a second panel.")
    if search is None or not np.size(search):
        figure, top = canvas(ax, (7.0, 3.6))
        bottom = top
    else:
        figure = Figure(figsize=(7.0, 5.0), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _draw_search(bottom, np.asarray(search, dtype=float))
    _draw_pairs(top, times, values, domains)
    if window is not None:
        for panel in figure.axes if bottom is not top else [top]:
            panel.axvspan(*window, color=_WINDOW, alpha=0.35, lw=0, label="search window", zorder=0)
    bottom.set_xlabel("optimizer step")
    top.set_ylabel("cosine similarity")
    top.set_title("Agreement of the source domains' gradients", fontsize=10, loc="left")
    top.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _draw_pairs(ax: Axes, times: np.ndarray, values: np.ndarray, domains: Sequence[str]) -> None:
    ax.axhline(0.0, color="grey", lw=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    names = [folded(name) for name in domains]
    pairs = list(itertools.combinations(range(len(domains)), 2))
    lines = np.array([values[:, row, column] for row, column in pairs])
    if len(pairs) > _FEW:
        label = f"range of {len(pairs)} pairs"
        ax.fill_between(
            times, lines.min(0), lines.max(0), color=_PAIRS, alpha=0.25, lw=0, label=label
        )
        ax.plot(times, lines.mean(0), color=_PAIRS, lw=1.4, label="mean")
    else:
        for (row, column), line in zip(pairs, lines, strict=True):
            ax.plot(times, line, lw=1.1, label=f"{names[row]} / {names[column]}")
    if len(pairs) > 1:
        ax.plot(times, lines.min(0), color=_MINIMUM, lw=1.6, ls=(0, (3, 1.2)), label="minimum")


def _draw_search(ax: Axes, search: np.ndarray) -> None:
    """A bar for each searched step, upwards where the search raised the lowest cosine."""
    if search.ndim != 2 or search.shape[1] != 3:
        raise ValueError(
            "`search` must have shape (S, 3): step, lowest cosine before and after; "
            f"got {search.shape}."
        )
    steps, before, after = search.T
    changes = after - before
    colors = np.where(changes < 0, _LOWERED, _RAISED)
    ax.vlines(steps, 0.0, changes, colors=list(colors), lw=1.4)
    ax.axhline(0.0, color="grey", lw=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_ylabel("change in lowest cosine")
    ax.set_title(
        f"What the search did: {before.mean():+.4f} to {after.mean():+.4f}, a change of "
        f"{changes.mean():+.2g}, mean over {len(search)} steps",
        fontsize=10,
        loc="left",
    )


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

    Example:
        >>> figure = plot_cosine_matrix([[1.0, -0.2], [-0.2, 1.0]], ["art", "photo"])
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['art', 'photo']
    """
    values = np.asarray(cosines, dtype=float)
    count = len(domains)
    if values.shape != (count, count):
        raise ValueError(f"`cosines` must have shape ({count}, {count}), got {values.shape}.")
    figure, ax = canvas(ax, (1.6 + 0.75 * count, 1.2 + 0.75 * count))
    image = ax.imshow(values, cmap="RdBu", vmin=-1.0, vmax=1.0)
    names = [folded(name) for name in domains]
    ax.set_xticks(range(count), names, rotation=45, ha="right")
    ax.set_yticks(range(count), names)
    for row in range(count):
        for column in range(count):
            value = values[row, column]
            ink = "white" if abs(value) > 0.6 else "black"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=9)
    figure.colorbar(image, ax=ax, shrink=0.8, label="cosine similarity")
    return figure
