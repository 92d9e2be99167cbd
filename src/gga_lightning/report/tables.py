"""Lays out a report as tables of texts and notes, which ``formats`` writes."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from gga_lightning.report.metric import ACCURACY, Metric
from gga_lightning.report.rules import RULES, seeds
from gga_lightning.report.statistics import (
    AVERAGE,
    EQUAL,
    FEWEST,
    Cell,
    Comparison,
    Difference,
    Row,
)

__all__ = [
    "GAP",
    "Note",
    "SeedMarks",
    "Table",
    "accuracy_table",
    "by_label",
    "cell_text",
    "difference_table",
    "errors_text",
    "overview",
    "points_text",
]

GAP = "-"


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: The line above it.
        columns: The names of the columns; the first one holds the rows' labels.
        rows: The texts.
        caption: How to read it.
        together: How many of the last columns stay side by side if the table is too wide.
        best: Row and column of the best values of the columns.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    together: int = 1
    best: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Note:
    """A remark below the tables.

    Attributes:
        text: One paragraph.
        lines: A list below it.
        code: Whether the lines are commands.
    """

    text: str
    lines: Sequence[str] = ()
    code: bool = False


class SeedMarks:
    """Marks numbers that are computed over other seeds than most numbers beside them."""

    def __init__(self, numbers: Iterable[Cell | Difference | None]) -> None:
        """Finds the seeds of most of the numbers; None is a gap."""
        counts = Counter(number.trials for number in numbers if number is not None)
        self.usual = max(counts, key=lambda trials: (counts[trials], len(trials)), default=())
        self._others: dict[str, int] = {}

    def mark(self, number: Cell | Difference) -> str:
        """Returns a number's mark, such as ``" [1]"``, or nothing for the usual seeds."""
        if number.trials == self.usual:
            return ""
        return f" [{self._others.setdefault(seeds(number.trials), len(self._others) + 1)}]"

    def __str__(self) -> str:
        """Names the usual seeds, and those of each mark."""
        return "; ".join([seeds(self.usual), *(f"[{n}]: {s}" for s, n in self._others.items())])


def accuracy_table(comparison: Comparison) -> Table:
    """Lays out the accuracies by held-out domain."""
    metric = comparison.metric
    marks = SeedMarks(cell for row in comparison.rows for cell in row.cells)
    rows = [
        [
            row.method.shown,
            *(cell_text(cell, marks, metric) for cell in row.cells),
            GAP if row.average is None or row.average.sd is None else metric.number(row.average.sd),
            str(len(row.average.trials) if row.average is not None else 0),
        ]
        for row in comparison.rows
    ]
    return Table(
        f"{comparison.data}: {RULES[comparison.rule]}",
        ["method", *comparison.columns, "sd", "n"],
        rows,
        f"Held-out {_in_unit(metric)}, {errors_text(comparison)} over {marks}. {AVERAGE}, sd: mean "
        "and sample standard deviation of the n trials that have all domains.",
        together=3,
        best=_best(rows, len(comparison.columns), metric),
    )


def difference_table(comparison: Comparison) -> Table | None:
    """Lays out the paired differences of the rows to their bases, None if there are none."""
    metric = comparison.metric
    found = [row.difference for row in comparison.rows if row.difference is not None]
    if not found:
        return None
    marks = SeedMarks(found)
    rows = [
        [
            row.method.shown,
            row.method.kind,
            row.method.base or GAP,
            *_difference_texts(row.difference, marks, len(comparison.domains), metric),
            GAP if row.cost is None else f"{row.cost:.1f}x",
        ]
        for row in comparison.rows
        if row.method.base is not None
    ]
    tested = sum(difference.p is not None for difference in found)
    return Table(
        f"{comparison.data}: paired differences, {RULES[comparison.rule]}",
        ["method", "kind", "base", "difference", "95 % interval", "pairs", "better/worse", "cost"],
        rows,
        f"{_subtraction(metric)}, with the paired t interval, over {marks}. {_star(tested)} "
        "cost: time of a run over the base's.",
    )


def overview(comparisons: Sequence[Comparison]) -> list[Table]:
    """Lays out the averages of several data sets, all under one rule and of one metric.

    Args:
        comparisons: Those of the data sets.

    Returns:
        The averages, and the differences if there are any.
    """
    metric = comparisons[0].metric
    rule = RULES[comparisons[0].rule]
    names = [comparison.data for comparison in comparisons]
    found = by_label(comparisons)
    lines = [[row and row.average for row in rows] for rows in found.values()]
    marks = SeedMarks(itertools.chain(*lines))
    means = [_mean_over_data(line, marks, metric) for line in lines]
    averages = [
        [_shown(rows), *(cell_text(cell, marks, metric) for cell in line), mean]
        for rows, line, mean in zip(found.values(), lines, means, strict=True)
    ]
    unit = "in %" if metric.in_percent else metric.title
    caption = f"Average over held-out domains {unit}, {errors_text(comparisons[0])} over {marks}."
    columns = ["method", *names, "mean"]
    best = _best(averages, len(names) + 1, metric)
    tables = [Table(f"all data sets: {rule}", columns, averages, caption, best=best)]
    compared = {
        label: [row and row.difference for row in rows]
        for label, rows in found.items()
        if any(row and row.difference for row in rows)
    }
    if compared:
        tables.append(_difference_overview(rule, names, compared, metric))
    return tables


