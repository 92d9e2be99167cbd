"""``gga-data``: lists, downloads and checks the benchmark data sets."""

import importlib.metadata
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gga_lightning.data.benchmarks.benchmark import (
    Benchmark,
    BenchmarkFolders,
    Survey,
    survey_files,
)
from gga_lightning.data.benchmarks.domain_net import DomainNet
from gga_lightning.data.benchmarks.mnist import ColoredMNIST, RotatedMNIST
from gga_lightning.data.benchmarks.office_home import OfficeHome
from gga_lightning.data.benchmarks.pacs import PACS
from gga_lightning.data.benchmarks.sentiment import Sentiment
from gga_lightning.data.benchmarks.terra_incognita import TerraIncognita
from gga_lightning.data.benchmarks.vlcs import VLCS
from gga_lightning.data.download.archive import format_bytes
from gga_lightning.data.download.download import download
from gga_lightning.data.duplicates import find_duplicates
from gga_lightning.data.listing import examine, list_folders
from gga_lightning.data.table import list_table

__all__ = ["main"]

Kind = type[BenchmarkFolders] | type[RotatedMNIST] | type[ColoredMNIST] | type[Sentiment]

DATASETS: tuple[Kind, ...] = (
    PACS,
    VLCS,
    OfficeHome,
    TerraIncognita,
    DomainNet,
    RotatedMNIST,
    ColoredMNIST,
    Sentiment,
)
OWN = ("folders", "table")  # the name for a user's own images, as in data=folders
_ROOT = "the folder that holds all data sets, as data.root of gga-train"
_SHOWN = 20  # faults named, and groups of duplicates
_PARTS = "the training and the validation part of split seed {seed}"
_DUPLICATES = {
    "domains": "in several domains, so that a held-out domain is trained on",
    "classes": "in several classes of a domain, so that their labels contradict each other",
    "parts": f"within a domain and class, in both {_PARTS}",
    "part": f"within a domain and class, but not in both {_PARTS}",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``gga-data``.

    Args:
        arguments: Those of the command line; the process's own if None.

    Returns:
        The exit status, 0 if everything that was asked for was done.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "check":
        lacking = "file" if options.name == "table" else "root"
        if getattr(options, lacking) is None:
            parser.error(f"check {options.name} needs --{lacking}")
        if options.file is not None and options.name != "table":
            parser.error("--file goes with check table only")
    output = Console()
    try:
        if options.command == "list":
            return _list(output)
        if options.name in OWN:
            return _check_own(options, output)
        dataset = {kind.facts.key: kind for kind in DATASETS}[options.name]
        if options.command == "download":
            return _download(dataset, options.root, output)
        return _check(dataset, options, output)
    except (ValueError, OSError) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        print(f"gga-data: {kind}{error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("gga-data: stopped; run the same command again to resume", file=sys.stderr)
    return 1


def _parser() -> ArgumentParser:
    text = "list, download and check the data sets of domain generalization"
    examples = "gga-data download pacs --root DATA", "gga-train data=pacs data.root=DATA"
    parser = ArgumentParser(prog="gga-data", **_described(text, *examples))
    version = f"gga-lightning {importlib.metadata.version('gga-lightning')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "list the data sets: domains, classes, images, size, licence"
    commands.add_parser("list", help=text, **_described(text, "gga-data list"))
    text = "download and unpack a data set, or resume a download"
    example = "gga-data download pacs --root DATA"
    added = commands.add_parser("download", help=text, **_described(text, example))
    _add_names(added)
    added.add_argument("--root", required=True, type=Path, metavar="DIR", help=_ROOT)
    text = "count the images of a data set, open each of them, and find duplicates"
    examples = (
        "gga-data check pacs --root DATA",
        "gga-data check folders --root IMAGES  # your own, in IMAGES/domain/class",
        "gga-data check table --file LIST.csv  # your own, listed",
    )
    added = commands.add_parser("check", help=text, **_described(text, *examples))
    _add_names(added, *OWN)
    table = "; with a table, what its paths are relative to if not its own folder"
    added.add_argument("--root", type=Path, metavar="DIR", help=_ROOT + table)
    added.add_argument("--file", type=Path, metavar="FILE", help="the CSV file of a table")
    added.add_argument(
        "--split-seed",
        type=int,
        default=0,
        metavar="SEED",
        help="the split that duplicates are looked for in (data.split_seed); default 0",
    )
    return parser


def _described(text: str, *examples: str) -> dict[str, Any]:
    """A parser's description, and examples whose line breaks are kept."""
    return {
        "description": f"{text[0].upper()}{text[1:]}.",
        "epilog": "\n  ".join(["for example:", *examples]),
        "formatter_class": RawDescriptionHelpFormatter,
    }


def _add_names(parser: ArgumentParser, *own: str) -> None:
    names = [*(kind.facts.key for kind in DATASETS), *own]
    parser.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))


