"""Figures from plain arrays, for runs, reports and notebooks alike."""

import itertools
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
    "plot_accuracies",
    "plot_cosine_matrix",
    "plot_cosines",
    "plot_cost",
    "plot_differences",
    "plot_search",
]

_WINDOW = "#f2c14e"
_MINIMUM = "black"
_PAIRS = "steelblue"
_LABEL_WIDTH = 44  # characters in a line
_SEARCH, _REST = "#d55e00", "#9ecae1"

# What a row is: its colour, from a palette that the colour-blind can tell apart, and its marker.
KINDS = {
    "method": ("#0072b2", "o"),
    "control": ("#d55e00", "s"),
    "plain": ("#6b6b6b", "D"),
    "baseline": ("black", "^"),
}


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


def plot_differences(
    labels: Sequence[str],
    kinds: Sequence[str],
    differences: ArrayLike,
    intervals: ArrayLike,
    panels: Sequence[str],
    *,
    baseline: str = "the baseline",
) -> Figure:
    """Draws paired differences with their intervals, a panel for each data set.

    Args:
        labels: The R rows' names, drawn from top to bottom.
        kinds: What each row is, of ``KINDS``.
        differences: In points, shape ``(R, P)``; NaN where there is none.
        intervals: Lower and upper ends, shape ``(R, P, 2)``; NaN where there is none.
        panels: The P panels' titles.
        baseline: What the rows are compared with.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit or a kind is unknown.
    """
    values = _shaped("differences", differences, (len(labels), len(panels)))
    ends = _shaped("intervals", intervals, (len(labels), len(panels), 2))
    figure, axes = _row_panels(labels, panels)
    for column, ax in enumerate(axes):
        ax.axvline(0.0, color="black", lw=0.9, zorder=1)
        lengths = np.abs(ends[:, column] - values[:, column, None])
        _draw_rows(ax, kinds, values[:, column], lengths)
    figure.supxlabel(f"difference to {baseline}, points (95 % interval over trials)", fontsize=9)
    _explain_kinds(figure, kinds)
    return figure


def plot_accuracies(
    labels: Sequence[str],
    kinds: Sequence[str],
    domains: Sequence[str],
    means: ArrayLike,
    errors: ArrayLike,
    *,
    title: str = "",
) -> Figure:
    """Draws accuracies with their errors, a panel for each held-out domain.

    Args:
        labels: The R rows' names, drawn from top to bottom.
        kinds: What each row is, of ``KINDS``.
        domains: The D panels' titles: held-out domains, their average.
        means: In percent, shape ``(R, D)``; NaN where there is none.
        errors: Half-lengths of the error bars, shape ``(R, D)``.
        title: What is shown.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit or a kind is unknown.
    """
    values = _shaped("means", means, (len(labels), len(domains)))
    lengths = _shaped("errors", errors, (len(labels), len(domains)))
    figure, axes = _row_panels(labels, domains)
    for column, ax in enumerate(axes):
        both = np.repeat(lengths[:, column, None], 2, axis=1)
        _draw_rows(ax, kinds, values[:, column], both)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel("accuracy on the held-out domain, % (± standard error)", fontsize=9)
    _explain_kinds(figure, kinds)
    return figure


