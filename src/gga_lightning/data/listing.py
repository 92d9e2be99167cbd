"""Which images lie in folders, which cannot be read, and what does not belong there."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from gga_lightning.data.decoding import decode

__all__ = ["list_folders", "unreadable"]


def list_folders(
    root: Path, domains: Sequence[str] | None = None
) -> tuple[dict[str, list[tuple[str, str]]], list[str]]:
    """Lists the images in ``root/domain/class/image``, without opening them.

    Args:
        root: The folder of the domains' folders.
        domains: The domains' folders; all that hold images, sorted, if None.

    Returns:
        Domain name to (path, class name) of each image, and what does not belong, a line each.

    Raises:
        ValueError: If the root or a chosen domain is not a folder.
    """
    if not root.is_dir():
        raise ValueError(f"`root` must be a folder of domains, got {str(root)!r}.")
    problems: list[str] = []
    listed: dict[str, list[tuple[str, str]]] = {}
    for domain in _domain_names(root, domains, problems):
        pairs = _files(root / domain, problems)
        if pairs or domains is not None:
            listed[domain] = pairs
        else:
            problems.append(f"{domain}{os.sep}: no images in folders of classes")
    return listed, problems


def unreadable(paths: Sequence[str]) -> Iterator[str | None]:
    """Decodes images, several at a time.

    Args:
        paths: The files.

    Yields:
        For each why it cannot be read, or None.
    """

    def problem(path: str) -> str | None:
        try:
            decode(path)
        except ValueError as error:  # names the file
            return str(error)
        except OSError as error:
            return f"The file {path!r} cannot be read: {error}"
        return None

    with ThreadPoolExecutor() as pool:
        yield from pool.map(problem, paths)


def _domain_names(root: Path, chosen: Sequence[str] | None, problems: list[str]) -> list[str]:
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if chosen is None:
        problems += [f"{name}{os.sep}: a hidden folder" for name in folders if _hidden(name)]
        return [name for name in folders if not _hidden(name)]
    missing = [name for name in chosen if name not in folders]
    if missing:
        raise ValueError(
            f"`domains` must be folders of {str(root)!r}, which has {folders}, got {missing}."
        )
    return list(chosen)


def _files(folder: Path, problems: list[str]) -> list[tuple[str, str]]:
    """A domain's images and their classes' names."""
    within = f"{folder.name}{os.sep}"
    labels: list[str] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not _hidden(entry.name):
            labels.append(entry.name)
        elif entry.is_dir():
            problems.append(f"{within}{entry.name}{os.sep}: a hidden folder")
        elif not _hidden(entry.name):
            problems.append(f"{within}{entry.name}: not in a folder of a class")
    found: list[tuple[str, str]] = []
    for label in labels:
        count = len(found)
        # in torchvision's order, which is the reference suite's
        for place, _, names in sorted(os.walk(folder / label, followlinks=True)):
            for name in sorted(name for name in names if not _hidden(name)):
                path = os.path.join(
                    place, name
                )  # there may be a million of them, too many for Path
                if name.lower().endswith(IMG_EXTENSIONS):
                    found.append((path, label))
                else:
                    problems.append(f"{os.path.relpath(path, folder.parent)}: not an image")
        if len(found) == count:
            problems.append(f"{within}{label}{os.sep}: no images")
    return found


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
