"""What a report says, as tables of texts and notes, before it takes a format."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gga_lightning.report.methods import Method
from gga_lightning.report.paper import DATASETS, NOTE, PRINTED, Printed
from gga_lightning.report.rules import RULES
from gga_lightning.report.statistics import EQUAL, Cell, Comparison, Difference, Row, compare

__all__ = [
    "AVERAGE",
    "Note",
    "Table",
    "accuracy_table",
    "difference_table",
    "overview",
    "paper_table",
    "printed_label",
]

_GAP = "-"
AVERAGE = "Avg"


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: What it shows.
        columns: The columns' names, that of the rows' labels first.
        rows: The texts.
        caption: How to read it, below.
        together: How many of the last columns stay side by side.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    together: int = 1


@dataclass(frozen=True)
class Note:
    """Something to know that is in no table.

    Attributes:
        text: In one paragraph.
        lines: What it lists.
        code: Whether the lines are commands.
    """

    text: str
    lines: Sequence[str] = field(default_factory=tuple[str, ...])
    code: bool = False


def accuracy_table(comparison: Comparison) -> Table:
    """Lays out the accuracies by held-out domain.

    Args:
        comparison: The rows of one data set under one rule.

    Returns:
        The table. Cells of fewer trials than others say how many.
    """
    most = max((cell.n for row in comparison.rows for cell in row.cells.values()), default=0)
    rows = [
        [
            row.method.label,
            *(_cell(row.cells.get(domain), most) for domain in comparison.domains),
            _cell(row.average),
            _GAP if row.sd is None else f"{row.sd:.1f}",
            str(row.n),
        ]
        for row in comparison.rows
    ]
    return Table(
        f"{comparison.data}: {RULES[comparison.rule]}",
        ["method", *comparison.domains, AVERAGE, "sd", "n"],
        rows,
        f"Held-out accuracy in %, mean ± standard error over trials ({most}, or as many as a cell "
        "says). sd: sample standard deviation of the average over the n complete trials.",
        together=3,
    )


def difference_table(comparison: Comparison) -> Table | None:
    """Lays out the paired differences to the baseline.

    Args:
        comparison: The rows of one data set under one rule.

    Returns:
        The table, or None if there is nothing to compare.
    """
    baseline = comparison.baseline
    if baseline is None or not any(row.difference for row in comparison.rows):
        return None
    rows: list[list[str]] = []
    for row in comparison.rows:
        found = row.difference
        if row is not baseline:
            rows.append(
                [
                    row.method.label,
                    row.method.kind,
                    _GAP if found is None else _points(found.mean),
                    _GAP if found is None else _interval(found),
                    "0" if found is None else str(found.pairs),
                    _GAP if found is None else f"{found.better}/{found.worse}",
                    _GAP if row.cost is None else f"{row.cost:.1f}x",
                ]
            )
    return Table(
        f"{comparison.data}: difference to {baseline.method.label}, {RULES[comparison.rule]}",
        ["method", "kind", "difference", "95 % interval", "pairs", "better/worse", "cost"],
        rows,
        "In points, paired by trial. cost: time of a run over the baseline's.",
    )


def overview(comparisons: Sequence[Comparison]) -> list[Table]:
    """Lays out the averages and the differences of several data sets under one rule.

    Args:
        comparisons: One for each data set.

    Returns:
        The averages, and the differences if there are any.
    """
    rule = RULES[comparisons[0].rule]
    names = [comparison.data for comparison in comparisons]
    by_label = _by_label(comparisons)
    averages: list[list[str]] = []
    differences: list[list[str]] = []
    for label, found in by_label.items():
        texts = [_GAP if row is None else _cell(row.average) for row in found]
        mean = _mean_over_data(found)
        averages.append([label, *texts, _GAP if mean is None else f"{mean:.1f}"])
        told = [row.difference if row is not None else None for row in found]
        if any(told):
            differences.append([label, *(_GAP if d is None else _starred(d) for d in told)])
    tables = [
        Table(
            f"all data sets: {rule}",
            ["method", *names, "mean"],
            averages,
            "Average over held-out domains in %, mean ± standard error over trials.",
        )
    ]
    if differences:
        text = "In points, with 95 % interval. *: the interval leaves out 0."
        title = f"all data sets: difference to the baseline, {rule}"
        tables.append(Table(title, ["method", *names], differences, text))
    return tables


def paper_table(comparison: Comparison) -> tuple[Table, Note] | None:
    """Lays out the paper's printed numbers beside these.

    Args:
        comparison: The rows of one data set under one rule.

    Returns:
        The table and where its numbers come from, or None for a data set that is not in the paper.
    """
    if comparison.data not in DATASETS:
        return None
    rows = [
        [
            printed_label(printed),
            _GAP if printed.mean is None else f"{printed.mean:.1f} ± {printed.error:.1f}",
            _GAP if printed.change is None else _points(printed.change),
            _GAP if ours is None else _cell(ours.average),
            _GAP if ours is None else _change(ours, comparison),
        ]
        for printed in PRINTED
        if printed.data == comparison.data
        for ours in [_counterpart(printed.algorithm, printed.annealing, comparison)]
    ]
    table = Table(
        f"{DATASETS[comparison.data]}: the paper's numbers and these, {RULES[comparison.rule]}",
        ["method", "paper", "paper's change", "here", "change here"],
        rows,
        "Average over held-out domains in %; change with the annealing, in points.",
    )
    return table, Note(NOTE)


def _cell(cell: Cell | None, usual: int | None = None) -> str:
    """A cell, with its number of trials if that is not the usual one."""
    if cell is None:
        return _GAP
    count = "" if usual in {None, cell.n} else f" ({cell.n})"
    return f"{cell.mean:.1f} ± {cell.error:.1f}{count}"


def _points(value: float) -> str:
    """A difference; one that rounds to 0 keeps its sign."""
    return f"{value:+.1f}" if abs(value) > EQUAL else "0.0"


def _interval(difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return _GAP
    return f"[{_points(difference.low)}, {_points(difference.high)}]"


def _starred(difference: Difference) -> str:
    interval = "" if difference.low is None else f" {_interval(difference)}"
    return _points(difference.mean) + interval + ("*" if difference.clear else "")


def _by_label(comparisons: Sequence[Comparison]) -> dict[str, list[Row | None]]:
    """Each method's rows, one a data set."""
    found: dict[str, list[Row | None]] = {}
    for index, comparison in enumerate(comparisons):
        for row in comparison.rows:
            found.setdefault(row.method.label, [None] * len(comparisons))[index] = row
    return found


