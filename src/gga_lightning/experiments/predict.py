"""``gga-predict``: makes a run's predictions for image files, rows of a table or texts."""

import argparse
import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gga_lightning.algorithms import DomainGeneralizer
from gga_lightning.algorithms.prediction import image_files, predict_inputs
from gga_lightning.experiments.configuration import explain
from gga_lightning.experiments.models import add_model_options, load_model
from gga_lightning.tasks.predictions import AnyPrediction

__all__ = ["main"]

Row = tuple[str, AnyPrediction]
Item = tuple[str, Any]  # what is printed, and an image's path, a row or a text


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``gga-predict``.

    A file that cannot be used is named on standard error. The other files are still predicted.

    Args:
        arguments: Those of the command line; the process's own if None.

    Returns:
        The exit status, 0 if there is a prediction for every image that was asked for.
    """
    options = _parser().parse_intermixed_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # any file name can be printed
        sys.stdout.reconfigure(errors="backslashreplace")
    errors: list[Exception] = []
    try:
        model = _load(options.run, options.selection, options.trust).to(_device(options.device))
        items = _items(model, options.files, partial(_report, errors))
        rows = _predictions(model, items, options.batch_size, partial(_report, errors))
        _WRITERS[options.format](rows)
        sys.stdout.flush()
    except BrokenPipeError:  # such as that of `| head`
        # at exit Python flushes the rest of the output, which must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        _report(errors, error)
    return 1 if errors else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gga-predict",
        description="Predicts by the model that a selection rule chose: of image files or, if the "
        "run's data are rows of a table or texts, of each row or line of a file. Standard output "
        "has only the predictions.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder of gga-train")
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="an image, or a folder, which stands for all images in it and below; a CSV or "
        "Parquet file with the run's columns; or a text file with a text in each line",
    )
    parser.add_argument(
        "--format",
        choices=tuple(_WRITERS),
        default="table",
        help="table; csv, with a column for each class; json, one object a line (%(default)s)",
    )
    add_model_options(parser)
    parser.add_argument(
        "--batch-size",
        type=_positive,
        default=64,
        metavar="N",
        help="images, rows or texts that go through the model at a time (%(default)s)",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _load(run: str, selection: str, trust: Sequence[str]) -> DomainGeneralizer:
    """Loads the run's model, whose inputs must be something that files can hold."""
    model = load_model(run, selection, trust=trust)
    if model.preprocess is None:
        raise ValueError(
            f"RUN must be a run on images, rows of a table or texts, but the data of {run!r} are "
            f"something else, with inputs of shape {model.input_shape}. In Python, "
            "`load_model(RUN).predict(inputs)` takes such inputs as tensors."
        )
    return model


def _device(name: str) -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "gpu" and found is None:
        raise ValueError("`--device gpu` needs a GPU that PyTorch can use: take `--device cpu`.")
    return found if found is not None and name != "cpu" else torch.device("cpu")


def _report(errors: list[Exception], error: Exception) -> None:
    """Prints an error in one line, or raises it if the user wants to see where it comes from."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise error
    print(f"gga-predict: {explain(error)}", file=sys.stderr, flush=True)
    errors.append(error)


def _items(
    model: DomainGeneralizer, files: Sequence[str], report: Callable[[Exception], None]
) -> Iterator[Item]:
    """Lists the images, in folders in the order of their paths; or the rows or texts of files."""
    items = getattr(model.preprocess, "items", None)
    for file in files:
        try:
            if items is not None:
                yield from items(file)
            else:
                found = image_files(file) if os.path.isdir(file) else [file]
                yield from ((path, path) for path in found)
        except (OSError, ValueError) as error:
            report(error)


def _predictions(
    model: DomainGeneralizer,
    items: Iterator[Item],
    batch_size: int,
    report: Callable[[Exception], None],
) -> Iterator[Row]:
    """Predicts the items one batch at a time, and yields each name with its prediction."""
    prepare = model.preprocess
    assert prepare is not None

    def load(item: Item) -> Tensor | Exception:
        try:
            return prepare(item[1])
        except (OSError, ValueError) as error:
            # a path is in the message; of a row or text its place is not
            return error if item[0] == item[1] else ValueError(f"{item[0]}: {error}")

    with ThreadPoolExecutor() as pool:
        while batch := list(itertools.islice(items, batch_size)):
            read: list[str] = []
            inputs: list[Tensor] = []
            for (name, _), found in zip(batch, pool.map(load, batch), strict=True):
                if isinstance(found, Exception):
                    report(found)
                else:
                    read.append(name)
                    inputs.append(found)
            predicted = predict_inputs(model, inputs)
            yield from zip(read, predicted, strict=True)


def _write_csv(rows: Iterable[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for index, (path, found) in enumerate(rows):
        columns = found.columns()
        if index == 0:
            writer.writerow(["file", *columns])
        texts = [f"{x:.6g}" if isinstance(x, float) else x for x in columns.values()]
        writer.writerow([path, *texts])


def _write_json(rows: Iterable[Row]) -> None:
    for path, found in rows:
        print(json.dumps({"file": path, **found.entries()}))


def _write_table(rows: Iterable[Row]) -> None:
    table: Table | None = None
    for path, found in rows:
        cells = found.cells()
        if table is None:
            table = Table()
            table.add_column("file", overflow="fold")  # long names are not cut off
            for name, _, justify in cells:
                table.add_column(name, justify=justify, overflow="fold")
        table.add_row(path, *(text for _, text, _ in cells))
    if table is not None:
        Console(markup=False, emoji=False, highlight=False).print(table)


_WRITERS: dict[str, Callable[[Iterable[Row]], None]] = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
}


if __name__ == "__main__":
    sys.exit(main())
