"""Downloads a benchmark completely or not at all, from the first source that still serves it.

Everything happens in a folder beside the final one, ``PACS.unfinished`` for ``PACS``, which is
renamed when it is complete. The next run resumes an interrupted download.
"""

import errno
import functools
import hashlib
import os
import shutil
import zipfile
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from torchvision.datasets.utils import calculate_md5

from gga_lightning.data.benchmarks.benchmark import Archive, Benchmark, DatasetError
from gga_lightning.data.download.archive import BadArchiveError, format_bytes, unpack
from gga_lightning.data.download.transfer import SourceError, transfer
from gga_lightning.data.locks import alone

__all__ = ["download", "fetch"]

_PAGE_STARTS = (b"<!doctype", b"<html", b"<head", b"<?xml")


def download(benchmark: Benchmark, root: str | Path, console: Console | None = None) -> Path:
    """Downloads and unpacks a data set, unless it exists already.

    An archive that is already in ``root`` is used instead of a transfer, and stays there. If
    several processes download to the same folder, one of them works and the others wait for it.

    Args:
        benchmark: The facts about it.
        root: The folder of all data sets, made if need be.
        console: Where to report; standard error if None.

    Returns:
        The data set's folder.

    Raises:
        DatasetError: If the disk is too small, no source serves an archive, an archive is damaged
            or unsafe, or there is an incomplete folder already.
        OSError: If files cannot be written for other reasons than a full disk.
    """
    console = Console(stderr=True) if console is None else console
    root = Path(root).expanduser()
    target = benchmark.path(root)
    work = target.with_name(f"{target.name}.unfinished")

    def waits() -> None:
        _say(console, f"Waiting for another process that downloads {target}.")

    if not _is_there(benchmark, root):
        root.mkdir(parents=True, exist_ok=True)
        with alone(target.with_name(f"{target.name}.lock"), waits):
            if not _is_there(benchmark, root):
                _make(benchmark, root, work, console)
                return target
    _say(console, f"{benchmark.title} is already in {target}.")
    shutil.rmtree(work, ignore_errors=True)
    return target


def _make(benchmark: Benchmark, root: Path, work: Path, console: Console) -> None:
    """Makes the data set's folder, and deletes the work folder."""
    work.mkdir(exist_ok=True)
    try:
        with _progress(console) as bar:
            _prepare(benchmark, root, work, bar)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        needed = format_bytes(2 * benchmark.download_size)
        raise DatasetError(
            f"The disk of {root} is full: {_free(root)} are left. {benchmark.title} needs "
            f"about {needed} while it is unpacked. Make room and run the same command again; "
            f"it resumes from what is in {work}."
        ) from error
    shutil.rmtree(work, ignore_errors=True)


def _is_there(benchmark: Benchmark, root: Path) -> bool:
    target = benchmark.path(root)
    if not target.is_dir() or not any(target.iterdir()):
        return False
    missing = benchmark.missing(root)
    if missing:
        raise DatasetError(
            f"{target} exists, but lacks {', '.join(missing)}. Move it away or delete it, and run "
            "the same command again."
        )
    return True


def _prepare(benchmark: Benchmark, root: Path, work: Path, bar: Progress) -> None:
    """Fetches, unpacks and arranges everything in the work folder, then moves it in place."""
    unpacked = work / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)  # of a run that was killed
    _require_room(benchmark, root, work)
    archives = [fetch(archive, benchmark, root, work, bar) for archive in benchmark.archives]
    try:
        for archive in archives:
            _unpack(archive, unpacked, bar, mine=archive.parent == work)
        folder = benchmark.arrange(unpacked, benchmark.contents)
        target = benchmark.path(root)
        if target.is_dir():
            target.rmdir()  # empty; a folder cannot replace another everywhere
        os.replace(folder, target)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _unpack(archive: Path, unpacked: Path, bar: Progress, *, mine: bool) -> None:
    task = bar.add_task(f"unpack {archive.name}", total=None)
    try:
        unpack(archive, unpacked, functools.partial(_show, bar, task))
    except BadArchiveError:
        if mine:  # else the next run would resume it
            archive.unlink()
        raise
    finally:
        bar.remove_task(task)


