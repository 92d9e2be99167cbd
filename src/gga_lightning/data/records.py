"""Reads samples that are rows of a file: their targets, domains and groups."""

import importlib
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gga_lightning.data.csv_rows import Row, column_places, read_csv
from gga_lightning.data.faulty import Faulty, report_problems
from gga_lightning.data.names import plain_name

__all__ = [
    "NO_VALUE",
    "Record",
    "Records",
    "by_domain",
    "read_records",
    "read_rows",
    "to_number",
]

NO_VALUE = frozenset({"", "na", "n/a", "nan", "null", "none"})  # cells without a value


class Record(NamedTuple):
    """A row that has everything but perhaps usable inputs.

    Attributes:
        where: Where it is in its file, such as ``"line 7"``.
        cells: All its cells.
        labels: Those of the label columns.
        domain: The domain's name.
        group: The group's name; empty without groups.
    """

    where: str
    cells: list[str]
    labels: list[str]
    domain: str
    group: str


class Records:
    """The rows of a file, and what is wrong with others.

    Attributes:
        header: The names of all columns.
        rows: Rows that have labels, a domain and a group.
        problems: What is wrong with the other rows, a line each.
        used: The places of the columns for labels, domain and group.
    """

    def __init__(
        self,
        header: list[str],
        rows: list[Record],
        problems: list[str],
        used: Sequence[int],
        *,
        task: str,
        label: Sequence[str],
    ) -> None:
        """Takes what :func:`read_records` has read."""
        self.header = header
        self.rows = rows
        self.problems = problems
        self.used = used
        self._task = task
        self._label = list(label)

    def keep(self, problems: Sequence[str | None]) -> list[int]:
        """Leaves out the rows that have a problem.

        Args:
            problems: For each row what is wrong with it, or None.

        Returns:
            The places that the remaining rows had.
        """
        pairs = list(zip(self.rows, problems, strict=True))
        self.problems += [f"{row.where}: {problem}" for row, problem in pairs if problem]
        self.rows = [row for row, problem in pairs if not problem]
        return [place for place, (_, problem) in enumerate(pairs) if not problem]

    def require(self, file: str | Path, faulty: Faulty) -> None:
        """Checks that a row is left.

        Args:
            file: The file, for the message.
            faulty: Whether the message is about all problems.

        Raises:
            ValueError: If none is.
        """
        if not self.rows:
            report_problems(file, self.problems if faulty == "stop" else [], faulty)
            reasons = "".join(f"; {problem}" for problem in self.problems[:3])
            raise ValueError(
                f"`file` must have a row that can be used, got none in {str(file)!r}{reasons}."
            )

    def targets(self) -> tuple[list[str], Tensor]:
        """Makes the targets of the rows.

        Returns:
            The names of classes or outputs, and the targets: classes, shape ``(N,)``; for
            regression numbers, shape ``(N,)`` or ``(N, K)``; for several labels 0 or 1, shape
            ``(N, K)``.
        """
        if self._task == "classification":
            classes = sorted({row.labels[0] for row in self.rows})
            places = {name: place for place, name in enumerate(classes)}
            return classes, torch.tensor([places[row.labels[0]] for row in self.rows])
        numbers = [[float(label) for label in row.labels] for row in self.rows]
        if self._task == "multi_label":
            return self._label, torch.tensor(numbers).long()
        found = torch.tensor(numbers, dtype=torch.float32)
        return self._label, found[:, 0] if len(self._label) == 1 else found


def by_domain(domains: Iterable[str]) -> dict[str, list[int]]:
    """Finds the samples of each domain.

    Args:
        domains: The domain of each sample.

    Returns:
        Domain name to the places of its samples, domains in the order of their first samples.

    Example:
        >>> by_domain(["b", "a", "b"])
        {'b': [0, 2], 'a': [1]}
    """
    places: dict[str, list[int]] = {}
    for place, domain in enumerate(domains):
        places.setdefault(domain, []).append(place)
    return places


