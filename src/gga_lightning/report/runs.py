"""Reads run folders; names each folder that cannot be used, with the reason."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gga_lightning.report.results import Run, parse_result, same_selection

__all__ = ["Finding", "Reading", "read_runs"]

_MARKS = {"result.json", "failure.json", "job.json"}
_INNER = {"checkpoints"}  # folders of a run that hold no runs, and may hold thousands of files


@dataclass(frozen=True)
class Finding:
    """A run folder that is not counted, or that is counted although its run diverged.

    Attributes:
        kind: ``"left out"``, ``"failed"``, ``"unfinished"``, ``"duplicate"``, ``"conflict"`` or
            ``"diverged"``.
        folder: The folder.
        reason: The reason, in one line.
    """

    kind: str
    folder: Path
    reason: str


@dataclass(frozen=True)
class Reading:
    """The run folders below the given folders.

    Attributes:
        runs: The finished runs, each job once, by path.
        findings: What to report about the other folders, and about runs that diverged.
    """

    runs: Sequence[Run]
    findings: Sequence[Finding]


def read_runs(roots: Iterable[Path]) -> Reading:
    """Reads every run folder in or below these folders, and names those that are not counted."""
    runs: list[Run] = []
    findings: list[Finding] = []
    seen: dict[tuple[str, str | None], Run] = {}
    for folder in _run_folders(roots):
        run = _read(folder)
        if isinstance(run, Finding):
            findings.append(run)
            continue
        # equal relative paths that were given in two working directories are two data sets
        first = seen.setdefault((run.config_hash, run.data_path), run)
        if first is not run:
            findings.append(_repeated(first, run))
            continue
        runs.append(run)
        if run.diverged is not None:
            reason = f"loss or weights not finite by step {run.diverged}"
            findings.append(Finding("diverged", folder, reason))
    return Reading(runs, findings)


def _run_folders(roots: Iterable[Path]) -> Iterable[Path]:
    """Finds every run folder once, sorted by path."""
    found: dict[str, Path] = {}
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"RUNS must be folders, but there is no folder {str(root)!r}.")
        for place, folders, files in os.walk(root):
            folders[:] = [
                name for name in folders if name not in _INNER and not name.startswith(".")
            ]
            if not _MARKS.isdisjoint(files):
                found.setdefault(os.path.realpath(place), Path(place))
    return sorted(found.values())


def _read(folder: Path) -> Run | Finding:
    path = folder / "result.json"
    try:
        if path.exists():
            return parse_result(folder, json.loads(path.read_bytes()))
    except (OSError, ValueError, ArithmeticError, RecursionError) as error:
        return Finding("left out", folder, " ".join(f"result.json: {error}".split()))
    try:
        failure = json.loads((folder / "failure.json").read_bytes())
        return Finding("failed", folder, " ".join(str(failure["error"]).split()))
    except FileNotFoundError:
        return Finding("unfinished", folder, "interrupted, or running now")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return Finding("failed", folder, f"failure.json cannot be read: {error!r}")


def _repeated(first: Run, run: Run) -> Finding:
    """Compares a run with an earlier one of the same job."""
    same = first.selections.keys() == run.selections.keys() and all(
        same_selection(first.selections[rule], run.selections[rule]) for rule in run.selections
    )
    if same:
        return Finding("duplicate", run.folder, f"repeats the job of {first.folder}")
    reason = f"has the job of {first.folder} but other results, and is not used"
    return Finding("conflict", run.folder, reason)
