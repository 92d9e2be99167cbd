"""A report's figures, drawn by ``gga_lightning.plots`` and saved as PNG files."""

import csv
import hashlib
import itertools
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gga_lightning.plots import (
    plot_accuracies,
    plot_cosines,
    plot_cost,
    plot_differences,
    plot_search,
)
from gga_lightning.report.methods import Method
from gga_lightning.report.results import Run
from gga_lightning.report.rules import RULES
from gga_lightning.report.statistics import Cell, Comparison

__all__ = ["save_figures"]

_MISSING = float("nan")
_NAME_LENGTH = 120
_TITLE_WIDTH = 80  # characters in a line


def save_figures(comparisons: Sequence[Comparison], folder: Path) -> list[Path]:
    """Draws accuracies and differences under each rule; searches, costs and cosines once.

    Args:
        comparisons: The rows of each data set under each rule, rule by rule.
        folder: Where the files go; it is made if need be.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Figure] = {}
    for rule, grouped in itertools.groupby(comparisons, key=lambda c: c.rule):
        same_rule = list(grouped)
        for comparison in same_rule:
            figures[f"accuracies-{comparison.data}-{rule}"] = _accuracies(comparison)
        if any(row.difference for comparison in same_rule for row in comparison.rows):
            figures[f"differences-{rule}"] = _differences(same_rule)
    for data, methods in {c.data: [row.method for row in c.rows] for c in comparisons}.items():
        figures[f"cost-{data}"] = _cost(data, methods)
        searched = [method for method in methods if _gains(method, "mean_gain")]
        if searched:
            figures[f"search-{data}"] = _search(data, searched)
        for method in methods:
            figure = _cosines(data, method)
            if figure is not None:
                figures[f"cosines-{data}-{method.label}"] = figure
    paths: list[Path] = []
    for name, figure in figures.items():
        path = folder / f"{_file_name(name)}.png"
        figure.savefig(path, dpi=150)
        paths.append(path)
    return paths


def _file_name(text: str) -> str:
    """A name that every file system takes, cut where it is too long."""
    name = re.sub(r"[^\w.,=+-]+", "_", text)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return name if len(name) <= _NAME_LENGTH else f"{name[:_NAME_LENGTH]}-{digest}"


def _accuracies(comparison: Comparison) -> Figure:
    rows = comparison.rows
    cells = [[*(row.cells.get(d) for d in comparison.domains), row.average] for row in rows]
    return plot_accuracies(
        [row.method.label for row in rows],
        [row.method.kind for row in rows],
        [*comparison.domains, "Avg"],
        [[_MISSING if cell is None else cell.mean for cell in line] for line in cells],
        [[_MISSING if cell is None else _error(cell) for cell in line] for line in cells],
        title=f"{comparison.data}: {RULES[comparison.rule]}",
    )


def _error(cell: Cell) -> float:
    """One trial has no error to draw."""
    return cell.error if cell.n > 1 else _MISSING


def _differences(comparisons: Sequence[Comparison]) -> Figure:
    found = {
        (row.method.label, comparison.data): row.difference
        for comparison in comparisons
        for row in comparison.rows
        if row.difference is not None
    }
    kinds = {row.method.label: row.method.kind for c in comparisons for row in c.rows}
    labels = [label for label in kinds if any(label == told for told, _ in found)]
    names = [comparison.data for comparison in comparisons]
    values = np.full((len(labels), len(names), 3), _MISSING)
    for (label, data), difference in found.items():
        ends = [_MISSING if e is None else e for e in (difference.low, difference.high)]
        values[labels.index(label), names.index(data)] = difference.mean, *ends
    baselines = {c.baseline.method.label for c in comparisons if c.baseline is not None}
    return plot_differences(
        labels,
        [kinds[label] for label in labels],
        values[..., 0],
        values[..., 1:],
        names,
        baseline=f"{baselines.pop()}" if len(baselines) == 1 else "the baseline",
    )


def _search(data: str, methods: Sequence[Method]) -> Figure:
    return plot_search(
        [method.label for method in methods],
        [float(np.mean(_gains(method, "mean_gain"))) for method in methods],
        [
            float(np.mean(values)) if values else _MISSING
            for values in (_gains(method, "mean_transfer") for method in methods)
        ],
        title=f"{data}: what the search gains",
    )


def _gains(method: Method, name: str) -> list[float]:
    found = (getattr(run.search, name) for run in _single(method) if run.search is not None)
    return [value for value in found if value is not None]


def _cost(data: str, methods: Sequence[Method]) -> Figure:
    runs = [_single(method) for method in methods]
    return plot_cost(
        [method.label for method in methods],
        [np.mean([run.seconds for run in found]) for found in runs],
        [np.mean([run.search.seconds if run.search else 0.0 for run in found]) for found in runs],
        title=f"{data}: time of a run",
    )


def _single(method: Method) -> list[Run]:
    return [run for run in method.runs if len(run.test_domains) == 1]


def _cosines(data: str, method: Method) -> Figure | None:
    """The cosines of the runs that hold out the first domain of which there are any."""
    for domain in dict.fromkeys(run.test_domains for run in _single(method)):
        runs = [run for run in _single(method) if run.test_domains == domain]
        tables = [table for table in map(_read_cosines, runs) if table]
        steps = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
        if steps:
            break
    else:
        return None
    windows = {run.search.window for run in runs if run.search is not None}
    figure = plot_cosines(
        steps,
        np.mean([[table[step] for step in steps] for table in tables], axis=0),
        runs[0].source_domains,
        window=windows.pop() if len(windows) == 1 else None,
    )
    count = f"{len(tables)} run{'s' if len(tables) > 1 else ''}"
    title = f"{data}, {domain[0]!r} held out, mean of {count}: {method.label}"
    title = textwrap.fill(title, _TITLE_WIDTH, max_lines=3)
    figure.axes[0].set_title(title, fontsize=10, loc="left")
    return figure


def _read_cosines(run: Run) -> dict[int, np.ndarray]:
    """Step to the cosine matrix, from the metrics; empty if they have none or are broken."""
    domains = run.source_domains
    pairs = list(itertools.combinations(range(len(domains)), 2))
    columns = [f"conflict/{domains[i]}-{domains[j]}" for i, j in pairs]
    found: dict[int, np.ndarray] = {}
    try:
        with (run.folder / "metrics.csv").open(newline="") as file:
            for line in csv.DictReader(file):
                values = [line.get(column) for column in columns]
                if all(values):
                    matrix = np.eye(len(domains))
                    for (i, j), value in zip(pairs, values, strict=True):
                        matrix[i, j] = matrix[j, i] = float(value or "nan")
                    found[int(line["step"])] = matrix
    except (OSError, ValueError, KeyError, csv.Error):
        return {}
    return found