def read_records(
    file: str | Path,
    *,
    label: str | Sequence[str],
    domain: str,
    group: str | None,
    task: str,
    columns: Sequence[str] = (),
) -> Records:
    """Reads the rows of a file.

    Args:
        file: See :func:`read_rows`.
        label: The column of the label, or those of several numbers or labels.
        domain: The column of the domain.
        group: The column of the group; None for no groups.
        task: ``"classification"``, ``"regression"`` or ``"multi_label"``.
        columns: Other columns that there must be.

    Returns:
        The rows that have labels, a domain and a group.

    Raises:
        ValueError: If there is no such task, or the file cannot be read or lacks a column.
    """
    labels = [label] if isinstance(label, str) else list(label)
    if task not in ("classification", "regression", "multi_label"):
        raise ValueError(
            f"`task` must be 'classification', 'regression' or 'multi_label', got {task!r}."
        )
    if not labels or (task == "classification" and len(labels) > 1):
        few = "one column for" if task == "classification" else "at least one column for"
        raise ValueError(f"`label` must name {few} the task {task!r}, got {labels}.")
    needed = [*labels, domain, *([] if group is None else [group])]
    if len({name.casefold() for name in (*needed, *columns)}) < len(needed) + len(columns):
        raise ValueError(
            "`label`, `domain`, `group` and the columns of inputs must be different columns, got "
            f"{[*needed, *columns]}."
        )
    header, rows, word = read_rows(file, [*needed, *columns])
    places = list(column_places(header, needed, Path(file)).values())
    plain = cache(plain_name)  # few names in many rows
    found: list[Record] = []
    problems: list[str] = []
    for line, cells in rows:
        cells += [""] * (len(header) - len(cells))
        texts = [plain(cells[place]) for place in places]
        problem = _problem(cells, header, dict(zip(needed, texts, strict=True)), labels, task)
        if problem is None:
            rest = texts[len(labels) :]
            group_name = rest[1] if group is not None else ""
            found.append(Record(f"{word} {line}", cells, texts[: len(labels)], rest[0], group_name))
        else:
            problems.append(f"{word} {line}: {problem}")
    return Records(header, found, problems, places, task=task, label=labels)


def read_rows(file: str | Path, columns: Sequence[str]) -> tuple[list[str], Iterator[Row], str]:
    """Reads a CSV or a Parquet file.

    Args:
        file: A file as for :func:`gga_lightning.data.csv_rows.read_csv`, or one that ends with
            ``.parquet``.
        columns: Columns that there must be.

    Returns:
        The header, the rows as texts, and what a row's number counts: lines or rows.

    Raises:
        ValueError: If it is neither.
        ModuleNotFoundError: If the package that reads Parquet is not installed.
    """
    path = Path(file).expanduser()
    if path.suffix.lower() != ".parquet":
        return *read_csv(path, columns), "line"
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Parquet files need pyarrow: pip install 'gga-lightning[parquet]'"
        ) from error
    if not path.is_file():
        raise ValueError(f"`file` must be a CSV or Parquet file, got {str(file)!r}.")
    try:
        table = parquet.read_table(path)
    except Exception as error:  # of many kinds
        raise ValueError(f"{str(file)!r} cannot be read as Parquet: {error}") from error
    header = [plain_name(name) for name in table.column_names]
    column_places(header, columns, path)
    values = [["" if v is None else str(v) for v in c.to_pylist()] for c in table.columns]
    return header, ((n, list(row)) for n, row in enumerate(zip(*values, strict=True), 1)), "row"


def to_number(text: str) -> float:
    """Reads a cell as a number.

    Args:
        text: The cell.

    Returns:
        The number; NaN if it is none, or not finite.

    Example:
        >>> to_number(" 2.5"), to_number("tall"), to_number("inf")
        (2.5, nan, nan)
    """
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _problem(
    cells: list[str], header: list[str], texts: dict[str, str], labels: list[str], task: str
) -> str | None:
    """What is wrong with a row's labels, domain or group."""
    if len(cells) > len(header):
        return f"{len(cells)} cells, and the header has {len(header)}"
    for name, text in texts.items():
        if text.casefold() in NO_VALUE:
            return f"no {name}"
        if name not in labels or task == "classification":
            continue
        if math.isnan(to_number(text)):
            return f"{name} is {text!r}, not a number"
        if task == "multi_label" and float(text) not in (0.0, 1.0):
            return f"{name} is {text}, neither 0 nor 1"
    return None
