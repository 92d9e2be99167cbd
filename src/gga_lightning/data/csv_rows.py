"""Reads CSV files in the forms that spreadsheets and scripts write, with line numbers."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path

from gga_lightning.data.names import plain_name

__all__ = ["Row", "column_places", "read_csv"]

Row = tuple[int, list[str]]  # the line on which a row begins, and its cells


def read_csv(file: Path, columns: Sequence[str]) -> tuple[list[str], Iterator[Row]]:
    """Reads a CSV file.

    Args:
        file: In UTF-8, or UTF-16 with a BOM; with a header, separated by commas, semicolons or
            tabs.
        columns: Columns that the header must name; upper and lower case do not matter. They tell
            which separator is meant.

    Returns:
        The header, as plain names, and the rows.

    Raises:
        ValueError: If it is no such file; while rows are read, if quotes in one are wrong.
    """
    if not file.is_file():
        raise ValueError(f"`file` must be a CSV file, got {str(file)!r}.")
    text = _text(file)
    wanted = {name.casefold() for name in columns}
    for separator in ",;\t":
        rows = _rows(text, separator, file)
        with suppress(ValueError):  # quotes that make no sense with this separator
            header = [plain_name(cell) for cell in next(rows, (1, list[str]()))[1]]
            if {name.casefold() for name in header} >= wanted:
                return header, rows
    first = text.splitlines()[0] if text else "an empty file"
    named = f"{', '.join(columns[:-1])} and {columns[-1]}" if len(columns) > 1 else columns[0]
    raise ValueError(
        f"`file` must name the column{'s' if len(columns) > 1 else ''} {named} in its first line, "
        f"separated by commas, semicolons or tabs; got {first!r} in {str(file)!r}."
    )


def column_places(
    header: Sequence[str], columns: Sequence[str], file: Path, *, optional: bool = False
) -> dict[str, int]:
    """Finds columns in a header.

    Args:
        header: The names of all columns.
        columns: Those to find; upper and lower case do not matter.
        file: What the header is of, for messages.
        optional: Whether columns may be missing.

    Returns:
        Column to its place.

    Raises:
        ValueError: If one is missing, or there are two of it.
    """
    places: dict[str, int] = {}
    for column in columns:
        found = [i for i, name in enumerate(header) if name.casefold() == column.casefold()]
        if len(found) > 1 or not (found or optional):
            number = "one" if found else "a"
            raise ValueError(
                f"`file` must have {number} column {column}, got {list(header)} in {str(file)!r}."
            )
        if found:
            places[column] = found[0]
    return places


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


def _rows(text: str, separator: str, file: Path) -> Iterator[Row]:
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
