"""``gga-data``: lists, downloads and checks the benchmark data sets."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

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
        print("gga-data: stopped; the same command goes on from here", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gga-data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is: domains, classes, images, size, licence")
    for command, text in (
        ("download", "download and unpack a data set; goes on where an earlier run broke off"),
        ("check", "count a data set's images and open each of them"),
    ):
        added = commands.add_parser(command, help=text, description=text)
        own = [OWN] if command == "check" else []  # nobody's but the user's
        added.add_argument("name", choices=[kind.facts.key for kind in DATASETS] + own)
        added.add_argument(
            "--root", required=True, type=Path, help="the folder of all data sets (data.root)"
        )
    return parser


def _list(output: Console) -> int:
    table = Table("name", "domains", "classes", "images", "download", "licence", show_lines=True)
    for column in table.columns[2:5]:
        column.justify = "right"
    table.columns[0].no_wrap = True
    table.columns[1].overflow = table.columns[5].overflow = "fold"
    for kind in DATASETS:
        facts = kind.facts
        table.add_row(
            facts.key,
            ", ".join(facts.domains),
            str(facts.num_classes),
            f"{facts.images:,}",
            format_bytes(facts.download_size),
            facts.licence,
        )
    output.print(table)
    return 0


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
