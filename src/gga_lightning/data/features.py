"""Rows of numbers with a label and a domain, from a CSV or Parquet file."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from gga_lightning.data.csv_rows import column_places
from gga_lightning.data.faulty import Faulty, check_faulty, report_problems
from gga_lightning.data.records import (
    NO_VALUE,
    Record,
    Records,
    by_domain,
    read_records,
    read_rows,
    to_number,
)

__all__ = ["Features", "RowScaling"]

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class RowScaling:
    """Turns a row of numbers into an input: each column minus its mean, over its deviation.

    ``result.json`` of a run holds the attributes under ``preprocess``, and the model of the run
    has the scaling as its ``preprocess``.

    Attributes:
        columns: The names of the columns, in the order of the inputs.
        mean: The mean of each column.
        std: The standard deviation of each column, positive.

    Example:
        >>> scaling = RowScaling(("height", "width"), mean=(2.0, 0.0), std=(0.5, 1.0))
        >>> scaling({"width": 3.0, "height": "2.5", "colour": "red"})
        tensor([1., 3.])
    """

    takes_floats: ClassVar[bool] = True  # tensors of floats are rows, not inputs

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Checks that there are as many numbers as columns."""
        for name in ("columns", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        right = len(self.mean) == len(self.std) == len(self.columns)
        if not right or not all(value > 0 for value in self.std):
            raise ValueError(
                f"`mean` and `std` must be a number for each of the {len(self.columns)} columns, "
                f"those of `std` positive, got {list(self.mean)} and {list(self.std)}."
            )

    def __call__(self, row: Mapping[str, Any] | Tensor) -> Tensor:
        """Makes an input.

        Args:
            row: Column to value, a number or its text; other columns are ignored. Or the values,
                shape ``(F,)``, in the order of the columns.

        Returns:
            float32 of shape ``(F,)``, on the CPU.

        Raises:
            ValueError: If a column is missing or not a finite number, or there is another number
                of values.
        """
        if isinstance(row, Mapping):
            values = [self._value(row, name) for name in self.columns]
            row = torch.tensor(values, dtype=torch.float64)
        elif not isinstance(row, Tensor) or row.shape != (len(self.columns),):
            found = tuple(row.shape) if isinstance(row, Tensor) else type(row).__name__
            raise ValueError(
                f"a row must map the columns {list(self.columns)} to numbers, or be a tensor of "
                f"shape ({len(self.columns)},), got {found}."
            )
        mean, std = self._tensors
        return ((row.double().cpu() - mean) / std).float()

    def items(self, file: str | Path) -> list[tuple[str, dict[str, str]]]:
        """Reads the rows of a file, for predictions.

        Args:
            file: A CSV or Parquet file with these columns.

        Returns:
            For each row its place, such as ``"new.csv:2"``, and column to text.

        Raises:
            ValueError: If the file cannot be read, or lacks a column.
        """
        header, rows, _ = read_rows(file, self.columns)
        places = column_places(header, self.columns, Path(file))
        return [
            (f"{file}:{line}", {name: cells[i] for name, i in places.items() if i < len(cells)})
            for line, cells in rows
        ]

    def settings(self) -> dict[str, Any]:
        """Describes it for ``result.json``.

        Returns:
            The attributes, and ``kind``.
        """
        lists = {name: list(getattr(self, name)) for name in ("columns", "mean", "std")}
        return {"kind": "row", **lists}

    def dataset_settings(self) -> dict[str, Any]:
        """Says with which settings another data set makes the same inputs.

        Returns:
            Those of :class:`Features`.
        """
        scaling = {"mean": list(self.mean), "std": list(self.std)}
        return {"columns": list(self.columns), "scaling": scaling}

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor]:
        exact = torch.float64
        return torch.tensor(self.mean, dtype=exact), torch.tensor(self.std, dtype=exact)

    def _value(self, row: Mapping[str, Any], name: str) -> float:
        number = to_number(str(row.get(name, "")))
        if math.isnan(number):
            found = repr(row[name]) if name in row else f"columns {list(row)}"
            raise ValueError(f"column {name!r} must be a number, got {found}.")
        return number


