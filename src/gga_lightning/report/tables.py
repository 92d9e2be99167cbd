"""What a report says, as tables of texts and notes, before it takes a format."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gga_lightning.report.results import mean
from gga_lightning.report.rules import RULES, Trial, seeds
from gga_lightning.report.statistics import (
    EQUAL,
    FEWEST,
    Cell,
    Comparison,
    Difference,
    Row,
)

__all__ = [
    "AVERAGE",
    "GAP",
    "Note",
    "SeedMarks",
    "Table",
    "accuracy_table",
    "cell_text",
    "difference_table",
    "errors_text",
    "overview",
    "points_text",
]

GAP = "-"
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
        best: The best value of each column, by row and column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    together: int = 1
    best: frozenset[tuple[int, int]] = frozenset()


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


class SeedMarks:
    """Marks what is computed over other seeds than most of what stands beside it."""

    def __init__(self, found: Iterable[tuple[Trial, ...]]) -> None:
        """Finds the seeds that most of the numbers have."""
        counts = Counter(found)
        self.usual = max(counts, key=lambda trials: (counts[trials], len(trials)), default=())
        self._others: dict[str, int] = {}

    def mark(self, trials: tuple[Trial, ...]) -> str:
        """Gives a number's mark, such as ``" [1]"``; none for the usual seeds."""
        if trials == self.usual:
            return ""
        return f" [{self._others.setdefault(seeds(trials), len(self._others) + 1)}]"

    def __str__(self) -> str:
        """Says which seeds are the usual ones, and what the marks mean."""
        return "; ".join([seeds(self.usual), *(f"[{n}]: {s}" for s, n in self._others.items())])


def accuracy_table(comparison: Comparison) -> Table:
    """Lays out the accuracies by held-out domain; marks cells over other seeds than most."""
    cells = [
        [*(row.cells.get(domain) for domain in comparison.domains), row.average]
        for row in comparison.rows
    ]
    marks = SeedMarks(cell.trials for line in cells for cell in line if cell is not None)
    rows = [
        [
            row.method.shown,
            *(cell_text(cell, marks) for cell in line),
            GAP if row.average is None or row.average.sd is None else f"{row.average.sd:.1f}",
            str(len(row.average.trials) if row.average is not None else 0),
        ]
        for row, line in zip(comparison.rows, cells, strict=True)
    ]
    return Table(
        f"{comparison.data}: {RULES[comparison.rule]}",
        ["method", *comparison.domains, AVERAGE, "sd", "n"],
        rows,
        f"Held-out accuracy in %, {errors_text(comparison)} over {marks}. {AVERAGE}, sd: mean and "
        "sample standard deviation of the n trials that have all domains.",
        together=3,
        best=_best([[_value(cell, marks) for cell in line] for line in cells]),
    )


