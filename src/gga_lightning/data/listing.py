"""Lists the images in folders, and reports files that do not belong there or cannot be read."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from gga_lightning.data.decoding import inspect
from gga_lightning.data.names import plain_name

__all__ = ["Listed", "examine", "keep_one_case", "list_folders"]

Listed = dict[str, list[tuple[str, str]]]  # domain name to (path, class name) of each image
_Above = frozenset[tuple[int, int]]  # device and inode of folders

_EXTENSIONS = ", ".join(IMG_EXTENSIONS)
_BATCH = 1024  # files that wait for a thread at a time


def list_folders(root: Path, domains: Sequence[str] | None = None) -> tuple[Listed, list[str]]:
    """Lists the images in ``root/domain/class/image``, without opening them.

    Folders of a domain whose names look the same (:func:`~gga_lightning.data.names.plain_name`)
    are one class.

    Args:
        root: The folder of the domains' folders.
        domains: Names of the domains; all that hold images, sorted, if None.

    Returns:
        Domain name to (path, class name) of each image; and one line for each thing that does not
        belong there.

    Raises:
        ValueError: If the root or a chosen domain is not a folder, or is chosen twice.
    """
    if not root.is_dir():
        raise ValueError(f"`root` must be a folder of domains, got {str(root)!r}.")
    reader = _Reader(str(root))
    above = frozenset(_identity(str(folder)) for folder in root.resolve().parents)
    names, _, above = reader.read(reader.root, above)
    if domains is not None:
        reader.problems.clear()  # of folders that were not asked for
    listed: Listed = {}
    for domain, name in _chosen(names, domains, reader).items():
        pairs = _domain(os.path.join(reader.root, name), above, reader)
        if pairs or domains is not None:
            listed[domain] = pairs
        else:
            reader.problems.append(f"{name}{os.sep}: no images in folders of classes")
    return keep_one_case(listed, reader.problems), reader.problems


def keep_one_case(listed: Listed, problems: list[str]) -> Listed:
    """Leaves out classes and domains that differ only in upper and lower case from a larger one.

    Args:
        listed: Domain name to (path, class name) of each image.
        problems: Gets a line for each name that is left out.

    Returns:
        The images that are left.
    """
    labels = Counter(label for pairs in listed.values() for _, label in pairs)
    sizes = {domain: len(pairs) for domain, pairs in listed.items()}
    labels_out = _other_cases("class", labels, problems)
    domains_out = _other_cases("domain", sizes, problems)
    return {
        domain: [pair for pair in pairs if pair[1] not in labels_out]
        for domain, pairs in listed.items()
        if domain not in domains_out
    }


def examine(
    paths: Sequence[str], *, domainbed: bool = False
) -> Iterator[tuple[bytes | None, str | None]]:
    """Decodes images, several at a time.

    Args:
        paths: The files.
        domainbed: As in :func:`gga_lightning.data.decoding.decode`.

    Yields:
        For each image a digest of its pixels, None if it has none; and what is wrong, or None.
    """

    def one(path: str) -> tuple[bytes | None, str | None]:
        try:
            image, damage = inspect(path, domainbed=domainbed)
        except ValueError as error:  # names the file
            return None, str(error)
        except OSError as error:
            return None, f"The file {path!r} cannot be read: {error}"
        digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
        digest.update(image.permute(1, 2, 0).contiguous().numpy().data)
        return digest.digest(), damage

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _BATCH):
            yield from pool.map(one, paths[start : start + _BATCH])


class _Reader:
    """Reads folders, and reports what does not belong in them.

    Attributes:
        root: The folder within which files are named.
        problems: What does not belong, a line each.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.problems: list[str] = []

    def report(self, path: str, problem: str) -> None:
        self.problems.append(f"{path[len(self.root) :].lstrip(os.sep)}: {problem}")

    def read(self, place: str, above: _Above) -> tuple[list[str], list[str], _Above]:
        """Lists a folder's subfolders and files by name, and this folder with those above it."""
        folders: list[str] = []
        files: list[str] = []
        try:
            identity = _identity(place)
            if identity in above:
                self.report(place + os.sep, "a link to a folder above it")
                return [], [], above
            with os.scandir(place) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    self._sort(entry, folders, files)
        except OSError as error:
            self.report(place + os.sep, f"cannot be read ({error.strerror})")
            return [], [], above
        return folders, files, above | {identity}

    def _sort(self, entry: os.DirEntry[str], folders: list[str], files: list[str]) -> None:
        hidden = entry.name.startswith(".") or entry.name == "__MACOSX"
        try:
            if entry.is_dir():
                if hidden:
                    self.report(entry.path + os.sep, "a hidden folder")
                elif entry.name.lower().endswith(IMG_EXTENSIONS):
                    self.report(entry.path + os.sep, "a folder with the name of an image")
                else:
                    folders.append(entry.name)
            elif entry.is_file():
                if not hidden:
                    files.append(entry.name)
            elif not hidden:
                dangling = entry.is_symlink() and not os.path.exists(entry.path)
                self.report(
                    entry.path,
                    "a link to nothing" if dangling else "neither a file nor a folder",
                )
        except OSError as error:  # such as a link to itself
            self.report(entry.path, f"cannot be read ({error.strerror})")

    def named(self, place: str, names: Sequence[str]) -> list[tuple[str, str]]:
        """Folder names with the plain names that they stand for."""
        pairs: list[tuple[str, str]] = []
        for name in names:
            plain = plain_name(name)
            if not plain or any("\ud800" <= letter <= "\udfff" for letter in plain):
                self.report(f"{place}{os.sep}{name!r}", "a name that cannot be read as text")
            else:
                pairs.append((name, plain))
        return pairs

    def images(self, folder: str, above: _Above) -> list[str]:
        """The images below a folder, in torchvision's order, which is DomainBed's."""
        read: dict[str, list[str]] = {}
        pending = [(folder, above)]
        while pending:
            place, above = pending.pop()
            subfolders, read[place], inside = self.read(place, above)
            pending += [(os.path.join(place, name), inside) for name in subfolders]
        found: list[str] = []
        for place in sorted(read):
            for name in read[place]:
                path = os.path.join(place, name)  # Path is too slow for a million files
                if name.lower().endswith(IMG_EXTENSIONS):
                    found.append(path)
                else:
                    ending = os.path.splitext(name)[1].lower() or "no extension"
                    self.report(
                        path, f"{ending} is not among the extensions that count: {_EXTENSIONS}"
                    )
        return found


