"""Run folders, read without ever failing: what cannot be used is named with the reason."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gga_lightning.report.results import Run, parse_result, same_selection

__all__ = ["Finding", "Reading", "read_runs"]

_MARKS = {"result.json", "failure.json", "job.json"}
_INNER = {"checkpoints"}  # folders of a run that hold no runs, and may hold thousands of files


@dataclass(frozen=True)
class Finding:
    """A folder that is not counted, or not counted again.

    Attributes:
        kind: ``"left out"``, ``"failed"``, ``"unfinished"``, ``"duplicate"``, ``"conflict"``
            or ``"diverged"``, which is counted and marked.
        folder: Which.
        reason: Why, in one line.
    """

    kind: str
    folder: Path
    reason: str


@dataclass
class Reading:
    """What was found below the given folders.

    Attributes:
        runs: The finished runs, each job once, by path.
        findings: The folders that are not among them.
    """

    runs: list[Run] = field(default_factory=list[Run])
    findings: list[Finding] = field(default_factory=list[Finding])


def read_runs(roots: Iterable[Path]) -> Reading:
    """Reads every run folder in or below these folders, and names those that do not count."""
    reading = Reading()
    seen: dict[tuple[str, str | None], Run] = {}
    for folder in _run_folders(roots):
        try:
            run = _read(folder)
        except _Unusable as unusable:
            reading.findings.append(Finding(unusable.kind, folder, str(unusable)))
            continue
        except (OSError, ValueError, ArithmeticError, RecursionError) as error:
            reason = " ".join(f"result.json: {error}".split())
            reading.findings.append(Finding("left out", folder, reason))
            continue
        # one relative path, typed in two places, is two data sets
        first = seen.setdefault((run.config_hash, run.data_path), run)
        if first is run:
            reading.runs.append(run)
            if run.diverged is not None:
                reason = f"loss or weights not finite by step {run.diverged}"
                reading.findings.append(Finding("diverged", folder, reason))
        else:
            reading.findings.append(_repeated(first, run))
    return reading


class _Unusable(Exception):
    """A run folder without a result, and why."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def _run_folders(roots: Iterable[Path]) -> Iterable[Path]:
    """Every run folder once, by path."""
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


def _read(folder: Path) -> Run:
    path = folder / "result.json"
    if not path.exists():
        raise _without_result(folder)
    return parse_result(folder, json.loads(path.read_bytes()))


def _without_result(folder: Path) -> _Unusable:
    """A failed or an unfinished run, by what the folder holds."""
    try:
        failure = json.loads((folder / "failure.json").read_bytes())
        return _Unusable("failed", " ".join(str(failure["error"]).split()))
    except FileNotFoundError:
        return _Unusable("unfinished", "interrupted, or running now")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return _Unusable("failed", f"failure.json cannot be read: {error!r}")


def _repeated(first: Run, run: Run) -> Finding:
    """A job that was met before."""
    same = first.selections.keys() == run.selections.keys() and all(
        same_selection(first.selections[rule], run.selections[rule]) for rule in run.selections
    )
    if same:
        return Finding("duplicate", run.folder, f"the job of {first.folder}, counted once")
    return Finding(
        "conflict", run.folder, f"the job of {first.folder} with other results; not used"
    )
