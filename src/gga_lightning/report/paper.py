"""The results that the GGA paper prints, to compare with one's own.

Source: Ballas & Diou, "Gradient-Guided Annealing for Domain Generalization", CVPR 2025, the two
result tables as pictured in the README of the official repository. It does not state the model
selection rule or the number of trials. Several values of other methods are from earlier papers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from gga_lightning.report.bases import find_baseline
from gga_lightning.report.methods import row_name
from gga_lightning.report.rules import RULES
from gga_lightning.report.statistics import Comparison, Row, compare
from gga_lightning.report.tables import (
    GAP,
    Note,
    SeedMarks,
    Table,
    cell_text,
    errors_text,
    points_text,
)

__all__ = ["DATASETS", "PRINTED", "Printed", "paper_table"]

_NOTE = (
    "Paper: Ballas & Diou, CVPR 2025, tables as pictured in the official repository's README, "
    "which does not say the model selection rule or the number of trials."
)

# our name of the data set: the paper's
DATASETS = {
    "pacs": "PACS",
    "vlcs": "VLCS",
    "office_home": "OfficeHome",
    "terra_incognita": "TerraIncognita",
    "domain_net": "DomainNet",
}


@dataclass(frozen=True)
class Printed:
    """The paper's numbers for one method on one data set.

    Attributes:
        data: Our name of the data set.
        algorithm: Our name of the base algorithm.
        annealing: ``"none"``, ``"gga"`` or ``"gga_l"``.
        mean: Average accuracy over the held-out domains in percent; None if only the change is
            printed.
        error: The number printed after the mean.
        change: Change of the algorithm's average by the annealing, in points; None if only the
            mean is printed.
    """

    data: str
    algorithm: str
    annealing: str
    mean: float | None
    error: float | None
    change: float | None


# Algorithm, annealing; then for each data set, in the order above, the mean, the error, and the
# change with GGA or "-" where none is printed.
_TABLE = """\
erm       none   85.5 0.2     -   77.3 0.4     -   66.5 0.3     -   46.1 1.8     -   43.8 0.3     -
erm       gga    86.4 0.5     -   78.7 0.8     -   67.0 0.3     -   48.5 1.1     -   44.5 0.2     -
erm       gga_l  86.5 0.7     -   78.4 0.9     -   66.5 0.4     -   49.8 1.8     -   44.5 0.2     -
mixstyle  none   85.2 0.3   1.4   77.9 0.5   0.6   60.4 0.3   0.5   44.0 0.7   4.0   34.0 0.1     -
group_dro none   84.4 0.8   1.6   76.7 0.6   0.2   66.0 0.7  -0.4   43.2 1.1   5.2   33.3 0.2     -
mmd       none   84.7 0.5   0.8   77.5 0.9   0.6   66.3 0.1   0.4   42.2 1.6   5.1   23.4 9.5     -
and_mask  none   84.4 0.9   0.1   78.1 0.9   0.3   65.6 0.4   1.2   44.6 0.3  -0.4   37.2 0.6     -
arm       none   85.1 0.4   0.1   77.6 0.3   0.4   64.8 0.3   1.2   45.5 0.3   2.4   35.5 0.2     -
irm       none   83.5 0.8  -1.5   78.5 0.5  -0.9   64.3 2.2  -2.1   47.6 0.8  -3.9   33.9 2.8     -
mtl       none   84.6 0.5   1.8   77.2 0.4   0.9   66.4 0.5  -0.3   45.6 1.2   0.8   40.6 0.1     -
vrex      none   84.9 0.6   0.6   78.3 0.2  -0.2   66.4 0.6   1.5   46.4 0.6  -0.7   33.6 2.9     -
mldg      none   84.9 1.0   1.2   77.2 0.4   1.3   66.8 0.6  -0.2   47.7 0.2   0.2   41.2 0.1     -
mixup     none   84.6 0.6   1.0   77.4 0.6   0.4   68.1 0.3   0.1   47.9 0.8   0.5   39.2 0.1     -
sagnet    none   86.3 0.2  -1.0   77.8 0.5   0.9   68.1 0.1   0.3   48.6 1.0   0.7   40.3 0.1     -
coral     none   86.2 0.3   0.7   78.8 0.6  -0.4   68.7 0.3   0.2   47.6 1.0   0.3   41.5 0.1     -
rsc       none   85.2 0.9   0.1   77.1 0.5   0.2   65.5 0.9   0.0   46.6 1.0   0.2   38.9 0.5     -
fish      none   85.5 0.3   0.1   77.8 0.3   0.9   68.6 0.4  -0.6   45.1 1.3   1.8   42.7 0.2     -
sam       none   85.8 0.2   0.3   79.4 0.1   0.2   69.6 0.1  -1.0   43.3 0.7   2.9   44.3 0.0     -
gsam      none   85.9 0.1   0.6   79.1 0.2   0.0   69.3 0.0  -0.7   47.0 0.8  -1.0   44.6 0.2     -
sagm      none   86.6 0.2   0.2   80.0 0.3   0.0   70.1 0.2  -0.6   48.8 0.9  -0.1   45.0 0.2     -
"""


def _printed(line: str) -> Iterator[Printed]:
    algorithm, annealing, *numbers = line.split()
    for data, mean, error, change in zip(
        DATASETS, numbers[0::3], numbers[1::3], numbers[2::3], strict=True
    ):
        yield Printed(data, algorithm, annealing, float(mean), float(error), None)
        if change != "-":
            yield Printed(data, algorithm, "gga", None, None, float(change))


PRINTED = tuple(found for line in _TABLE.splitlines() for found in _printed(line))


def paper_table(comparison: Comparison) -> tuple[Table, Note] | None:
    """Lays out the paper's numbers beside the user's; None for data that the paper lacks."""
    if comparison.data not in DATASETS:
        return None
    marks = SeedMarks(row.average for row in comparison.rows)
    rows = [
        [
            row_name(printed.algorithm, printed.annealing),
            GAP if printed.mean is None else f"{printed.mean:.1f} ± {printed.error:.1f}",
            GAP if printed.change is None else points_text(printed.change),
            *_own_texts(printed, comparison, marks),
        ]
        for printed in PRINTED
        if printed.data == comparison.data
    ]
    table = Table(
        f"{DATASETS[comparison.data]}: the paper's numbers and these, {RULES[comparison.rule]}",
        ["method", "paper", "paper's change", "here", "change here"],
        rows,
        f"Average over held-out domains in %, here {errors_text(comparison)} over {marks}; change "
        "with the annealing, in points.",
    )
    return table, Note(_NOTE)


def _own_texts(printed: Printed, comparison: Comparison, marks: SeedMarks) -> tuple[str, str]:
    """Writes the user's average for a method of the paper, and how the annealing changes it."""
    row = _counterpart(printed.algorithm, printed.annealing, comparison)
    if row is None:
        return GAP, GAP
    alone = _counterpart(printed.algorithm, "none", comparison)
    change = compare(row.accuracies, alone.accuracies) if alone and alone is not row else None
    return cell_text(row.average, marks), GAP if change is None else points_text(change.mean)


def _counterpart(algorithm: str, annealing: str, comparison: Comparison) -> Row | None:
    """Finds the row of an algorithm and annealing, None if several are equally suitable."""
    rows = {row.method.label: row for row in comparison.rows}
    found = find_baseline([row.method for row in rows.values()], f"{algorithm}/{annealing}")
    return None if found is None else rows[found.label]
