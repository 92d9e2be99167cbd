"""Images listed in a CSV file."""

import os
import stat
from functools import cache
from pathlib import Path

from gga_lightning.data.csv_rows import column_places, read_csv
from gga_lightning.data.faulty import Faulty
from gga_lightning.data.folders import ListedImages
from gga_lightning.data.listing import Listed, keep_one_case
from gga_lightning.data.names import plain_name

__all__ = ["ImageTable", "list_table"]

_COLUMNS = ("path", "label", "domain")
_GROUP = "group"  # a column that can be left out
_Seen = dict[tuple[int, int], tuple[int, str, str]]  # a file to its row's line, label and domain


class ImageTable(ListedImages):
    r"""Images listed in a CSV file with the columns ``path``, ``label`` and ``domain``.

    With a column ``group``, which names the object, patient or scene that an image shows,
    :class:`gga_lightning.data.DomainDataModule` splits by these.

    Domains come in the order in which the file first names them, classes in alphabetical order,
    images in the file's order. Attributes are those of
    :class:`gga_lightning.data.ImageFolders`, which also reads files and names in the same way.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as root:
        ...     Image.new("RGB", (8, 8)).save(Path(root) / "1.png")
        ...     Image.new("RGB", (9, 9)).save(Path(root) / "2.png")
        ...     rows = ["path,label,domain", "1.png,cat,photo", "2.png,dog,sketch", ""]
        ...     _ = (Path(root) / "pets.csv").write_text("\n".join(rows))
        ...     pets = ImageTable(Path(root) / "pets.csv")
        >>> pets.name, pets.classes, list(pets.domains)
        ('pets', ['cat', 'dog'], ['photo', 'sketch'])
    """

    def __init__(
        self,
        file: str | Path,
        *,
        root: str | Path | None = None,
        name: str | None = None,
        image_size: int = 224,
        faulty: Faulty = "stop",
        as_uint8: bool = False,
        augment: bool = True,
        device_colours: bool = False,
        cache: str | Path | None = None,
    ) -> None:
        """Reads the list.

        Args:
            file: The CSV file, with a header; see :func:`gga_lightning.data.table.list_table`.
            root: What paths are relative to; the file's folder if None.
            name: The data set's name; the file's name if None.
            image_size: See :class:`gga_lightning.data.ImageFolders`.
            faulty: See :class:`gga_lightning.data.ImageFolders`. Here it also applies to rows
                without a file, label, domain or group, or with the file of an earlier row.
            as_uint8: See :class:`gga_lightning.data.ImageFolders`.
            augment: See :class:`gga_lightning.data.ImageFolders`.
            device_colours: See :class:`gga_lightning.data.ImageFolders`.
            cache: See :class:`gga_lightning.data.ImageFolders`.

        Raises:
            ValueError: If an argument is out of range, the file is not such a list or all its
                rows are wrong, or with ``faulty="stop"`` a row is wrong.
        """
        listed, problems, groups = list_table(file, root)
        super().__init__(
            listed,
            problems,
            source=file,
            name=Path(file).stem if name is None else name,
            group_of=None if groups is None else groups.__getitem__,
            image_size=image_size,
            faulty=faulty,
            as_uint8=as_uint8,
            augment=augment,
            device_colours=device_colours,
            cache=cache,
        )


def list_table(
    file: str | Path, root: str | Path | None = None
) -> tuple[Listed, list[str], dict[str, str] | None]:
    """Reads a list of images, without opening them.

    Args:
        file: A CSV file with the columns ``path``, ``label`` and ``domain``, perhaps ``group``,
            and any others, in any order, separated by commas, semicolons or tabs; in UTF-8, or
            UTF-16 with a BOM.
        root: What paths are relative to; the file's folder if None.

    Returns:
        Domain name to (path, class name) of each image, in the file's order, and what is wrong
        with rows, a line each. Rows that are wrong are left out; of rows with the same file, the
        first one stays. Then each path's group, or None without a column ``group``.

    Raises:
        ValueError: If the file is not such a list, or has no row that can be used.
    """
    file = Path(file).expanduser()
    header, rows = read_csv(file, _COLUMNS)
    places = column_places(header, _COLUMNS, file) | column_places(
        header, [_GROUP], file, optional=True
    )
    base = file.parent if root is None else Path(root).expanduser()
    listed: Listed = {}
    problems: list[str] = []
    seen: _Seen = {}
    groups: dict[str, str] = {}
    plain = cache(plain_name)  # few names in many rows
    for line, row in rows:
        cells = {name: row[i] if i < len(row) else "" for name, i in places.items()}
        path = cells["path"].strip()
        label, domain, group = (plain(cells.get(name, "-")) for name in ("label", "domain", _GROUP))
        if len(row) > len(header):
            problem = f"{len(row)} cells, and the header has {len(header)}"
        elif not group:
            problem = "no group"
        else:
            problem = _problem(base, path, label, domain, seen, line)
        if problem is None:
            full = os.path.join(base, path)
            listed.setdefault(domain, []).append((full, label))
            groups[full] = group
        else:
            problems.append(f"line {line}: {problem}")
    listed = keep_one_case(listed, problems)
    if not listed:
        reasons = "".join(f"; {problem}" for problem in problems[:3])
        raise ValueError(
            f"`file` must list at least one existing image, got {str(file)!r}, which has none"
            f"{reasons}."
        )
    return listed, problems, groups if _GROUP in places else None


def _problem(base: Path, path: str, label: str, domain: str, seen: _Seen, line: int) -> str | None:
    """Finds what is wrong with a row. If nothing is, adds its file to those seen."""
    for name, cell in (("path", path), ("label", label), ("domain", domain)):
        if not cell:
            return f"no {name}"
    try:
        state = os.stat(os.path.join(base, path))
    except FileNotFoundError:
        return f"{path}: no such file"
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    if stat.S_ISDIR(state.st_mode):
        return f"{path}: a folder, not a file"
    if not stat.S_ISREG(state.st_mode):
        return f"{path}: neither a file nor a folder"
    # the file itself, whatever it is called
    first, *names = seen.setdefault((state.st_dev, state.st_ino), (line, label, domain))
    if first == line:
        return None
    if names == [label, domain]:
        return f"{path} is the file of line {first}"
    return (
        f"{path} is the file of line {first}, which has label {names[0]!r} and domain "
        f"{names[1]!r}, here {label!r} and {domain!r}"
    )
