"""A report's figures, drawn by ``gga_lightning.plots`` and saved as PNG files."""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gga_lightning.plots import plot_accuracies, plot_cost, plot_differences, plot_search
from gga_lightning.report.methods import Method
from gga_lightning.report.results import Run
from gga_lightning.report.rules import RULES, Trial, seeds
from gga_lightning.report.statistics import Comparison, Difference
from gga_lightning.report.tables import AVERAGE, SeedMarks, errors_text

__all__ = ["save_figures"]

_MISSING = float("nan")
_NOTE_LENGTH = 14  # characters
_NAME_LENGTH = 240  # bytes of a file's name; file systems take 255


def save_figures(comparisons: Sequence[Comparison], folder: Path) -> list[Path]:
    """Draws accuracies and differences under each rule, searches and costs once."""
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
    paths: list[Path] = []
    for name, figure in figures.items():
        path = folder / f"{_file_name(name)}.png"
        figure.savefig(path, dpi=150)
        paths.append(path)
    return paths


def _file_name(text: str) -> str:
    """A name that every file system takes; a changed one gets a hash, so that no two are equal."""
    name = re.sub(r"[^\w.,=+-]+", "_", text).encode()[:_NAME_LENGTH].decode(errors="ignore")
    return name if name == text else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _accuracies(comparison: Comparison) -> Figure:
    rows = comparison.rows
    cells = [[*(row.cells.get(d) for d in comparison.domains), row.average] for row in rows]
    marks = SeedMarks(cell.trials for line in cells for cell in line if cell is not None)
    return plot_accuracies(
        [row.method.shown for row in rows],
        [row.method.kind for row in rows],
        [*comparison.domains, AVERAGE],
        [[_MISSING if cell is None else cell.mean for cell in line] for line in cells],
        [[_MISSING if c is None or c.error is None else c.error for c in line] for line in cells],
        title=f"{comparison.data}: {RULES[comparison.rule]}",
        notes=[[_note(marks, None if c is None else c.trials) for c in line] for line in cells],
        axis="accuracy on the held-out domain in % (better \u2192), "
        f"{errors_text(comparison)}; n = {len(marks.usual)}, {seeds(marks.usual)}",
    )


def _note(marks: SeedMarks, trials: tuple[Trial, ...] | None) -> str:
    """What is written where the seeds are not the usual ones, or where there are none."""
    if trials is None:
        return "no complete seed"
    if not marks.mark(trials):
        return ""
    named = seeds(trials)
    return f"n = {len(trials)}, {named if len(named) <= _NOTE_LENGTH else 'other seeds'}"


def _differences(comparisons: Sequence[Comparison]) -> Figure:
    found = {
        (row.method.label, comparison.data): row.difference
        for comparison in comparisons
        for row in comparison.rows
        if row.difference is not None
    }
    methods = {row.method.label: row.method for c in comparisons for row in c.rows}
    named: dict[str, dict[str, None]] = {}
    for row in (row for comparison in comparisons for row in comparison.rows):
        if row.method.base is not None:
            named.setdefault(row.method.label, {})[row.method.base] = None
    bases = {label: ", ".join(found) for label, found in named.items()}
    labels = list(bases)
    names = [comparison.data for comparison in comparisons]
    marks = SeedMarks(difference.trials for difference in found.values())
    lines = [[found.get((label, name)) for name in names] for label in labels]
    single = len(set(bases.values())) == 1
    return plot_differences(
        labels if single else [f"{label} vs {bases[label]}" for label in labels],
        [methods[label].kind for label in labels],
        [[_MISSING if d is None else d.mean for d in line] for line in lines],
        [[_ends(difference) for difference in line] for line in lines],
        names,
        samples=[[() if d is None else d.values for d in line] for line in lines],
        notes=[[_note(marks, None if d is None else d.trials) for d in line] for line in lines],
        axis=f"difference to {bases[labels[0]] if single else 'the base'} in points "
        "(better \u2192), mean and 95 % t interval; "
        f"n = {len(marks.usual)} pairs, {seeds(marks.usual)}",
    )


def _ends(difference: Difference | None) -> list[float]:
    if difference is None or difference.low is None or difference.high is None:
        return [_MISSING, _MISSING]
    return [difference.low, difference.high]


def _search(data: str, methods: Sequence[Method]) -> Figure:
    labels, count = _with_counts(methods, [len(_gains(m, "mean_gain")) for m in methods])
    return plot_search(
        labels,
        [float(np.mean(_gains(method, "mean_gain"))) for method in methods],
        [
            float(np.mean(values)) if values else _MISSING
            for values in (_gains(method, "mean_transfer") for method in methods)
        ],
        title=f"{data}: what the search gains, n = {count} runs",
    )


def _gains(method: Method, name: str) -> list[float]:
    found = (getattr(run.search, name) for run in _timed(method) if run.search is not None)
    return [value for value in found if value is not None]


def _cost(data: str, methods: Sequence[Method]) -> Figure:
    runs = [_timed(method) for method in methods]
    labels, count = _with_counts(methods, [len(found) for found in runs])
    return plot_cost(
        labels,
        [np.mean([run.seconds for run in found]) for found in runs],
        [np.mean([run.search.seconds if run.search else 0.0 for run in found]) for found in runs],
        title=f"{data}: time of a run, mean of n = {count} runs",
    )


def _with_counts(methods: Sequence[Method], counts: Sequence[int]) -> tuple[list[str], int]:
    """The rows' names, with the number of runs where it is not the usual one, which follows."""
    usual = Counter(counts).most_common(1)[0][0]
    labels = [
        method.label if count == usual else f"{method.label} (n = {count})"
        for method, count in zip(methods, counts, strict=True)
    ]
    return labels, usual


def _timed(method: Method) -> Sequence[Run]:
    """The runs with one domain held out, if there are any."""
    return [run for run in method.runs if len(run.test_domains) == 1] or method.runs
