"""What a report says below its tables: gaps, versions, folders that do not count."""

from collections.abc import Iterable
from itertools import groupby

from gga_lightning.report.missing import commands, missing_jobs
from gga_lightning.report.results import Run
from gga_lightning.report.rules import LEAVE_ONE_OUT, RULES, trial_of
from gga_lightning.report.runs import Finding
from gga_lightning.report.statistics import Comparison
from gga_lightning.report.tables import Note

__all__ = ["INTERVAL_NOTE", "finding_notes", "gap_note", "version_notes"]

INTERVAL_NOTE = (
    "An interval is the paired t interval of one row. It covers what more trials on the same data "
    "would show in 95 % of all cases, if the differences are about normal. It says nothing about "
    "other data."
)
# what a finished run's absence is called, in the order in which it is told
_FINDINGS = {
    "left out": "left out",
    "conflict": "in conflict",
    "failed": "failed",
    "unfinished": "unfinished",
    "duplicate": "counted once",
}


def gap_note(comparison: Comparison, told: set[str]) -> list[Note]:
    """Names the commands that fill the gaps.

    Args:
        comparison: The rows of one data set under one rule.
        told: Commands that were named before and need not be again; the new ones are added.

    Returns:
        A note, or none if there is nothing new.
    """
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
    """Names the folders that are not counted.

    Args:
        findings: Them.

    Returns:
        A note for each kind.
    """
    order = list(_FINDINGS)
    ordered = sorted(findings, key=lambda finding: (order.index(finding.kind), finding.folder))
    notes: list[Note] = []
    for kind, grouped in groupby(ordered, key=lambda finding: finding.kind):
        lines = [f"{finding.folder}: {finding.reason}" for finding in grouped]
        text = f"{len(lines)} folder{'s' if len(lines) > 1 else ''} {_FINDINGS[kind]}:"
        notes.append(Note(text, lines))
    return notes


def version_notes(data: str, runs: Iterable[Run]) -> list[Note]:
    """Says which packages differ between the runs of one data set.

    Args:
        data: The data set.
        runs: Its runs.

    Returns:
        A note for each such package.
    """
    found: dict[str, dict[str, int]] = {}
    for run in runs:
        for package, version in run.versions.items():
            counts = found.setdefault(package, {})
            counts[version] = counts.get(version, 0) + 1
    return [
        Note(f"{data}: runs of different versions of {package}: {', '.join(texts)}.")
        for package, counts in sorted(found.items())
        if len(counts) > 1
        for texts in [[f"{version} ({count})" for version, count in sorted(counts.items())]]
    ]
