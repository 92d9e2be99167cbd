"""Draws a study with one row for each method: differences, accuracies, searches, costs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from gga_lightning.plots.layout import (
    KINDS,
    canvas,
    explain_kinds,
    folded,
    name_rows,
    row_height,
    row_panels,
    shaped,
)

__all__ = ["plot_accuracies", "plot_cost", "plot_differences", "plot_search"]

_SEARCH, _REST = "#d55e00", "#9ecae1"
_FEW = 10  # values that are drawn one by one
_ZOOM = 3.0  # how far the scale reaches beyond the values themselves, for intervals


def plot_differences(
    labels: Sequence[str],
    kinds: Sequence[str],
    differences: ArrayLike,
    intervals: ArrayLike,
    panels: Sequence[str],
    *,
    samples: Sequence[Sequence[Sequence[float]]] | None = None,
    notes: Sequence[Sequence[str]] | None = None,
    axis: str = "difference to the baseline in points (better \u2192)",
) -> Figure:
    """Draws paired differences with their intervals, a panel for each data set.

    All panels have the same scale. An interval that is much longer than all differences, as of
    two pairs, ends in an arrow at the panel's edge.

    Args:
        labels: The R rows' names, drawn from top to bottom.
        kinds: What each row is, of ``KINDS``.
        differences: In points, shape ``(R, P)``; NaN where there is none.
        intervals: Lower and upper ends, shape ``(R, P, 2)``; NaN where there is none.
        panels: The P panels' titles.
        samples: The single differences of each row and panel, drawn as dots if they are at most
            ten.
        notes: What to write above each mark, such as its number of pairs.
        axis: What the axis shows.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit or a kind is unknown.

    Example:
        >>> figure = plot_differences(
        ...     ["erm + gga"], ["method"], [[0.4]], [[[-0.9, 1.7]]], ["pacs"], samples=[[[0, 0.8]]]
        ... )
    """
    shape = len(labels), len(panels)
    values = shaped("differences", differences, shape)
    ends = shaped("intervals", intervals, (*shape, 2))
    figure, axes = row_panels(labels, panels)
    found = [*values.flat, *(v for row in samples or () for sample in row for v in sample)]
    low, high = _scale([v for v in (*found, 0.0) if np.isfinite(v)], ends[np.isfinite(ends)])
    for column, ax in enumerate(axes):
        ax.set_xlim(low, high)
        ax.axvline(0.0, color="black", lw=0.9, zorder=1)
        for row in range(len(labels) if samples is not None else 0):
            dots = samples[row][column] if samples is not None else ()
            if 1 < len(dots) <= _FEW:
                ax.plot(dots, [row + 0.25] * len(dots), ".", color="0.35", ms=3.5, zorder=2)
        _draw_rows(ax, kinds, values[:, column], ends[:, column], _column(notes, column))
    figure.supxlabel(folded(axis, _line(figure)), fontsize=9)
    explain_kinds(figure, kinds)
    return figure


def plot_accuracies(
    labels: Sequence[str],
    kinds: Sequence[str],
    domains: Sequence[str],
    means: ArrayLike,
    errors: ArrayLike,
    *,
    title: str = "",
    notes: Sequence[Sequence[str]] | None = None,
    axis: str = "accuracy on the held-out domain in % (better \u2192), mean \u00b1 standard error",
) -> Figure:
    """Draws accuracies with their errors, a panel for each held-out domain.

    All panels have the same scale.

    Args:
        labels: The R rows' names, drawn from top to bottom.
        kinds: What each row is, of ``KINDS``.
        domains: The D panels' titles: held-out domains, their average.
        means: In percent, shape ``(R, D)``; NaN where there is none.
        errors: Half-lengths of the error bars, shape ``(R, D)``; NaN where there is none.
        title: What is shown.
        notes: What to write above each mark, such as its seeds.
        axis: What the axis shows.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit or a kind is unknown.

    Example:
        >>> figure = plot_accuracies(
        ...     ["erm"], ["baseline"], ["art", "Avg"], [[81.2, 80.4]], [[0.5, float("nan")]]
        ... )
    """
    values = shaped("means", means, (len(labels), len(domains)))
    lengths = shaped("errors", errors, (len(labels), len(domains)))
    figure, axes = row_panels(labels, domains)
    for column, ax in enumerate(axes):
        ends = np.stack([values - lengths, values + lengths], axis=-1)[:, column]
        _draw_rows(ax, kinds, values[:, column], ends, _column(notes, column))
    axes[0].margins(x=0.12)
    figure.suptitle(folded(title, _line(figure)), fontsize=10)
    figure.supxlabel(folded(axis, _line(figure)), fontsize=9)
    explain_kinds(figure, kinds)
    return figure


def plot_search(
    labels: Sequence[str],
    gains: ArrayLike,
    transfers: ArrayLike,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draws the gains of the search, and the part of each gain that holds on the next batch.

    Args:
        labels: The R rows' names, drawn from top to bottom.
        gains: Mean gain in cosine of a searched step, shape ``(R,)``.
        transfers: Mean gain on the next batch, shape ``(R,)``; NaN if it was not measured.
        title: What is shown.
        ax: Where to draw; a new figure if None.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> figure = plot_search(["erm + gga"], gains=[0.2], transfers=[0.1])
        >>> figure.axes[0].get_xlabel()
        'mean gain in cosine of a searched step (better →)'
    """
    own = shaped("gains", gains, (len(labels),))
    moved = shaped("transfers", transfers, (len(labels),))
    figure, ax = canvas(ax, (7.0, row_height(labels)))
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
    ax.set_xlabel("mean gain in cosine of a searched step (better \u2192)", fontsize=9)
    return _finished(figure, ax, labels, title)


