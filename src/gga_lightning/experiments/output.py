"""Shows the result of a job: as a table, as a line in a sweep, and as a picture."""

import math
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from gga_lightning.callbacks import GradientConflictMonitor, GradientGuidedAnnealing
from gga_lightning.plots import plot_cosines
from gga_lightning.report.metric import ACCURACY, parse_metric

__all__ = ["draw_cosines", "print_line", "print_table", "search_summary", "shown"]


def shown(path: Path) -> str:
    """Shortens a path for a terminal, relative to the working directory if it is below it.

    Args:
        path: An absolute path.

    Returns:
        The path.
    """
    below = sys.stdout.isatty() and path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd()) if below else path)


@rank_zero_only
def print_table(result: dict[str, Any], folder: Path) -> None:
    """Prints the result as a small table.

    Args:
        result: What ``result.json`` holds.
        folder: The run folder.
    """
    title = f"{result['data']}, {result['test_domain']!r} held out: {result['algorithm']}"
    title += "" if result["annealing"] == "none" else f" with {result['annealing']}"
    metric = parse_metric(result)
    seen = any(name.startswith("seen/") for name in result["evaluations"][0][metric.values_key])
    held_out = ("new groups", "seen groups") if seen else (f"held-out {metric.title}",)
    source = "sources" if seen else f"source {metric.title}"
    table = Table("model selection", "step", source, *held_out, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    keys = [metric.key(part) for part in ("val", "test", "oracle")[: 1 + len(held_out)]]
    for rule, chosen in result["selections"].items():
        name = rule.replace("_", " ").replace("training domain", "training-domain")
        table.add_row(name, str(chosen["step"]), *(metric.shown(chosen[key]) for key in keys))
    Console().print(table)
    search = result["search"]
    if search is not None and search["steps"]:
        transfer = search["mean_transfer"]
        next_batch = "" if transfer is None else f" ({transfer:+.5f} on the next batch)"
        print(
            f"Search: {search['steps']} steps, {search['accepted']} of {search['candidates']} "
            f"candidates accepted, mean gain in cosine {search['mean_gain']:+.5f}{next_batch}, "
            f"{search['seconds']:.0f} of {result['seconds']:.0f} s."
        )
    print(f"Run folder: {shown(folder)}", flush=True)


@rank_zero_only
def print_line(result: dict[str, Any], folder: Path) -> None:
    """Prints the result of a sweep's job in one line.

    Args:
        result: What ``result.json`` holds.
        folder: The run folder.
    """
    metric = parse_metric(result)
    chosen = result["selections"]["training_domain_validation"]
    test, val = (metric.shown(chosen[metric.key(part)]) for part in ("test", "val"))
    title = "" if metric == ACCURACY else f"{metric.title} "
    annealing = "" if result["annealing"] == "none" else f" with {result['annealing']}"
    print(
        f"{result['data']}, {result['test_domain']!r} held out, {result['algorithm']}{annealing}, "
        f"seed {result['seed']}: {title}{test} on it, {val} on the sources, "
        f"{result['seconds']:.0f} s{_divergence(result)} ({folder.name})",
        flush=True,
    )


def _divergence(result: dict[str, Any]) -> str:
    step = result.get("diverged")
    return "" if step is None else f", diverged by step {step}"


def draw_cosines(callbacks: list[pl.Callback], folder: Path) -> None:
    """Saves a plot of the pairwise cosines, and of how the search changed the lowest of them.

    Args:
        callbacks: The callbacks of the training.
        folder: Where to save ``cosines.png``, if a monitor logged the cosines.
    """
    monitors = [found for found in callbacks if isinstance(found, GradientConflictMonitor)]
    searches = [found for found in callbacks if isinstance(found, GradientGuidedAnnealing)]
    if not monitors or not monitors[0].records:
        return
    domains = monitors[0].records[-1].domains
    records = [record for record in monitors[0].records if record.domains == domains]
    window = (searches[0].start_step, searches[0].end_step or 0) if searches else None
    plot_cosines(
        [record.step for record in records],
        [record.cosines.numpy() for record in records],
        domains,
        window=window,
        search=[record[:3] for record in searches[0].records] if searches else None,
    ).savefig(folder / "cosines.png", dpi=150)


def search_summary(search: GradientGuidedAnnealing) -> dict[str, Any]:
    """Sums up a search for ``result.json``.

    Args:
        search: The callback, after training.

    Returns:
        The entry ``search``.
    """
    records = search.records
    transfers = [record.transfer for record in records if record.transfer is not None]
    return {
        "steps": len(records),
        "candidates": sum(record.candidates for record in records),
        "accepted": sum(record.accepted for record in records),
        "mean_gain": math.fsum(r.gain for r in records) / len(records) if records else None,
        "mean_transfer": math.fsum(transfers) / len(transfers) if transfers else None,
        "seconds": math.fsum(record.seconds for record in records),
        "window": [search.start_step, search.end_step],
        "resolution": [found._asdict() for found in search.resolutions],
    }
