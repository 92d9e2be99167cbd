"""All numbers of a report, one line a cell, for other programs."""

from collections.abc import Mapping, Sequence

from gga_lightning.report.paper import PRINTED, printed_label
from gga_lightning.report.rules import seeds
from gga_lightning.report.statistics import Cell, Comparison, Difference
from gga_lightning.report.tables import AVERAGE

__all__ = ["COLUMNS", "tidy"]

COLUMNS = (
    *("data", "selection", "row", "kind", "domain", "mean", "se", "sd", "n", "seeds"),
    *("base", "difference", "low", "high", "p", "clear"),
    *("pairs", "pair_seeds", "pair_domains", "better", "equal", "worse", "cost"),
)


def tidy(comparisons: Sequence[Comparison], *, paper: bool = False) -> list[Mapping[str, object]]:
    """Lays out all numbers, those of the paper last; lines of averages hold the differences."""
    lines: list[Mapping[str, object]] = []
    for comparison in comparisons:
        for row in comparison.rows:
            shared: dict[str, object] = {
                "data": comparison.data,
                "selection": comparison.rule,
                "row": row.method.label,
                "kind": row.method.kind,
            }
            cells = {domain: row.cells.get(domain) for domain in comparison.domains}
            lines += [{**shared, "domain": domain, **_cell(c)} for domain, c in cells.items()]
            told = {"base": row.method.base, "cost": row.cost, **_difference(row.difference)}
            lines.append({**shared, "domain": AVERAGE, **_cell(row.average), **told})
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


def _cell(cell: Cell | None) -> dict[str, object]:
    if cell is None:
        return {"n": 0}
    told = {"mean": cell.mean, "se": cell.error, "sd": cell.sd}
    return {**told, "n": len(cell.trials), "seeds": seeds(cell.trials)}


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