def _difference_overview(
    rule: str,
    names: Sequence[str],
    compared: Mapping[str, Sequence[Difference | None]],
    metric: Metric,
) -> Table:
    marks = SeedMarks(itertools.chain(*compared.values()))
    rows = [
        [
            label,
            ", ".join(dict.fromkeys(d.base for d in line if d)),
            *(
                f"{_starred(d, metric)} {_interval(d, metric)}{marks.mark(d)}" if d else GAP
                for d in line
            ),
        ]
        for label, line in compared.items()
    ]
    return Table(
        f"all data sets: paired differences, {rule}",
        ["method", "base", *names],
        rows,
        f"{_subtraction(metric)}, with the 95 % paired t interval, over {marks}. {_star(None)}",
    )


def by_label(comparisons: Sequence[Comparison]) -> dict[str, list[Row | None]]:
    """Finds the rows of each label, one for each comparison."""
    found = [{row.method.label: row for row in comparison.rows} for comparison in comparisons]
    return {label: [rows.get(label) for rows in found] for label in itertools.chain(*found)}


def cell_text(cell: Cell | None, marks: SeedMarks, metric: Metric = ACCURACY) -> str:
    """Writes a cell's mean, its error if it has one, and its mark."""
    if cell is None:
        return GAP
    error = "" if cell.error is None else f" ± {metric.error(cell.error)}"
    return f"{metric.number(cell.mean)}{error}{marks.mark(cell)}"


def errors_text(comparison: Comparison) -> str:
    """Describes the numbers of a cell."""
    kind = "DomainBed's standard error (population)" if comparison.domainbed else "standard error"
    return f"mean ± {kind}"


def _best(
    rows: Sequence[Sequence[str]], columns: int, metric: Metric
) -> frozenset[tuple[int, int]]:
    """Finds the best cells of the columns after the first, as printed and without marks."""
    found: set[tuple[int, int]] = set()
    for column in range(1, columns + 1):
        texts = {index: row[column] for index, row in enumerate(rows) if row[column] != GAP}
        values = {row: float(text.split()[0]) for row, text in texts.items() if text[-1] != "]"}
        if len(values) > 1:
            best = (max if metric.higher_is_better else min)(values.values())
            found |= {(row, column) for row, value in values.items() if value == best}
    return frozenset(found)


def _difference_texts(
    difference: Difference | None, marks: SeedMarks, domains: int, metric: Metric
) -> tuple[str, str, str, str]:
    """Writes mean, interval, number of pairs, and numbers of better and worse ones."""
    if difference is None:
        return GAP, GAP, "0", GAP
    pairs = f"{len(difference.values)}{marks.mark(difference)}"
    if len(difference.domains) < domains:
        pairs += f" ({len(difference.domains)} of {domains} domains)"
    counts = difference.counts
    told = GAP if counts is None else f"{counts[0]}/{counts[2]}"
    return _starred(difference, metric), _interval(difference, metric), pairs, told


def _star(tested: int | None) -> str:
    """Explains the stars of a number of tested rows, or of several data sets if it is None."""
    many = "the rows of its data set" if tested is None else f"the {tested} rows with a test"
    few = f"Fewer than {FEWEST} pairs have no test."
    if tested == 0:
        return few
    return f"*: not 0 at the 5 % level, by paired t tests corrected for {many} (Holm). {few}"


def points_text(value: float, metric: Metric = ACCURACY) -> str:
    """Writes a difference; one that rounds to 0 keeps its sign."""
    return metric.difference(value) if abs(value) > EQUAL else "0.0"


def _in_unit(metric: Metric) -> str:
    """Names a metric with the unit of a table's numbers."""
    return f"{metric.title} in %" if metric.in_percent else metric.title


def _subtraction(metric: Metric) -> str:
    """Says what is subtracted from what."""
    if metric.higher_is_better:
        return f"Row minus base in {metric.unit}"
    return f"Base minus row in {metric.unit}, which is above 0 if the row is better"


def _interval(difference: Difference, metric: Metric) -> str:
    if difference.low is None or difference.high is None:
        return GAP
    return f"[{points_text(difference.low, metric)}, {points_text(difference.high, metric)}]"


def _starred(difference: Difference, metric: Metric) -> str:
    return points_text(difference.mean, metric) + ("*" if difference.clear else "")


def _shown(rows: Sequence[Row | None]) -> str:
    """Names a method over several data sets, with diverged runs if it has any."""
    return max((row.method.shown for row in rows if row is not None), key=len)


def _mean_over_data(cells: Sequence[Cell | None], marks: SeedMarks, metric: Metric) -> str:
    """Writes the mean over all data sets, unless one is missing, and the marks of its cells."""
    found = [cell for cell in cells if cell is not None]
    if len(found) < len(cells):
        return GAP
    mean = fmean(cell.mean for cell in found)
    return f"{metric.number(mean)}{''.join(sorted({marks.mark(cell) for cell in found}))}"
