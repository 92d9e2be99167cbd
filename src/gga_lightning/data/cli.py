"""``gga-data``: lists, downloads and checks the benchmark data sets."""

import argparse
import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gga_lightning.data.benchmarks.benchmark import BenchmarkFolders, Survey, survey_folders
from gga_lightning.data.benchmarks.domain_net import DomainNet
from gga_lightning.data.benchmarks.mnist import ColoredMNIST, RotatedMNIST
from gga_lightning.data.benchmarks.office_home import OfficeHome
from gga_lightning.data.benchmarks.pacs import PACS
from gga_lightning.data.benchmarks.terra_incognita import TerraIncognita
from gga_lightning.data.benchmarks.vlcs import VLCS
from gga_lightning.data.download.archive import format_bytes
from gga_lightning.data.download.download import download
from gga_lightning.data.listing import unreadable

__all__ = ["main"]

Kind = type[BenchmarkFolders] | type[RotatedMNIST] | type[ColoredMNIST]

DATASETS: tuple[Kind, ...] = (
    PACS,
    VLCS,
    OfficeHome,
    TerraIncognita,
    DomainNet,
    RotatedMNIST,
    ColoredMNIST,
)
OWN = "folders"  # what a user's own images are called, as in data=folders
_SHOWN = 20  # faults named


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``gga-data``.

    Args:
        arguments: Those of the command line; the process's own if None.

    Returns:
        The exit status, 0 if all that was asked for was done.
    """
    options = _parser().parse_args(arguments)
    output = Console()
    try:
        if options.command == "list":
            return _list(output)
        if options.name == OWN:
            return _check_own(options.root, output)
        dataset = {kind.facts.key: kind for kind in DATASETS}[options.name]
        return (_download if options.command == "download" else _check)(
            dataset, options.root, output
        )
    except (ValueError, OSError) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        print(f"gga-data: {kind}{error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("gga-data: stopped; run the same command again to resume", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    text = "list, download and check the data sets of domain generalization"
    examples = "gga-data download pacs --root DATA", "gga-train data=pacs data.root=DATA"
    parser = argparse.ArgumentParser(prog="gga-data", **_described(text, *examples))
    version = f"gga-lightning {importlib.metadata.version('gga-lightning')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "list the data sets: domains, classes, images, size, licence"
    commands.add_parser("list", help=text, **_described(text, "gga-data list"))
    text = "download and unpack a data set, or resume a download"
    example = "gga-data download pacs --root DATA"
    _add_names(commands.add_parser("download", help=text, **_described(text, example)))
    text = "count the images of a data set and open each of them"
    own = f"gga-data check {OWN} --root IMAGES  # your own, in IMAGES/domain/class"
    examples = "gga-data check pacs --root DATA", own
    _add_names(commands.add_parser("check", help=text, **_described(text, *examples)), OWN)
    return parser


def _described(text: str, *examples: str) -> dict[str, Any]:
    """A parser's description, and examples whose line breaks are kept."""
    return {
        "description": f"{text[0].upper()}{text[1:]}.",
        "epilog": "\n  ".join(["for example:", *examples]),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def _add_names(parser: argparse.ArgumentParser, *own: str) -> None:
    names = [*(kind.facts.key for kind in DATASETS), *own]
    parser.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
    text = "the folder that holds all data sets, as data.root of gga-train"
    parser.add_argument("--root", required=True, type=Path, metavar="DIR", help=text)


def _list(output: Console) -> int:
    table = _plain_table("name", "domains", "classes", "images", "download")
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
    """A table without lines, which leaves narrow terminals room for words."""
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = True
    return table


def _download(dataset: Kind, root: Path, output: Console) -> int:
    facts = dataset.facts
    _say(
        output,
        f"{facts.title}: {facts.images:,} images, {format_bytes(facts.download_size)} to download.",
    )
    _say(output, f"Licence: {facts.licence}. See {facts.homepage}")
    folder = download(facts, root, output)
    faults = dataset.survey(root).faults
    if faults:
        _say(output, f"{folder} is in place, but differs from what it is known to be:")
        _show_faults(faults, output)
        return 1
    _say(output, f"{folder} is in place. Train on it: gga-train data={facts.key} data.root={root}")
    return 0


def _check(dataset: Kind, root: Path, output: Console) -> int:
    survey = dataset.survey(root)
    return _report(dataset.facts.title, survey, output, dataset.facts.domains)


def _check_own(root: Path, output: Console) -> int:
    survey = survey_folders(root.expanduser())
    if not survey.paths:
        survey.faults.append("There are no images in domain/class/ folders.")
    return _report(str(root), survey, output, {})


def _report(title: str, survey: Survey, output: Console, expected: Mapping[str, int]) -> int:
    survey.faults += _unreadable(survey.paths, output)
    output.print(_counts(title, survey, expected))
    if survey.faults:
        _show_faults(survey.faults, output)
        return 1
    _say(output, f"{title} is as it should be.")
    return 0


def _unreadable(paths: list[Path], output: Console) -> list[str]:
    found = unreadable([str(path) for path in paths])
    shown = track(found, "reading", len(paths), console=output, transient=True)
    return [text for text in shown if text is not None]


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
    output.print(text, soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
