"""``gga-report``: makes tables and plots from finished runs."""

import argparse
import importlib.metadata
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from gga_lightning.report.bases import arrange, find_baseline
from gga_lightning.report.figures import save_figures
from gga_lightning.report.formats import to_csv, to_latex, to_markdown, to_text
from gga_lightning.report.methods import Method, group_methods, order_domains
from gga_lightning.report.metric import Metric
from gga_lightning.report.notes import finding_notes, gap_note, version_notes
from gga_lightning.report.paper import DATASETS, paper_table
from gga_lightning.report.results import Run, seen_groups
from gga_lightning.report.rules import RULES
from gga_lightning.report.runs import Reading, read_runs
from gga_lightning.report.statistics import Comparison, compute_comparison
from gga_lightning.report.tables import Note, Table, accuracy_table, difference_table, overview
from gga_lightning.report.tidy import tidy

__all__ = ["main"]

_RULE = "training_domain_validation"
_FORMATS = ("table", "markdown", "latex", "csv")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``gga-report`` with these arguments or the process's; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _report(options)
    except BrokenPipeError:
        # the reader closed the pipe, which is no error; Python must not report it at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        print(f"gga-report: {kind}{error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("gga-report: stopped", file=sys.stderr)
    else:
        return 0
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gga-report", description="Turns finished runs into tables and plots."
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUNS", help="folders with runs in or below them"
    )
    parser.add_argument(
        "--baseline",
        metavar="ROW",
        help="compare every row with this one: algorithm/annealing or a row's whole label (by "
        "default, an annealing with its algorithm alone, and an algorithm with ERM)",
    )
    parser.add_argument(
        "--format", choices=_FORMATS, default=_FORMATS[0], help="default: %(default)s"
    )
    parser.add_argument(
        "--selection",
        nargs="+",
        default=[_RULE],
        metavar="NAME",
        help=f"model selection: {', '.join(RULES)}, or all (default: {_RULE})",
    )
    parser.add_argument(
        "--error",
        choices=("sample", "domainbed"),
        default="sample",
        help="standard error: the sample's, or DomainBed's (population) (default: %(default)s)",
    )
    parser.add_argument(
        "--part",
        choices=("test", "seen"),
        default="test",
        help="for held-out domains whose splits are by group: the accuracy on new groups, or on "
        "those seen in training in other domains (default: %(default)s)",
    )
    parser.add_argument("--data", nargs="+", metavar="NAME", help="report only these data sets")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="also save plots in this folder")
    parser.add_argument("--paper", action="store_true", help="also print the paper's numbers")
    version = f"gga-lightning {importlib.metadata.version('gga-lightning')}"
    parser.add_argument("--version", action="version", version=version)
    return parser


def _report(options: argparse.Namespace) -> None:
    rules = _rules(options.selection)
    reading = read_runs(options.runs)
    by_data = _by_data(reading, options.data)
    if options.part == "seen":
        by_data = _on_seen_groups(by_data)
    grouped = {data: group_methods(runs) for data, runs in by_data.items()}
    methods = {data: arrange(found, options.baseline) for data, (found, _) in grouped.items()}
    domains = {data: _held_out_domains(runs) for data, runs in by_data.items()}
    if options.baseline is not None:
        _check_baseline(options.baseline, methods.values())
    domainbed = options.error == "domainbed"
    comparisons = [
        compute_comparison(data, rule, methods[data], domains[data], domainbed=domainbed)
        for rule in rules
        for data in by_data
    ]
    if options.selection == ["all"]:
        comparisons = [c for c in comparisons if any(row.accuracies for row in c.rows)]
    parts = _parts(comparisons, paper=options.paper)
    parts += [note for data, runs in by_data.items() for note in version_notes(data, runs)]
    repeated = [finding for _, findings in grouped.values() for finding in findings]
    parts += finding_notes([*reading.findings, *repeated])
    _write(parts, comparisons, options)
    if options.plots is not None:
        save_figures(comparisons, options.plots)


def _rules(names: Sequence[str]) -> list[str]:
    if names == ["all"]:
        return list(RULES)
    unknown = [name for name in names if name not in RULES]
    if unknown:
        raise ValueError(
            f"`--selection` must be `all` or one or more of {', '.join(RULES)}, got {unknown[0]!r}."
        )
    return list(dict.fromkeys(names))


def _by_data(reading: Reading, wanted: Sequence[str] | None) -> dict[str, list[Run]]:
    """Groups the runs by data set; leaves out data sets without a run that holds out one domain."""
    found: dict[tuple[str, str | None], list[Run]] = defaultdict(list)
    for run in reading.runs:
        found[run.data, run.data_path].append(run)
    named = {
        name: own
        for (data, path), runs in found.items()
        for name, own in _by_metric(_data_name(data, path, found), runs).items()
    }
    usable = _usable(dict(sorted(named.items())))
    if not usable:
        raise ValueError(_nothing(reading))
    names = {alias for name, runs in usable.items() for alias in (name, runs[0].data)}
    unknown = [name for name in wanted or () if name not in names]
    if unknown:
        raise ValueError(
            f"`--data` must be one or more of {', '.join(usable)}, got {unknown[0]!r}."
        )
    return {d: runs for d, runs in usable.items() if not wanted or {d, runs[0].data} & set(wanted)}


