"""All numbers of a report, one line a cell, for other programs."""

from collections.abc import Mapping, Sequence

from gga_lightning.report.paper import PRINTED
from gga_lightning.report.statistics import Cell, Comparison
from gga_lightning.report.tables import AVERAGE, printed_label

__all__ = ["COLUMNS", "tidy"]

COLUMNS = (
    *("data", "selection", "row", "kind", "domain", "mean", "se", "sd", "n"),
    *("difference", "low", "high", "pairs", "better", "equal", "worse", "cost"),
)


def tidy(comparisons: Sequence[Comparison], *, paper: bool = False) -> list[Mapping[str, object]]:
    """Lays out all numbers one line a cell, for other programs.

    Args:
        comparisons: The rows of each data set under each rule.
        paper: Whether the paper's numbers come after them, with ``paper`` as the selection.

    Returns:
        Lines with some of the keys of ``COLUMNS``. Differences are in the lines of the average.
    """
    lines: list[Mapping[str, object]] = []
    for comparison in comparisons:
        for row in comparison.rows:
            shared: dict[str, object] = {
                "data": comparison.data,
                "selection": comparison.rule,
                "row": row.method.label,
                "kind": row.method.kind,
            }
            cells = [(domain, row.cells.get(domain)) for domain in comparison.domains]
            lines += [{**shared, "domain": domain, **_numbers(cell)} for domain, cell in cells]
            whole = {**_numbers(row.average), "sd": row.sd, "n": row.n}
            found = {} if row.difference is None else vars(row.difference)
            told = {"difference" if name == "mean" else name: v for name, v in found.items()}
            cost = {"cost": row.cost}
            lines.append({**shared, "domain": AVERAGE, **whole, **told, **cost})
    names = {comparison.data for comparison in comparisons}
    if paper:
        lines += [
            {
                "data": printed.data,
                "selection": "paper",
                "row": printed_label(printed),
                "domain": AVERAGE,
                "mean": printed.mean,
                "se": printed.error,
                "difference": printed.change,
            }
            for printed in PRINTED
            if printed.data in names
        ]
    return lines


def _numbers(cell: Cell | None) -> dict[str, object]:
    return {"n": 0} if cell is None else {"mean": cell.mean, "se": cell.error, "n": cell.n}
