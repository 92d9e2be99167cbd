"""What a report says below its tables: gaps, versions, folders that do not count."""

from collections import Counter
from collections.abc import Iterable
from itertools import groupby

from gga_lightning.report.missing import commands, missing_jobs
from gga_lightning.report.results import Run
from gga_lightning.report.rules import LEAVE_ONE_OUT, RULES, trial_of
from gga_lightning.report.runs import Finding
from gga_lightning.report.statistics import Comparison
from gga_lightning.report.tables import Note

__all__ = ["finding_notes", "gap_note", "version_notes"]

# what a finished run's absence is called, in the order in which it is told
_FINDINGS = {
    "left out": "left out",
    "conflict": "in conflict",
    "failed": "failed",
    "unfinished": "unfinished",
    "duplicate": "counted once",
    "diverged": "diverged, and counted all the same",
}


def gap_note(comparison: Comparison, told: set[str]) -> list[Note]:
    """Names the commands that fill the gaps, and adds them to those that were told before."""
    pairs = comparison.rule == LEAVE_ONE_OUT
    trials = {row.method.label: set(map(trial_of, row.method.runs)) for row in comparison.rows}
    lines = [
        command
        for row in comparison.rows
        for compared in [trials.get(row.method.base or "", set())]
        for command in commands(
            row.method,
            missing_jobs(row.method, comparison.domains, trials=compared, pairs=pairs),
        )
    ]
    new = [line for line in lines if line not in told]
    told.update(new)
    text = f"Runs that are missing from {comparison.data} ({RULES[comparison.rule]}):"
    return [Note(text, new, code=True)] if new else []


def finding_notes(findings: Iterable[Finding]) -> list[Note]:
    """Names the folders that are not counted, in a note for each kind."""
    order = list(_FINDINGS)
    ordered = sorted(findings, key=lambda finding: (order.index(finding.kind), finding.folder))
    notes: list[Note] = []
    for kind, grouped in groupby(ordered, key=lambda finding: finding.kind):
        lines = [f"{finding.folder}: {finding.reason}" for finding in grouped]
        text = f"{len(lines)} folder{'s' if len(lines) > 1 else ''} {_FINDINGS[kind]}:"
        notes.append(Note(text, lines))
    return notes


def version_notes(data: str, runs: Iterable[Run]) -> list[Note]:
    """Names the packages whose versions differ between the runs of one data set."""
    counts = Counter(found for run in runs for found in run.versions.items())
    notes: list[Note] = []
    for package, grouped in groupby(sorted(counts), key=lambda found: found[0]):
        texts = [f"{version} ({counts[package, version]})" for _, version in grouped]
        if len(texts) > 1:
            text = f"{data}: runs of different versions of {package}: {', '.join(texts)}."
            notes.append(Note(text))
    return notes
