"""What ``gga-train`` prints: lines that fit the terminal, and a copy of them in the run folder."""

import contextlib
import logging
import re
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TextIO

from rich.cells import cell_len

__all__ = ["RANK_ZERO_LOGGER", "fold", "tidy", "transcript"]

RANK_ZERO_LOGGER = "lightning.pytorch.utilities.rank_zero"

# Lines of libraries that users of the command cannot act on, or that it prints itself.
_LOGGERS = ("", "lightning", "lightning.fabric", "lightning.pytorch")
_LOGGED = re.compile(
    r"\W*(Tip:|[GTHI]PU available:|LOCAL_RANK:|Initializing distributed:|-+\ndistributed_backend"
    r"|`Trainer\.fit` stopped:|`weights_only` was not set|Restor(ing|ed all) states from"
    r"|You are using a CUDA device|Detected KeyboardInterrupt|\[rank: \d+\] Received SIGTERM)"
)
_WARNED = (
    "Experiment logs directory",  # the job's own files
    "Checkpoint directory .* exists and is not empty",
    ".*does not have many workers",  # whatever their number, as long as there is no GPU to feed
    ".*LeafSpec",  # Lightning's, of torch
    "\n\tRunning Hydra app with --multirun",
)
_LIBRARIES = r"(hydra|lightning|omegaconf|torch|torchmetrics|torchvision)(\.|$)"
_PRINTED = ("Error executing job with overrides", "Joblib.Parallel(")  # by Hydra


@contextlib.contextmanager
def tidy(program: str) -> Generator[None]:
    """Makes what is printed readable, until the block ends.

    Lines of libraries that nobody can act on are left out. A warning is one line without the
    place in the code. It is printed once, and copied to the transcript of each job. Lines that
    are wider than the terminal continue on the next one after a whole word. Messages of Lightning
    go where ``sys.stderr`` points to, and therefore above a progress bar.

    Args:
        program: The command's name, which begins warnings.

    Yields:
        Nothing.
    """
    outer = sys.stderr
    told = outer.told if isinstance(outer, _Folding) else set[str]()  # by all jobs of a command
    here: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        text = f"{program}: warning: {' '.join(str(message).split())}"
        stream = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # behind a progress bar
        if text not in told:
            print(text, file=sys.stderr)
        elif text not in here and isinstance(stream, _Copying):
            stream.copy(f"{text}\n")
        told.add(text)
        here.add(text)

    with warnings.catch_warnings(), _log_handlers(), _streams(lambda x: _Folding(x, told)):
        for words in _WARNED:
            warnings.filterwarnings("ignore", words)
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module=_LIBRARIES)
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def transcript(path: Path) -> Generator[None]:
    """Appends to a file what is printed until the block ends, and the traceback of its error.

    Args:
        path: The file. Progress bars and colours are left out.

    Yields:
        Nothing.
    """
    with path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as file:
        screen = _Screen(file)
        try:
            with _streams(lambda stream: _Copying(stream, screen)):
                yield
        except Exception:
            screen.write(f"\n{traceback.format_exc()}")
            raise
        finally:
            screen.close()


def fold(text: str, width: int) -> str:
    r"""Breaks long lines between words.

    Args:
        text: The text. Words that are longer than a line stay whole, as paths do.
        width: Columns of the terminal, of which wide characters take two.

    Returns:
        The text with more line breaks, if need be.

    Example:
        >>> fold("one two three", 8)
        'one two\nthree'
    """
    return "\n".join(
        line if cell_len(line) <= width else "\n".join(_folded(line, width))
        for line in text.expandtabs().split("\n")
    )


def _folded(line: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in line.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@contextlib.contextmanager
def _streams(wrap: Callable[[TextIO], Any]) -> Generator[None]:
    """Wraps standard output and standard error in the body."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = wrap(out), wrap(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


@contextlib.contextmanager
def _log_handlers() -> Generator[None]:
    """Redirects logging handlers to the current streams, and removes Hydra's at the end."""

    def wanted(record: logging.LogRecord) -> bool:
        return not _LOGGED.match(record.getMessage())

    handlers = [
        handler
        for name in _LOGGERS
        for handler in logging.getLogger(name).handlers
        if type(handler) is logging.StreamHandler  # not those of files, a class below it
        and not isinstance(handler.stream, _Present)
    ]
    earlier = [handler.stream for handler in handlers]
    root = logging.getLogger()
    at_root, level = root.handlers[:], root.level
    for handler in handlers:
        name = "stdout" if handler.stream in (sys.stdout, sys.__stdout__) else "stderr"
        handler.stream = _Present(name)
        handler.addFilter(wanted)
    try:
        yield
    finally:
        root.handlers[:] = at_root
        root.setLevel(level)
        for handler, stream in zip(handlers, earlier, strict=True):
            handler.stream = stream
            handler.removeFilter(wanted)


class _Present:
    """Forwards to the current standard output or standard error."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys, self._name), name)


class _Folding:
    """A stream whose long lines are folded if it is a terminal."""

    def __init__(self, stream: TextIO, told: set[str]) -> None:
        self._stream, self.told = stream, told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if text.startswith(_PRINTED):
            return len(text)
        drawn = "\x1b" in text or "\r" in text
        if not drawn and self._stream.isatty():
            self._stream.write(fold(text, shutil.get_terminal_size().columns))
        else:
            self._stream.write(text)
        return len(text)


class _Copying:
    """A stream that also copies its text to a screen."""

    def __init__(self, stream: TextIO, screen: "_Screen") -> None:
        self._stream, self._screen = stream, screen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self.copy(text)
        return self._stream.write(text)

    def copy(self, text: str) -> None:
        self._screen.write(text)


class _Screen:
    """Writes to a file the lines that stay on a terminal, and not those that are drawn over.

    A library that draws a progress bar moves the cursor back before it draws the bar again. The
    lines that are then above the cursor are final.
    """

    _PIECES = re.compile(
        r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\r\n]|[^\x1b\r\n]+"
    )
    _UP = re.compile(r"\x1b\[(\d*)A")

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lines, self._row = [""], 0

    def write(self, text: str) -> None:
        """Draws a piece of text, with its control codes."""
        text = text.replace("\r\n", "\n")
        leads = True
        for piece in self._PIECES.findall(text):
            if piece == "\n":
                self._row += 1
                self._lines += [""] * (self._row == len(self._lines))
            elif piece == "\r" or (piece[0] == "\x1b" and piece[-1] == "K"):
                self._lines[self._row] = ""
            elif up := self._UP.match(piece):
                self._row = max(0, self._row - int(up[1] or 1))
            elif piece[0] != "\x1b":
                if leads:
                    self._keep()
                    leads = False
                self._lines[self._row] += piece
        if text.endswith("\n") and "\r" not in text and "\x1b" not in text:
            self._keep()

    def close(self) -> None:
        """Writes the rest."""
        while self._lines and not self._lines[-1]:  # erased, or never written
            self._lines.pop()
        self._row = len(self._lines)
        self._keep()

    def _keep(self) -> None:
        """Writes what is above the cursor."""
        self._file.writelines(f"{line.rstrip()}\n" for line in self._lines[: self._row])
        self._lines, self._row = self._lines[self._row :] or [""], 0
