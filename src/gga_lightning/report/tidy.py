"""Lists all numbers of a report, one line for each cell, for other programs."""

from collections.abc import Sequence

from gga_lightning.report.methods import row_name
from gga_lightning.report.metric import ACCURACY
from gga_lightning.report.paper import PRINTED
from gga_lightning.report.rules import seeds
from gga_lightning.report.statistics import AVERAGE, Cell, Comparison, Difference

__all__ = ["COLUMNS", "tidy"]

COLUMNS = (
    *("data", "selection", "row", "kind", "domain", "mean", "se", "sd", "n", "seeds"),
    *("base", "difference", "low", "high", "p", "clear"),
    *("pairs", "pair_seeds", "pair_domains", "better", "equal", "worse", "cost"),
)


def tidy(comparisons: Sequence[Comparison], *, paper: bool = False) -> list[dict[str, object]]:
    """Lists all numbers, with the differences beside the averages, and the paper's at the end."""
    lines: list[dict[str, object]] = []
    for comparison in comparisons:
        for row in comparison.rows:
            shared: dict[str, object] = {
                "data": comparison.data,
                "selection": comparison.rule,
                "row": row.method.label,
                "kind": row.method.kind,
            }
            if comparison.metric != ACCURACY:
                shared["metric"] = comparison.metric.name
            for column, cell in zip(comparison.columns, row.cells, strict=True):
                lines.append({**shared, "domain": column, **_cell(cell)})
            lines[-1] |= {"base": row.method.base, "cost": row.cost, **_difference(row.difference)}
    names = {comparison.data for comparison in comparisons}
    if paper:
        lines.extend(
            {
                "data": printed.data,
                "selection": "paper",
                "row": row_name(printed.algorithm, printed.annealing),
                "domain": AVERAGE,
                "mean": printed.mean,
                "se": printed.error,
                "difference": printed.change,
            }
            for printed in PRINTED
            if printed.data in names
        )
    return lines


def _cell(cell: Cell | None) -> dict[str, object]:
    if cell is None:
        return {"n": 0}
    numbers = {"mean": cell.mean, "se": cell.error, "sd": cell.sd}
    return {**numbers, "n": len(cell.trials), "seeds": seeds(cell.trials)}


def _difference(found: Difference | None) -> dict[str, object]:
    if found is None:
        return {}
    return {
        "difference": found.mean,
        **{name: getattr(found, name) for name in ("low", "high", "p", "clear")},
        "pairs": len(found.values),
        "pair_seeds": seeds(found.trials),
        "pair_domains": len(found.domains),
        **dict(zip(("better", "equal", "worse"), found.counts or (), strict=False)),
    }