def _list(output: Console) -> int:
    table = _plain_table("name", "domains", "classes", "samples", "download")
    licences = _plain_table("name", "licence")
    for column in table.columns[2:]:
        column.justify, column.no_wrap = "right", True
    for kind in DATASETS:
        facts = kind.facts
        table.add_row(
            facts.key,
            ", ".join(facts.domains),
            str(facts.num_classes),
            f"{facts.images:,}",
            format_bytes(facts.download_size),
        )
        licences.add_row(facts.key, facts.licence)
    output.print(table)
    output.print()
    output.print(licences)
    return 0


def _plain_table(*columns: str) -> Table:
    """Makes a table without lines, which leaves more of a narrow terminal for text."""
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = True
    return table


def _download(dataset: Kind, root: Path, output: Console) -> int:
    facts = dataset.facts
    size = format_bytes(facts.download_size)
    _say(output, f"{facts.title}: {facts.images:,} {facts.unit}, {size} to download.")
    _say(output, f"Licence: {facts.licence}. See {facts.homepage}")
    folder = download(facts, root, output)
    faults = dataset.survey(root).faults
    if faults:
        _say(output, f"{folder} is in place, but differs from what it is known to be:")
        _show_faults(faults, output)
        return 1
    _say(output, f"{folder} is in place. Train on it: gga-train data={facts.key} data.root={root}")
    return 0


def _check(dataset: Kind, options: Namespace, output: Console) -> int:
    survey = dataset.survey(options.root)
    return _report(dataset.facts.title, survey, options, output, dataset.facts)


def _check_own(options: Namespace, output: Console) -> int:
    if options.name == "table":
        survey = survey_files(*list_table(options.file, options.root)[:2])
        return _report(str(options.file), survey, options, output)
    survey = survey_files(*list_folders(options.root.expanduser()))
    if not survey.files:
        survey.faults.append("There are no images in domain/class/ folders.")
    return _report(str(options.root), survey, options, output)


def _report(
    title: str,
    survey: Survey,
    options: Namespace,
    output: Console,
    facts: Benchmark | None = None,
) -> int:
    """Prints what was found in a data set. Without ``facts`` it is a user's own."""
    own = facts is None
    digests: list[bytes | None] = []
    paths = [path for pairs in survey.files.values() for path, _ in pairs]
    found = examine(paths, domainbed=not own)
    for digest, problem in track(found, "reading", len(paths), console=output, transient=True):
        digests.append(None if own and problem else digest)
        if problem is not None:
            survey.faults.append(problem)
    output.print(_counts(title, survey, {} if facts is None else facts.domains))
    _show_faults(survey.faults, output)
    duplicates = find_duplicates(survey.files, digests, split_seed=options.split_seed)
    harmful = False
    for kind, groups in duplicates.items():
        if groups:
            wrong = own and kind != "part"
            harmful = harmful or wrong
            count = "1 group" if len(groups) == 1 else f"{len(groups):,} groups"
            text = _DUPLICATES[kind].format(seed=options.split_seed)
            _say(output, f"{'' if wrong else 'Note: '}{count} of identical images {text}:")
            _show_faults([", ".join(group) for group in groups], output)
    if survey.faults or harmful:
        return 1
    unit = "images" if facts is None else facts.unit
    _say(output, f"{title}: {sum(survey.totals.values()):,} {unit}, no problems found.")
    return 0


def _counts(title: str, survey: Survey, expected: Mapping[str, int]) -> Table:
    """A table of the images by class and domain."""
    table = Table("class", *survey.counts, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for label in survey.classes:
        table.add_row(label, *(f"{counts[label]:,}" for counts in survey.counts.values()))
    table.add_section()
    table.add_row("all", *(f"{count:,}" for count in survey.totals.values()))
    if expected:
        table.add_row("expected", *(f"{expected[domain]:,}" for domain in survey.counts))
    return table


def _show_faults(faults: list[str], output: Console) -> None:
    for fault in faults[:_SHOWN]:
        _say(output, f"- {fault}")
    if len(faults) > _SHOWN:
        _say(output, f"and {len(faults) - _SHOWN:,} more")


def _say(output: Console, text: str) -> None:
    text = text.encode(errors="backslashreplace").decode()  # names of files that are not UTF-8
    output.print(text, soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
