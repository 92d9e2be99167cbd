"""Puts the results of a study into words, method by method."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from gga_lightning.report.bases import arrange
from gga_lightning.report.methods import Method, group_methods, order_domains
from gga_lightning.report.metric import Metric
from gga_lightning.report.results import Run
from gga_lightning.report.runs import read_runs
from gga_lightning.report.statistics import (
    FEWEST,
    Comparison,
    Difference,
    Row,
    compare,
    compute_comparison,
)

__all__ = ["assess", "verdicts"]

_RULE = "training_domain_validation"


def verdicts(folder: Path, baseline: str) -> list[str]:
    """Assesses the methods of a study.

    Args:
        folder: The folder with the study's run folders.
        baseline: What to compare with, ``ALGORITHM/none``.

    Returns:
        Lines of text, for each data set what :func:`assess` says.
    """
    by_data: dict[str, list[Run]] = defaultdict(list)
    for run in read_runs([folder]).runs:
        by_data[run.data].append(run)
    lines: list[str] = []
    for data, runs in by_data.items():
        methods, _ = group_methods(runs)
        held_out = {run.test_domains for run in runs}
        domains = [name for name in order_domains(runs) if (name,) in held_out]
        comparison = compute_comparison(data, _RULE, arrange(methods, baseline), domains)
        lines += [f"Verdict on {data}, by training-domain validation:", *assess(comparison)]
    return lines


def assess(comparison: Comparison) -> list[str]:
    """Says for each method whether it helps, and whether this is due to the domains.

    A method helps if its difference to its base is above 0 after Holm's correction for all rows
    (see :class:`~gga_lightning.report.statistics.Difference`). It helps *by the domains* if the 95
    % interval of its difference to each of its controls is above 0 as well.

    Args:
        comparison: The rows of one data set.

    Returns:
        A line for each method, and one that sums them up.
    """
    metric = comparison.metric
    rows = [row for row in comparison.rows if row.difference is not None]
    base = next((r.method for r in comparison.rows if r.method.kind == "baseline"), None)
    remedies = [row for row in rows if base is not None and _is_plain(row.method, base)]
    lines, advised = list[str](), list[str]()
    for row in rows:
        if row.method.kind == "control" or row in remedies:
            continue
        text, good = _assess_method(row, _controls(row, comparison.rows), remedies, metric)
        lines.append(f"- {row.method.label!r}: {text}")
        if good:
            advised.append(row.method.label)
    return [*lines, _summary(advised, [*_helpful(remedies)], rows, metric)]


def _assess_method(
    row: Row, controls: Sequence[Row], remedies: Sequence[Row], metric: Metric
) -> tuple[str, bool]:
    """Finds a method's verdict, and whether to use the method."""
    found = row.difference
    assert found is not None
    count = len(found.values)
    figures = (
        f"{_figures(found, metric)} over {found.base!r}, {count} seed{'s' if count > 1 else ''}"
    )
    if count < FEWEST:
        return f"no verdict yet ({figures}); it takes {FEWEST} seeds.", False
    if not found.clear:
        return f"no effect is shown ({figures}).", False
    if found.mean < 0:
        return f"it harms ({figures}).", False
    text, good = f"it helps ({figures}).", True
    for control in controls:
        against = compare(row.accuracies, control.accuracies, control.method.label, metric)
        if against is None or against.low is None:
            text, good = f"{text} Its control {control.method.label!r} has too few seeds.", False
        elif against.low > 0:
            text += f" It beats its control {against.base!r} ({_figures(against, metric)})."
        else:
            text += (
                f" Its control {against.base!r} does as much ({_figures(against, metric)} between "
                "them): the agreement of these domains is not what helps."
            )
            good = False
    for remedy in _helpful(remedies):
        assert remedy.difference is not None
        if remedy.difference.mean >= found.mean:
            text += f" So does {remedy.method.label!r} ({_figures(remedy.difference, metric)})."
            good = False
    return text, good


def _is_plain(method: Method, base: Method) -> bool:
    """Whether the row is the base's algorithm alone, with other settings."""
    same = (method.algorithm, method.annealing) == (base.algorithm, base.annealing)
    return same and method.kind != "control"


def _helpful(remedies: Sequence[Row]) -> list[Row]:
    return [r for r in remedies if r.difference and r.difference.clear and r.difference.mean > 0]


def _controls(row: Row, rows: Sequence[Row]) -> list[Row]:
    """Finds the controls of a method, which are the rows below it."""
    found: list[Row] = []
    for other in rows[rows.index(row) + 1 :]:
        if other.method.kind != "control":
            break
        found.append(other)
    return found


def _summary(
    advised: Sequence[str], helpful: Sequence[Row], rows: Sequence[Row], metric: Metric
) -> str:
    if not any(row.difference and len(row.difference.values) >= FEWEST for row in rows):
        return f"A verdict takes {FEWEST} seeds. The same command continues the study."
    if advised:
        return f"Use {' or '.join(map(repr, advised))}."
    if helpful:
        best = max(helpful, key=lambda row: row.difference.mean if row.difference else 0.0)
        return f"Use {best.method.label!r}: no method is shown to do more than this plain remedy."
    widths = [
        (row.difference.high - row.difference.low) / 2
        for row in rows
        if row.difference and row.difference.low is not None and row.difference.high is not None
    ]
    blind = ""
    if widths:
        width = f"{metric.number(max(widths))} {metric.unit}"
        blind = f" Differences below about {width} cannot be seen."
    return f"Nothing that was tried is shown to be better than plain training.{blind}"


def _figures(found: Difference, metric: Metric) -> str:
    text = f"{metric.difference(found.mean)} {metric.unit}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{metric.difference(found.low)}, {metric.difference(found.high)}]"