def difference_table(comparison: Comparison) -> Table | None:
    """Lays out the paired differences of the rows to their bases, None if there are none."""
    found = [row.difference for row in comparison.rows if row.difference is not None]
    if not found:
        return None
    marks = SeedMarks(difference.trials for difference in found)
    rows = [
        [
            row.method.shown,
            row.method.kind,
            row.method.base or GAP,
            *_difference_texts(row.difference, marks, len(comparison.domains)),
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
        f"Row minus base in points, with the paired t interval, over {marks}. {_star(tested)} "
        "cost: time of a run over the base's.",
    )


def overview(comparisons: Sequence[Comparison]) -> list[Table]:
    """Lays out the averages of several data sets under one rule, and the differences if any."""
    rule = RULES[comparisons[0].rule]
    names = [comparison.data for comparison in comparisons]
    by_label = _by_label(comparisons)
    lines = [[row and row.average for row in found] for found in by_label.values()]
    marks = SeedMarks(cell.trials for line in lines for cell in line if cell is not None)
    means = [_mean_over_data(line, marks) for line in lines]
    averages = [
        [_shown(found), *(cell_text(cell, marks) for cell in line), text]
        for found, line, (text, _) in zip(by_label.values(), lines, means, strict=True)
    ]
    values = [
        [*(_value(cell, marks) for cell in line), value]
        for line, (_, value) in zip(lines, means, strict=True)
    ]
    tables = [
        Table(
            f"all data sets: {rule}",
            ["method", *names, "mean"],
            averages,
            f"Average over held-out domains in %, {errors_text(comparisons[0])} over {marks}.",
            best=_best(values),
        )
    ]
    compared = {
        label: [row and row.difference for row in found]
        for label, found in by_label.items()
        if any(row is not None and row.difference is not None for row in found)
    }
    if compared:
        tables.append(_difference_overview(rule, names, compared))
    return tables


def _difference_overview(
    rule: str, names: Sequence[str], compared: Mapping[str, Sequence[Difference | None]]
) -> Table:
    found = [d for line in compared.values() for d in line if d is not None]
    marks = SeedMarks(difference.trials for difference in found)
    rows = [
        [
            label,
            ", ".join(dict.fromkeys(d.base for d in line if d)),
            *(
                GAP if d is None else f"{_starred(d)} {_interval(d)}{marks.mark(d.trials)}"
                for d in line
            ),
        ]
        for label, line in compared.items()
    ]
    return Table(
        f"all data sets: paired differences, {rule}",
        ["method", "base", *names],
        rows,
        f"Row minus base in points, with the 95 % paired t interval, over {marks}. {_star(None)}",
    )


def cell_text(cell: Cell | None, marks: SeedMarks) -> str:
    """Writes mean, error unless there is one trial only, and mark."""
    if cell is None:
        return GAP
    error = "" if cell.error is None else f" ± {cell.error:.1f}"
    return f"{cell.mean:.1f}{error}{marks.mark(cell.trials)}"


def errors_text(comparison: Comparison) -> str:
    """Says which numbers the cells have."""
    kind = "DomainBed's standard error (population)" if comparison.domainbed else "standard error"
    return f"mean ± {kind}"


def _value(cell: Cell | None, marks: SeedMarks) -> float | None:
    """What can be the best of a column: a mean over the usual seeds."""
    return None if cell is None or marks.mark(cell.trials) else cell.mean


def _best(lines: Sequence[Sequence[float | None]]) -> frozenset[tuple[int, int]]:
    """The best of each column of several values; all that are printed alike."""
    found: set[tuple[int, int]] = set()
    for column, values in enumerate(zip(*lines, strict=True), 1):
        shown = {row: f"{v:.1f}" for row, v in enumerate(values) if v is not None}
        if len(shown) > 1:
            most = max(shown.values(), key=float)
            found |= {(row, column) for row, text in shown.items() if text == most}
    return frozenset(found)


def _difference_texts(
    difference: Difference | None, marks: SeedMarks, domains: int
) -> tuple[str, str, str, str]:
    """Mean, interval, number of pairs, and counts of better and worse ones."""
    if difference is None:
        return GAP, GAP, "0", GAP
    pairs = f"{len(difference.values)}{marks.mark(difference.trials)}"
    if len(difference.domains) < domains:
        pairs += f" ({len(difference.domains)} of {domains} domains)"
    counts = difference.counts
    told = GAP if counts is None else f"{counts[0]}/{counts[2]}"
    return _starred(difference), _interval(difference), pairs, told


def _star(tested: int | None) -> str:
    """How a star is earned."""
    many = "the rows of its data set" if tested is None else f"the {tested} rows with a test"
    few = f"Fewer than {FEWEST} pairs have no test."
    if tested == 0:
        return few
    return f"*: not 0 at the 5 % level, by paired t tests corrected for {many} (Holm). {few}"


def points_text(value: float) -> str:
    """Writes a difference; one that rounds to 0 keeps its sign."""
    return f"{value:+.1f}" if abs(value) > EQUAL else "0.0"


def _interval(difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return GAP
    return f"[{points_text(difference.low)}, {points_text(difference.high)}]"


def _starred(difference: Difference) -> str:
    return points_text(difference.mean) + ("*" if difference.clear else "")


def _by_label(comparisons: Sequence[Comparison]) -> dict[str, list[Row | None]]:
    """Each method's rows, one a data set."""
    found: dict[str, list[Row | None]] = {}
    for index, comparison in enumerate(comparisons):
        for row in comparison.rows:
            found.setdefault(row.method.label, [None] * len(comparisons))[index] = row
    return found


def _shown(rows: Sequence[Row | None]) -> str:
    """A method's name over several data sets, marked if a run of any of them diverged."""
    return max((row.method.shown for row in rows if row is not None), key=len)


def _mean_over_data(cells: Sequence[Cell | None], marks: SeedMarks) -> tuple[str, float | None]:
    """The mean over all data sets, if none is missing: as a text, and to compare."""
    found = [cell for cell in cells if cell is not None]
    if len(found) < len(cells):
        return GAP, None
    value = mean(cell.mean for cell in found)
    other = "".join(sorted({marks.mark(cell.trials) for cell in found}))
    return f"{value:.1f}{other}", None if other else value