def _on_seen_groups(by_data: Mapping[str, Sequence[Run]]) -> dict[str, list[Run]]:
    """Replaces the accuracies by those on seen groups; leaves out data without groups."""
    found = _usable(
        {
            f"{data}, seen groups": [run for run in map(seen_groups, runs) if run is not None]
            for data, runs in by_data.items()
        }
    )
    if not found:
        raise ValueError(
            "`--part seen` needs runs whose held-out domain has groups that were trained on in "
            f"other domains, such as those of data=emoji; got runs of {', '.join(by_data)}."
        )
    return found


def _usable(by_data: Mapping[str, list[Run]]) -> dict[str, list[Run]]:
    return {name: runs for name, runs in by_data.items() if any(run.single for run in runs)}


def _by_metric(name: str, runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Separates runs on one data set that are not comparable, because their tasks differ."""
    found: dict[Metric, list[Run]] = defaultdict(list)
    for run in runs:
        found[run.metric].append(run)
    alone = len(found) == 1
    return {
        name if alone else f"{name}, {metric.task} ({metric.title})": own
        for metric, own in found.items()
    }


def _data_name(data: str, path: str | None, found: Iterable[tuple[str, str | None]]) -> str:
    """Names a data set, with the end of its path if several have the same name."""
    places = [place for name, place in found if name == data and place != path]
    if not places:
        return data
    if path is None:
        return f"{data} (path unknown)"
    parts = Path(path).parts
    others = [Path(place).parts for place in places if place is not None]
    ends = (parts[start:] for start in range(len(parts) - 1, 0, -1))
    end = next((e for e in ends if all(o[-len(e) :] != e for o in others)), parts)
    return f"{data} ({Path(*end)})"


def _nothing(reading: Reading) -> str:
    """Explains why there is no table."""
    kinds = Counter(finding.kind for finding in reading.findings)
    if reading.runs:
        kinds["with more than one domain held out"] = len(reading.runs)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    text = f"RUNS must hold finished runs with one domain held out, found {counts or 'no run'}"
    reasons = [f"{finding.folder}: {finding.reason}" for finding in reading.findings]
    return f"{text}; the first: {reasons[0]}" if reasons else f"{text}."


def _held_out_domains(runs: Sequence[Run]) -> list[str]:
    held_out = {run.test_domains[0] for run in runs if run.single}
    return [domain for domain in order_domains(runs) if domain in held_out]


def _check_baseline(baseline: str, by_data: Collection[Sequence[Method]]) -> None:
    if not any(find_baseline(methods, baseline) for methods in by_data):
        labels = dict.fromkeys(method.label for methods in by_data for method in methods)
        raise ValueError(f"`--baseline` must name one row of {_listed(labels)}, got {baseline!r}.")


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(repr(label) for label in labels)


def _parts(comparisons: Sequence[Comparison], *, paper: bool) -> list[Table | Note]:
    """Makes the tables and notes of each rule and data set, and the overviews of each rule."""
    parts: list[Table | Note] = []
    known: set[str] = set()
    for comparison in comparisons:
        parts.append(accuracy_table(comparison))
        parts += gap_note(comparison, known)
        table = difference_table(comparison)
        parts.append(_no_differences(comparison) if table is None else table)
        if paper:
            parts += paper_table(comparison) or ()
    for _, grouped in groupby(comparisons, key=lambda comparison: comparison.rule):
        same_rule = list(grouped)
        for metric in dict.fromkeys(comparison.metric for comparison in same_rule):
            of_metric = [c for c in same_rule if c.metric == metric]
            if len(of_metric) > 1:
                parts += overview(of_metric)
    if paper and not any(comparison.data in DATASETS for comparison in comparisons):
        parts.append(Note(f"The paper has none of these data sets. It has {', '.join(DATASETS)}."))
    return parts


def _no_differences(comparison: Comparison) -> Note:
    bases = dict.fromkeys(row.method.base for row in comparison.rows if row.method.base)
    if bases:
        return Note(
            f"{comparison.data}: no row has a trial with the same domains as its base, "
            f"{_listed(bases)}."
        )
    labels = _listed(row.method.label for row in comparison.rows)
    return Note(
        f"{comparison.data}: no differences, as no row has a base: its algorithm without the "
        f"annealing, or ERM. `--baseline` can name one of {labels}."
    )


def _write(
    parts: Sequence[Table | Note], comparisons: Sequence[Comparison], options: argparse.Namespace
) -> None:
    """Writes to the standard output; in formats for other programs, notes to the standard error."""
    notes = [part for part in parts if isinstance(part, Note)]
    if options.format == "table":
        sys.stdout.write(to_text(parts))
    elif options.format == "markdown":
        sys.stdout.write(to_markdown(parts))
    elif options.format == "latex":
        sys.stdout.write(to_latex(part for part in parts if isinstance(part, Table)))
        sys.stderr.write(to_text(notes))
    else:
        sys.stdout.write(to_csv(tidy(comparisons, paper=options.paper)))
        sys.stderr.write(to_text(notes))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