def plot_search(
    labels: Sequence[str],
    gains: ArrayLike,
    transfers: ArrayLike,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draws what the search gained, and what of it is left on the next batch.

    Args:
        labels: The R rows' names, drawn from top to bottom.
        gains: Mean gain in cosine of a searched step, shape ``(R,)``.
        transfers: The same on the next batch; NaN where it was not measured.
        title: What is shown.
        ax: Where to draw; a new figure if None.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit.
    """
    own = _shaped("gains", gains, (len(labels),))
    moved = _shaped("transfers", transfers, (len(labels),))
    figure, ax = _canvas(ax, (7.0, _row_height(labels)))
    places = np.arange(len(labels))
    ax.axvline(0.0, color="grey", lw=0.8)
    ax.hlines(places, moved, own, color="lightgrey", lw=1.5, zorder=1)
    ax.scatter(own, places, color=KINDS["method"][0], s=26, label="on the searched batch")
    known = np.isfinite(moved)
    ax.scatter(
        moved[known],
        places[known],
        s=30,
        marker="s",
        facecolor="white",
        edgecolor=KINDS["control"][0],
        label="on the next batch",
    )
    for place, gain, transfer in zip(places, own, moved, strict=True):
        text = f"{gain:+.2g}" + (f", next {transfer:+.2g}" if np.isfinite(transfer) else "")
        ax.annotate(
            text,
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    ax.margins(x=0.06)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.set_xlabel("mean gain in cosine of a searched step", fontsize=9)
    _name_rows(ax, labels)
    ax.set_title(title, fontsize=10, loc="left")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def plot_cost(
    labels: Sequence[str],
    seconds: ArrayLike,
    search_seconds: ArrayLike,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draws how long a run takes, and which part of it the search.

    Args:
        labels: The R rows' names, drawn from top to bottom.
        seconds: Mean time of a run, shape ``(R,)``.
        search_seconds: What of it the search took.
        title: What is shown.
        ax: Where to draw; a new figure if None.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit.
    """
    whole = _shaped("seconds", seconds, (len(labels),))
    search = _shaped("search_seconds", search_seconds, (len(labels),))
    figure, ax = _canvas(ax, (7.0, _row_height(labels)))
    places = np.arange(len(labels))
    ax.barh(places, whole - search, height=0.62, color=_REST, label="training and evaluation")
    ax.barh(places, search, left=whole - search, height=0.62, color=_SEARCH, label="search")
    for place, (total, part) in enumerate(zip(whole, search, strict=True)):
        text = f" {total:,.0f} s" + _share(part, total)
        ax.text(total, place, text, va="center", fontsize=7.5)
    ax.set_xlim(0, 1.45 * max(whole, default=1.0))  # room for the texts
    ax.set_xlabel("seconds a run", fontsize=9)
    _name_rows(ax, labels)
    ax.set_title(title, fontsize=10, loc="left")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _shaped(name: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    found = np.asarray(values, dtype=float)
    if found.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, got {found.shape}.")
    return found


def _share(part: float, whole: float) -> str:
    """The search's share of the time, nothing without a search."""
    if part <= 0:
        return ""
    return f", {part / whole:.0%} search" if part >= 0.01 * whole else ", < 1% search"


def _row_height(labels: Sequence[str]) -> float:
    lines = max((_folded(label).count("\n") + 1 for label in labels), default=1)
    return 1.5 + (0.13 + 0.14 * lines) * len(labels)


def _folded(label: str) -> str:
    return textwrap.fill(label, _LABEL_WIDTH)


def _row_panels(labels: Sequence[str], titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Panels side by side that share their rows."""
    longest = min(max(map(len, labels), default=0), _LABEL_WIDTH)
    width = 1.0 + 0.075 * longest + max(5.5, 1.7 * len(titles))
    figure = Figure(figsize=(width, _row_height(labels)), layout="constrained")
    axes = list(figure.subplots(1, len(titles), sharey=True, squeeze=False)[0])
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.grid(axis="x", color="0.92", lw=0.8)
        _name_rows(ax, labels)
    return figure, axes


def _name_rows(ax: Axes, labels: Sequence[str]) -> None:
    """The first row on top; every other one shaded, so that the eye keeps to it."""
    ax.set_yticks(range(len(labels)), [_folded(label) for label in labels], fontsize=8)
    ax.tick_params(axis="y", left=False)
    ax.tick_params(axis="x", labelsize=8)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    for row in range(0, len(labels), 2):
        ax.axhspan(row - 0.5, row + 0.5, color="0.965", lw=0, zorder=0)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _draw_rows(ax: Axes, kinds: Sequence[str], values: np.ndarray, lengths: np.ndarray) -> None:
    """A mark and an error bar a row; ``lengths`` has shape ``(R, 2)``."""
    for row, kind in enumerate(kinds):
        if kind not in KINDS:
            raise ValueError(f"`kinds` must be of {', '.join(KINDS)}, got {kind!r}.")
        color, marker = KINDS[kind]
        if np.isfinite(values[row]):
            bar = lengths[row, :, None] if np.isfinite(lengths[row]).all() else None
            ax.errorbar(
                values[row], row, xerr=bar, fmt=marker, color=color, ms=5, lw=1.4, capsize=2.5
            )


def _explain_kinds(figure: Figure, kinds: Sequence[str]) -> None:
    handles = [
        Line2D([], [], color=color, marker=marker, lw=1.4, ms=5, label=kind)
        for kind, (color, marker) in KINDS.items()
        if kind in kinds
    ]
    figure.legend(handles=handles, loc="outside right center", fontsize=8, frameon=False)


def _canvas(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    if ax is not None:
        figure = ax.get_figure(root=True)
        assert figure is not None
        return figure, ax
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()