def plot_cost(
    labels: Sequence[str],
    seconds: ArrayLike,
    search_seconds: ArrayLike,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draws how long a run takes, and how much of this time the search takes.

    Args:
        labels: The R rows' names, drawn from top to bottom.
        seconds: Mean time of a run, shape ``(R,)``.
        search_seconds: The part of this time that the search took, shape ``(R,)``.
        title: What is shown.
        ax: Where to draw; a new figure if None.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> figure = plot_cost(["erm", "erm + gga"], seconds=[60, 90], search_seconds=[0, 30])
        >>> [text.get_text() for text in figure.axes[0].texts]
        [' 60 s', ' 90 s, 33% search']
    """
    whole = shaped("seconds", seconds, (len(labels),))
    search = shaped("search_seconds", search_seconds, (len(labels),))
    figure, ax = canvas(ax, (7.0, row_height(labels)))
    places = np.arange(len(labels))
    ax.barh(places, whole - search, height=0.62, color=_REST, label="training and evaluation")
    ax.barh(places, search, left=whole - search, height=0.62, color=_SEARCH, label="search")
    for place, (total, part) in enumerate(zip(whole, search, strict=True)):
        text = f" {total:,.0f} s" + _share(part, total)
        ax.text(total, place, text, va="center", fontsize=7.5)
    ax.set_xlim(0, 1.45 * max(whole, default=1.0))  # room for the texts
    ax.set_xlabel("seconds a run (\u2190 better)", fontsize=9)
    return _finished(figure, ax, labels, title)


def _finished(figure: Figure, ax: Axes, labels: Sequence[str], title: str) -> Figure:
    """Adds what explains a figure with one panel: the rows' names, the title, the legend."""
    name_rows(ax, labels)
    ax.set_title(folded(title, 80), fontsize=10, loc="left")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _scale(values: Sequence[float], ends: np.ndarray) -> tuple[float, float]:
    """The range of the values and of their intervals, but not far beyond the values."""
    reach = _ZOOM * max(max(map(abs, values)), 1e-3)
    low = max(min([*values, *ends]), -reach)
    high = min(max([*values, *ends]), reach)
    margin = 0.08 * (high - low or 1.0)
    return low - margin, high + margin


def _line(figure: Figure) -> int:
    """How many characters a line across the figure has."""
    return int(13 * figure.get_size_inches()[0])


def _column(notes: Sequence[Sequence[str]] | None, column: int) -> list[str] | None:
    return None if notes is None else [row[column] for row in notes]


def _draw_rows(
    ax: Axes,
    kinds: Sequence[str],
    values: np.ndarray,
    ends: np.ndarray,
    notes: Sequence[str] | None,
) -> None:
    """A mark, a bar and a note a row; ``ends`` has shape ``(R, 2)``."""
    for row, kind in enumerate(kinds):
        if kind not in KINDS:
            raise ValueError(f"`kinds` must be of {', '.join(KINDS)}, got {kind!r}.")
        if np.isfinite(values[row]):
            _draw_row(ax, row, KINDS[kind], values[row], ends[row])
        note = notes[row] if notes is not None else ""
        place = (values[row], row) if np.isfinite(values[row]) else (0.5, row)
        coordinates = "data" if np.isfinite(values[row]) else ("axes fraction", "data")
        ax.annotate(
            note,
            place,
            xycoords=coordinates,
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=6,
            color="0.35",
        )


def _draw_row(ax: Axes, row: int, look: tuple[str, str], value: float, ends: np.ndarray) -> None:
    color, marker = look
    bar = np.abs(ends - value)[:, None] if np.isfinite(ends).all() else None
    ax.errorbar(value, row, xerr=bar, fmt=marker, color=color, ms=5, lw=1.4, capsize=2.5)
    low, high = ax.get_xlim()
    for end, edge, arrow in ((ends[0], low, "<"), (ends[1], high, ">")):
        if not ax.get_autoscalex_on() and not low <= end <= high and np.isfinite(end):
            ax.plot([edge], [row], arrow, color=color, ms=5, clip_on=False)


def _share(part: float, whole: float) -> str:
    """The search's share of the time, nothing without a search."""
    if part <= 0:
        return ""
    return f", {part / whole:.0%} search" if part >= 0.01 * whole else ", < 1% search"
