"""Writes the notes below the tables: on missing runs, versions, and folders that do not count."""

from collections import Counter
from collections.abc import Iterable
from itertools import groupby

from gga_lightning.report.missing import commands, missing_jobs
from gga_lightning.report.results import Run
from gga_lightning.report.rules import LEAVE_ONE_OUT, RULES
from gga_lightning.report.runs import Finding
from gga_lightning.report.statistics import Comparison
from gga_lightning.report.tables import Note

__all__ = ["finding_notes", "gap_note", "version_notes"]

# kind of finding to its name in a note, in the order of the notes
_FINDINGS = {
    "left out": "left out",
    "conflict": "in conflict",
    "failed": "failed",
    "unfinished": "unfinished",
    "duplicate": "not counted again",
    "diverged": "diverged, but counted",
}


def gap_note(comparison: Comparison, known: set[str]) -> list[Note]:
    """Writes the commands that fill a table's gaps, except ``known`` ones; adds them to those."""
    pairs = comparison.rule == LEAVE_ONE_OUT
    trials = {row.method.label: {run.trial for run in row.method.runs} for row in comparison.rows}
    new: list[str] = []
    for method in (row.method for row in comparison.rows):
        compared = trials.get(method.base or "", set())
        jobs = missing_jobs(method, comparison.domains, trials=compared, pairs=pairs)
        new += [command for command in commands(method, jobs) if command not in known]
    known.update(new)
    text = f"Runs that are missing from {comparison.data} ({RULES[comparison.rule]}):"
    return [Note(text, new, code=True)] if new else []


def finding_notes(findings: Iterable[Finding]) -> list[Note]:
    """Lists the folders of the findings, in one note for each kind."""
    order = list(_FINDINGS)
    ordered = sorted(findings, key=lambda finding: (order.index(finding.kind), finding.folder))
    notes: list[Note] = []
    for kind, grouped in groupby(ordered, key=lambda finding: finding.kind):
        lines = [f"{finding.folder}: {finding.reason}" for finding in grouped]
        text = f"{len(lines)} folder{'s' if len(lines) > 1 else ''} {_FINDINGS[kind]}:"
        notes.append(Note(text, lines))
    return notes


def version_notes(data: str, runs: Iterable[Run]) -> list[Note]:
    """Names the packages whose versions differ among the runs of one data set."""
    counts = Counter(found for run in runs for found in run.versions.items())
    notes: list[Note] = []
    for package, grouped in groupby(sorted(counts), key=lambda found: found[0]):
        texts = [f"{version} ({counts[package, version]})" for _, version in grouped]
        if len(texts) > 1:
            text = f"{data}: runs of different versions of {package}: {', '.join(texts)}."
            notes.append(Note(text))
    return notes
