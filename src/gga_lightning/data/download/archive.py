"""Unpacks archives without trusting their content."""

import functools
import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple, cast

from gga_lightning.data.benchmarks.benchmark import DatasetError

__all__ = ["BadArchiveError", "format_bytes", "unpack"]

_CHUNK = 1 << 20
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    RuntimeError,  # a compression that zipfile does not know, or a password
)


class BadArchiveError(DatasetError):
    """An archive is damaged or unsafe."""


def unpack(archive: Path, folder: Path, tick: Callable[[int], None]) -> None:
    """Unpacks a zip, a tar, or a single compressed file; copies any other file unchanged.

    Only files and folders below ``folder`` are created. An archive with links or anything else
    is refused.

    Args:
        archive: The file.
        folder: The target folder. It is created if it does not exist.
        tick: Called with the bytes unpacked so far.

    Raises:
        BadArchiveError: If the archive is damaged or unsafe. What was unpacked before is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    try:
        for member in _members(archive, folder):
            target = folder.joinpath(*_safe_parts(member.name, archive))
            if member.open is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, _CHUNK)
            done += member.size
            tick(done)
    except _DAMAGED as error:
        raise BadArchiveError(
            f"{archive} is damaged ({error}). Run the same command again to download it "
            "once more; if you put it there yourself, replace it first."
        ) from error


class _Member(NamedTuple):
    """A file or a folder in an archive. ``open`` is None for a folder."""

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None


def _members(archive: Path, folder: Path) -> Iterator[_Member]:
    if archive.suffix == ".zip":
        return _zip_members(archive, folder)
    if ".tar" in archive.suffixes:
        return _tar_members(archive)
    return _single_member(archive)


def _zip_members(path: Path, folder: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        size = sum(info.file_size for info in infos)
        free = shutil.disk_usage(folder).free
        if size > free:
            raise DatasetError(
                f"{path.name} unpacks to {format_bytes(size)}, but the disk of {folder} has "
                f"{format_bytes(free)} left. Make room, and run the same command again."
            )
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unsafe(path, info.filename, "is a link or a device")
            opened = None if info.is_dir() else lambda i=info: archive.open(i)
            yield _Member(info.filename, info.file_size, opened)


def _tar_members(path: Path) -> Iterator[_Member]:
    # not "r|*", which takes a compressed file that is cut off between two members for complete
    with tarfile.open(path) as archive:
        for info in archive:
            if not (info.isreg() or info.isdir()):
                raise _unsafe(path, info.name, "is a link or a device")
            yield _Member(info.name, info.size, None if info.isdir() else _tar_file(archive, info))


def _tar_file(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        file = archive.extractfile(info)
        assert file is not None  # it is for a regular file
        return file

    return opened


def _single_member(path: Path) -> Iterator[_Member]:
    if path.suffix == ".gz":
        yield _Member(path.stem, path.stat().st_size, functools.partial(_gzip_file, path))
    else:
        yield _Member(path.name, path.stat().st_size, lambda: path.open("rb"))


def _gzip_file(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(path))


def _safe_parts(name: str, archive: Path) -> tuple[str, ...]:
    """Splits a member's path into its parts; refuses one that leads out of the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts:
        raise _unsafe(archive, name, "leads out of the folder")
    return path.parts


def _unsafe(archive: Path, name: str, problem: str) -> BadArchiveError:
    return BadArchiveError(
        f"{archive} is not safe to unpack: {name!r} {problem}. Nothing of it is kept; do not use "
        f"it. Put another {archive.name} into the --root folder by hand."
    )


def format_bytes(count: float) -> str:
    """Formats a number of bytes for people.

    Args:
        count: The bytes.

    Returns:
        The number with a decimal unit.

    >>> format_bytes(17_100_000_000)
    '17.1 GB'
    """
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