def _mean_over_data(rows: Sequence[Row | None]) -> float | None:
    means = [row.average.mean for row in rows if row is not None and row.average is not None]
    return sum(means) / len(means) if len(means) == len(rows) else None


def printed_label(printed: Printed) -> str:
    """Names a row of the paper's tables as ours are.

    Args:
        printed: The row's entry.

    Returns:
        Its label.
    """
    alone = printed.annealing == "none"
    return printed.algorithm if alone else f"{printed.algorithm} + {printed.annealing}"


def _counterpart(algorithm: str, annealing: str, comparison: Comparison) -> Row | None:
    """The row of an algorithm and annealing, without settings in its label if there is one."""

    def distance(row: Row) -> tuple[bool, bool]:
        return not row.method.bare, row.method.kind == "control"

    found = [r for r in comparison.rows if _is(r.method, algorithm, annealing)]
    return min(found, key=distance, default=None)


def _is(method: Method, algorithm: str, annealing: str) -> bool:
    return (method.algorithm, method.annealing) == (algorithm, annealing)


def _change(row: Row, comparison: Comparison) -> str:
    """What the annealing changes, paired by trial."""
    alone = _counterpart(row.method.algorithm, "none", comparison)
    if alone is None or alone is row:
        return _GAP
    [difference] = compare([row.accuracies], alone.accuracies)
    return _GAP if difference is None else _points(difference.mean)
