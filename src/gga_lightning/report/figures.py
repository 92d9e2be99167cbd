"""A report's figures, drawn by ``gga_lightning.plots`` and saved as PNG files."""

import hashlib
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

from gga_lightning.plots import plot_accuracies, plot_cost, plot_differences, plot_search
from gga_lightning.report.methods import Method
from gga_lightning.report.metric import ACCURACY
from gga_lightning.report.rules import RULES, seeds
from gga_lightning.report.statistics import Cell, Comparison, Difference
from gga_lightning.report.tables import SeedMarks, by_label, errors_text

__all__ = ["save_figures"]

_NOTE_LENGTH = 14  # characters
_NAME_LENGTH = 240  # bytes of a file's name; file systems take 255


def save_figures(comparisons: Sequence[Comparison], folder: Path) -> None:
    """Saves figures of accuracies and differences under each rule, and of searches and costs."""
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Figure] = {}
    for rule, grouped in itertools.groupby(comparisons, key=lambda c: c.rule):
        same_rule = list(grouped)
        for comparison in same_rule:
            figures[f"accuracies-{comparison.data}-{rule}"] = _accuracies(comparison)
        for metric in dict.fromkeys(comparison.metric for comparison in same_rule):
            of_metric = [c for c in same_rule if c.metric == metric]
            if any(row.difference for comparison in of_metric for row in comparison.rows):
                name = "" if metric == ACCURACY else f"-{metric.name}"
                figures[f"differences{name}-{rule}"] = _differences(of_metric)
    for data, methods in {c.data: [row.method for row in c.rows] for c in comparisons}.items():
        figures[f"cost-{data}"] = _cost(data, methods)
        searched = [method for method in methods if _gains(method, "mean_gain")]
        if searched:
            figures[f"search-{data}"] = _search(data, searched)
    for name, figure in figures.items():
        figure.savefig(folder / f"{_file_name(name)}.png", dpi=150)


def _file_name(text: str) -> str:
    """Makes a valid file name; a hash keeps changed names apart."""
    name = re.sub(r"[^\w.,=+-]+", "_", text).encode()[:_NAME_LENGTH].decode(errors="ignore")
    return name if name == text else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _accuracies(comparison: Comparison) -> Figure:
    metric = comparison.metric
    direction = "better \u2192" if metric.higher_is_better else "\u2190 better"
    lines = [row.cells for row in comparison.rows]
    marks = SeedMarks(itertools.chain(*lines))
    return plot_accuracies(
        [row.method.shown for row in comparison.rows],
        [row.method.kind for row in comparison.rows],
        comparison.columns,
        _values(lines, "mean"),
        _values(lines, "error"),
        title=f"{comparison.data}: {RULES[comparison.rule]}",
        notes=[[_note(marks, cell) for cell in line] for line in lines],
        axis=f"{metric.title} on the held-out domain{' in %' if metric.in_percent else ''} "
        f"({direction}), "
        f"{errors_text(comparison)}; n = {len(marks.usual)}, {seeds(marks.usual)}",
    )


def _differences(comparisons: Sequence[Comparison]) -> Figure:
    rows = [row for comparison in comparisons for row in comparison.rows]
    kinds = {row.method.label: row.method.kind for row in rows}
    named: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        if row.method.base is not None:
            named[row.method.label][row.method.base] = None
    bases = {label: ", ".join(found) for label, found in named.items()}
    single = len(set(bases.values())) == 1
    marks = SeedMarks(row.difference for row in rows)
    found = by_label(comparisons)
    lines = [[row and row.difference for row in found[label]] for label in bases]
    return plot_differences(
        list(bases) if single else [f"{label} vs {base}" for label, base in bases.items()],
        [kinds[label] for label in bases],
        _values(lines, "mean"),
        np.stack([_values(lines, "low"), _values(lines, "high")], axis=-1),
        [comparison.data for comparison in comparisons],
        samples=[[d.values if d else () for d in line] for line in lines],
        notes=[[_note(marks, difference) for difference in line] for line in lines],
        axis=f"difference to {next(iter(bases.values())) if single else 'the base'} in "
        f"{comparisons[0].metric.unit} (better \u2192), mean and 95 % t interval; "
        f"n = {len(marks.usual)} pairs, {seeds(marks.usual)}",
    )


def _values(lines: Sequence[Sequence[Cell | Difference | None]], name: str) -> np.ndarray:
    """Collects an attribute of all numbers; what is None becomes NaN."""
    return np.array([[getattr(found, name, None) for found in line] for line in lines], dtype=float)


def _note(marks: SeedMarks, number: Cell | Difference | None) -> str:
    """Writes the number of seeds where they are not the usual ones."""
    if number is None:
        return "no complete seed"
    if not marks.mark(number):
        return ""
    named = seeds(number.trials)
    return f"n = {len(number.trials)}, {named if len(named) <= _NOTE_LENGTH else 'other seeds'}"


def _search(data: str, methods: Sequence[Method]) -> Figure:
    gains = [_gains(method, "mean_gain") for method in methods]
    transfers = [_gains(method, "mean_transfer") for method in methods]
    labels, count = _with_counts(methods, [len(found) for found in gains])
    return plot_search(
        labels,
        [fmean(found) for found in gains],
        [fmean(found) if found else math.nan for found in transfers],
        title=f"{data}: what the search gains, n = {count} runs",
    )


def _gains(method: Method, name: str) -> list[float]:
    found = (getattr(run.search, name) for run in method.main_runs if run.search is not None)
    return [value for value in found if value is not None]


def _cost(data: str, methods: Sequence[Method]) -> Figure:
    runs = [method.main_runs for method in methods]
    labels, count = _with_counts(methods, [len(found) for found in runs])
    return plot_cost(
        labels,
        [fmean(run.seconds for run in found) for found in runs],
        [fmean(run.search.seconds if run.search else 0.0 for run in found) for found in runs],
        title=f"{data}: time of a run, mean of n = {count} runs",
    )


def _with_counts(methods: Sequence[Method], counts: Sequence[int]) -> tuple[list[str], int]:
    """Labels the rows, with their number of runs if it is not the usual one, which follows."""
    usual = Counter(counts).most_common(1)[0][0]
    labels = [
        method.label if count == usual else f"{method.label} (n = {count})"
        for method, count in zip(methods, counts, strict=True)
    ]
    return labels, usual