def _identity(path: str) -> tuple[int, int]:
    state = os.stat(path)
    return state.st_dev, state.st_ino


def _chosen(names: Sequence[str], domains: Sequence[str] | None, reader: _Reader) -> dict[str, str]:
    """Domain name to the name of its folder."""
    wanted = None if domains is None else [plain_name(domain) for domain in domains]
    folders: dict[str, str] = {}
    for name, plain in reader.named(reader.root, names):
        if plain not in folders:
            folders[plain] = name
        elif wanted is None or plain in wanted:
            other = f"{folders[plain]}{os.sep}"
            reader.problems.append(f"{name}{os.sep}: the same name as {other}, to a reader")
    if wanted is None:
        return folders
    missing = [name for name in wanted if name not in folders]
    if missing or len(set(wanted)) < len(wanted):
        raise ValueError(
            f"`domains` must be different folders of {reader.root!r}, which has {list(folders)}, "
            f"got {missing or wanted}."
        )
    return {name: folders[name] for name in wanted}


def _domain(folder: str, above: _Above, reader: _Reader) -> list[tuple[str, str]]:
    """A domain's images and their classes' names."""
    names, files, above = reader.read(folder, above)
    for name in files:
        reader.report(os.path.join(folder, name), "not in a folder of a class")
    pairs: list[tuple[str, str]] = []
    for name, label in reader.named(folder, names):
        place = os.path.join(folder, name)
        images = reader.images(place, above)
        if not images:
            reader.report(place + os.sep, "no images")
        pairs += [(path, label) for path in images]
    return pairs


def _other_cases(kind: str, counts: Mapping[str, int], problems: list[str]) -> set[str]:
    """The names that differ only in case from one of more images."""
    largest: dict[str, str] = {}
    out: set[str] = set()
    for name in sorted(counts, key=lambda name: -counts[name]):
        kept = largest.setdefault(name.casefold(), name)
        if kept != name:
            out.add(name)
            problems.append(
                f"{kind} {name!r} differs only in upper and lower case from {kind} {kept!r} "
                f"({counts[name]:,} and {counts[kept]:,} images)"
            )
    return out
