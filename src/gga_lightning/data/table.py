"""Images listed in a CSV file."""

import csv
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from gga_lightning.data.folders import Faulty, ListedImages
from gga_lightning.data.listing import Listed, keep_one_case
from gga_lightning.data.names import plain_name

__all__ = ["ImageTable", "list_table"]

_COLUMNS = ("path", "label", "domain")
_GROUP = "group"  # a column that can be left out
_Seen = dict[tuple[int, int], tuple[int, str, str]]  # a file to its row's line, label and domain
_Row = tuple[int, list[str]]  # the line on which a row begins, and its cells


class ImageTable(ListedImages):
    r"""Images listed in a CSV file with the columns ``path``, ``label`` and ``domain``.

    With a column ``group``, which names the object, patient or scene that an image shows,
    :class:`gga_lightning.data.DomainDataModule` splits by these.

    Domains come in the order in which the file first names them, classes in alphabetical order,
    images in the file's order. Attributes and the reading of files and names as in
    :class:`gga_lightning.data.ImageFolders`.

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
            name: What the data are called; the file's name if None.
            image_size: See :class:`gga_lightning.data.ImageFolders`.
            faulty: See :class:`gga_lightning.data.ImageFolders`. Here it is also about rows: those
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
    if not file.is_file():
        raise ValueError(f"`file` must be a CSV file, got {str(file)!r}.")
    columns, rows = _read(file)
    base = file.parent if root is None else Path(root).expanduser()
    listed: Listed = {}
    problems: list[str] = []
    seen: _Seen = {}
    groups: dict[str, str] = {}
    plain = cache(plain_name)  # few names in many rows
    for line, row in rows:
        cells = {name: row[i] if i < len(row) else "" for name, i in columns.places.items()}
        path = cells["path"].strip()
        label, domain, group = (plain(cells.get(name, "-")) for name in ("label", "domain", _GROUP))
        if len(row) > columns.total:
            problem = f"{len(row)} cells, and the header has {columns.total}"
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
    return listed, problems, groups if _GROUP in columns.places else None


def _problem(base: Path, path: str, label: str, domain: str, seen: _Seen, line: int) -> str | None:
    """What is wrong with a row; if nothing is, its file is added to those seen."""
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


class _Columns(NamedTuple):
    places: dict[str, int]  # of those that are used
    total: int


def _read(file: Path) -> tuple[_Columns, Iterator[_Row]]:
    """The columns and the rows."""
    text = _text(file)
    for separator in ",;\t":
        rows = _rows(text, separator, file)
        with suppress(ValueError):  # quotes that make no sense with this separator
            header = [plain_name(cell).casefold() for cell in next(rows, (1, list[str]()))[1]]
            if set(header) >= set(_COLUMNS):
                break
    else:
        first = text.splitlines()[0] if text else "an empty file"
        raise ValueError(
            "`file` must name the columns path, label and domain in its first line, separated by "
            f"commas, semicolons or tabs; got {first!r} in {str(file)!r}."
        )
    known = (*_COLUMNS, _GROUP)
    twice = [name for name in known if header.count(name) > 1]
    if twice:
        raise ValueError(f"`file` must have one column {twice[0]}, got {header} in {str(file)!r}.")
    return _Columns(
        {name: header.index(name) for name in known if name in header}, len(header)
    ), rows


def _text(file: Path) -> str:
    content = file.read_bytes()
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{str(file)!r}, line {line}: byte {error.start + 1} of the file (0x"
            f"{content[error.start]:02x}) is not {error.encoding.upper()}. Convert the file, for "
            "example: iconv -f LATIN1 -t UTF-8 OLD.csv > NEW.csv"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"{str(file)!r}, line {line}: there is a NUL character. Save the file as UTF-8 text."
        )
    return text


def _rows(text: str, separator: str, file: Path) -> Iterator[_Row]:
    reader = csv.reader(
        StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
    )
    start = 1
    try:
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{str(file)!r}, line {start}: {error}. Close its quotes, or double those in a cell."
        ) from None