def _require_room(benchmark: Benchmark, root: Path, work: Path) -> None:
    """Refuses a disk that cannot hold the archives and their content."""
    placed = [root / archive.file for archive in benchmark.archives]
    there = sum(path.stat().st_size for path in (*work.iterdir(), *placed) if path.is_file())
    needed = 2 * benchmark.download_size - there
    if shutil.disk_usage(root).free < needed:
        raise DatasetError(
            f"{benchmark.title} needs about {format_bytes(needed)} for its archives and their "
            f"content, but the disk of {root} has {_free(root)} left. Make room, or choose "
            "another --root."
        )


def fetch(archive: Archive, benchmark: Benchmark, root: Path, work: Path, bar: Progress) -> Path:
    """Gets an archive: from the root, from an earlier run, or from its sources in order.

    Args:
        archive: Which one.
        benchmark: What it is a part of.
        root: Where users put archives by hand.
        work: Where downloaded ones go.
        bar: Shows the progress.

    Returns:
        The file.

    Raises:
        DatasetError: If no source serves it.
    """
    placed, finished = root / archive.file, work / archive.file
    if placed.is_file():
        _use_placed(placed, archive, bar.console)
        return placed
    if finished.is_file():  # checked before it was given this name
        return finished
    failures: list[str] = []
    for source in archive.sources:
        # a name for each source, so that its part is never continued with another source's bytes
        part = work / f"{archive.file}.{hashlib.sha256(source.encode()).hexdigest()[:8]}"
        task = bar.add_task(archive.file, total=archive.size)
        try:
            transfer(source, part, functools.partial(_show, bar, task))
            _check(part, archive)
        except SourceError as error:
            failures.append(f"{source}: {error}")
            _say(bar.console, f"{archive.file}: {failures[-1]}", "yellow")
        else:
            os.replace(part, finished)
            return finished
        finally:
            bar.remove_task(task)
    raise DatasetError(_by_hand(archive, benchmark, root, failures))


def _by_hand(archive: Archive, benchmark: Benchmark, root: Path, failures: list[str]) -> str:
    listed = "".join(f"\n  {failure}" for failure in failures)
    known = f" (MD5 {archive.md5})" if archive.md5 else ""
    return (
        f"No source serves {archive.file} at present:{listed}\n"
        f"By hand: get {archive.file}{known} with a browser from one of these addresses or from "
        f"{benchmark.homepage}, put it at {root / archive.file}, and run "
        f"`gga-data download {benchmark.key} --root {root}` again."
    )


def _use_placed(path: Path, archive: Archive, console: Console) -> None:
    """Reports an archive that a user put there. It is used even if it is of another release."""
    _say(console, f"Using {path}.")
    found = None if archive.md5 is None else calculate_md5(path)
    if found != archive.md5:
        known = f"not the known {archive.md5}"
        _say(console, f"Its MD5 is {found}, {known}: it may be another release.", "yellow")


def _check(path: Path, archive: Archive) -> None:
    """Refuses, and deletes, a file that is not the archive."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
        if start.lstrip().lower().startswith(_PAGE_STARTS):
            raise SourceError("serves a web page, of a quota or an error, in place of the file")
        if not _is_of_its_kind(path, start):
            raise SourceError(f"serves something that is no {''.join(path.suffixes[:-1])} file")
        size = path.stat().st_size
        if archive.size not in (None, size):
            raise SourceError(f"serves {size:,} bytes, expected {archive.size:,}")
        found = None if archive.md5 is None else calculate_md5(path)
        if found != archive.md5:
            raise SourceError(f"serves a file with MD5 {found}, expected {archive.md5}")
    except SourceError:
        path.unlink()
        raise


def _is_of_its_kind(path: Path, start: bytes) -> bool:
    name = path.stem  # without the source's mark
    if name.endswith(".zip"):
        return zipfile.is_zipfile(path)
    return not name.endswith(".gz") or start.startswith(b"\x1f\x8b")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _show(bar: Progress, task: TaskID, done: int, total: int | None = None) -> None:
    if total is None:
        bar.update(task, completed=done)
    else:
        bar.update(task, completed=done, total=total)


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, soft_wrap=True, markup=False, highlight=False)


def _free(folder: Path) -> str:
    return format_bytes(shutil.disk_usage(folder).free)