class Features:
    """Rows of numbers, such as measurements or features of another network.

    The file has a row for each sample, with columns for its label and its domain. Domains come
    in the order in which the file first names them, classes in alphabetical order, and rows in
    the file's order.

    :class:`gga_lightning.data.DomainDataModule` scales each column to mean 0 and standard
    deviation 1 over the training parts of the source domains, all rows together. Held-out domains
    and validation parts have no influence on the scaling.

    Attributes:
        name: What the data are called in results.
        domains: Domain name to its rows, float64 of shape ``(F,)`` and not scaled, and targets.
        columns: The names of the columns that are inputs, in order.
        classes: The names of the classes; for other tasks those of the label columns.
        num_classes: How many there are.
        input_shape: ``(F,)``.
        eval_transform: The scaling that was given; None if the data module is to find it.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> rows = ["height,width,label,domain", "1,10,cat,indoors", "2,20,dog,outdoors", ""]
        >>> with TemporaryDirectory() as root:
        ...     _ = (Path(root) / "pets.csv").write_text(chr(10).join(rows))
        ...     pets = Features(Path(root) / "pets.csv")
        >>> pets.columns, pets.classes, list(pets.domains)
        (['height', 'width'], ['cat', 'dog'], ['indoors', 'outdoors'])
    """

    def __init__(
        self,
        file: str | Path,
        *,
        label: str | Sequence[str] = "label",
        domain: str = "domain",
        columns: Sequence[str] | None = None,
        group: str | None = None,
        task: str = "classification",
        faulty: Faulty = "stop",
        scaling: Mapping[str, Sequence[float]] | None = None,
        name: str | None = None,
    ) -> None:
        """Reads the file.

        Args:
            file: A CSV file, in UTF-8 or UTF-16 with a BOM, with a header, separated by commas,
                semicolons or tabs; or a file that ends with ``.parquet``, for which the extra
                ``parquet`` must be installed.
            label: The column of the label. For regression, the column or columns of the numbers;
                for several labels, a column of 0 and 1 for each label.
            domain: The column of the domain.
            columns: The columns that are inputs. If None, all others in which every cell that is
                not empty is a number; a warning names columns that are left out.
            group: The column of the group (patient, site, document), by which
                :class:`DomainDataModule` splits; None to split by row.
            task: ``"classification"``, ``"regression"`` or ``"multi_label"``.
            faulty: What to do with rows that lack a value (an empty cell, NA, NaN, null) or have
                something else than a number: ``"stop"`` with an error, or ``"leave_out"`` with a
                warning.
            scaling: ``mean`` and ``std`` of each column, in place of those of the training
                parts; for the evaluation of a trained model.
            name: What the data are called; the file's name if None.

        Raises:
            ValueError: If an argument is out of range, the file is no such file, no row or no
                column can be used, or with ``faulty="stop"`` a row is wrong.
            ModuleNotFoundError: If ``file`` is a Parquet file and pyarrow is not installed.
        """
        check_faulty(faulty)
        records = read_records(
            file, label=label, domain=domain, group=group, task=task, columns=columns or ()
        )
        records.require(file, faulty)
        places, numbers = _inputs(records, columns, file)
        self.columns = [records.header[place] for place in places]
        kept = records.keep(list(_problems(records, places, numbers)))
        records.require(file, faulty)
        report_problems(file, records.problems, faulty, stacklevel=3)
        inputs = torch.from_numpy(numbers[kept])
        self.name = Path(file).stem if name is None else name
        self.classes, targets = records.targets()
        self.num_classes = len(self.classes)
        self.input_shape = (len(self.columns),)
        self.domains: dict[str, TensorDataset] = {}
        for title, chosen in by_domain(row.domain for row in records.rows).items():
            groups = [records.rows[place].group for place in chosen]
            rows = _Rows(inputs[chosen], targets[chosen], None if group is None else groups)
            self.domains[title] = rows
        self.eval_transform: RowScaling | None = None
        if scaling is not None:
            self.eval_transform = RowScaling(
                tuple(self.columns), tuple(scaling["mean"]), tuple(scaling["std"])
            )

    def fit(self, training: Mapping[str, Subset[Any]]) -> RowScaling:
        """Finds the scaling.

        Args:
            training: Source domain to its training part.

        Returns:
            What scales a row. Columns that are constant in training are only shifted.
        """
        if self.eval_transform is not None:
            return self.eval_transform
        rows = torch.cat([_rows_of(part) for part in training.values()])
        mean, std = rows.mean(0), rows.std(0, correction=0)
        std[std <= 1e-12 * mean.abs()] = 1.0
        return RowScaling(tuple(self.columns), tuple(mean.tolist()), tuple(std.tolist()))


class _Rows(TensorDataset):
    """The rows of a domain, with their groups."""

    def __init__(self, inputs: Tensor, targets: Tensor, groups: list[str] | None) -> None:
        super().__init__(inputs, targets)
        self.groups = groups


def _rows_of(part: Subset[Any]) -> Tensor:
    rows = part.dataset
    assert isinstance(rows, TensorDataset)
    return rows.tensors[0][torch.as_tensor(part.indices)]


def _inputs(
    records: Records, columns: Sequence[str] | None, file: str | Path
) -> tuple[list[int], Numbers]:
    """Where the inputs are among the cells, and their numbers, NaN for cells that are none."""
    places = [place for place in range(len(records.header)) if place not in records.used]
    if columns is not None:
        places = list(column_places(records.header, columns, Path(file)).values())
    numbers = np.array([[to_number(row.cells[place]) for place in places] for row in records.rows])
    numbers = numbers.reshape(len(records.rows), len(places))
    if columns is not None:
        return places, numbers
    left_out = {
        place: reason
        for place, values in zip(places, numbers.T, strict=True)
        if (reason := _no_input(records.rows, place, values))
    }
    named = ", ".join(f"{records.header[place]} ({reason})" for place, reason in left_out.items())
    if len(left_out) == len(places):
        raise ValueError(
            f"`file` must have a column of numbers beside label and domain, got {records.header} "
            f"in {str(file)!r}{', of which these are none: ' if named else ''}{named}."
        )
    if left_out:
        warnings.warn(
            f"These columns of {str(file)!r} are no inputs, because they have other values than "
            f"numbers: {named}. Name the inputs with `columns` to choose them yourself.",
            stacklevel=3,
        )
    found = [index for index, place in enumerate(places) if place not in left_out]
    return [places[index] for index in found], numbers[:, found]


def _no_input(rows: Sequence[Record], place: int, values: Numbers) -> str | None:
    """Why a column is not numeric: a cell that is neither a number nor empty, or no numbers."""
    for index in np.flatnonzero(np.isnan(values)).tolist():
        text = rows[index].cells[place].strip()
        if text.casefold() not in NO_VALUE:
            return f"{text!r} in {rows[index].where}"
    return "no values" if np.isnan(values).all() else None


def _problems(records: Records, places: Sequence[int], numbers: Numbers) -> Iterator[str | None]:
    """What is wrong with the inputs of each row."""
    for row, wrong in zip(records.rows, np.isnan(numbers), strict=True):
        if not wrong.any():
            yield None
            continue
        place = places[int(wrong.argmax())]
        name, text = records.header[place], row.cells[place].strip()
        empty = text.casefold() in NO_VALUE
        yield f"no {name}" if empty else f"{name} is {text!r}, not a finite number"
