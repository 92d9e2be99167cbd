"""What libjpeg writes to standard error about damaged data, which it decodes all the same."""

import os
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

__all__ = ["with_complaint"]

_T = TypeVar("_T")
_COMPLAINTS = (b"Corrupt JPEG data", b"Premature end of JPEG")
_MOST = 2**20  # bytes read at a time


class _Listener:
    """Reads the process's standard error while images are decoded, and passes on other lines.

    Threads that decode at the same time listen together, so that they need not take turns.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._listening, self._alone, self._heard = 0, False, list[str]()
        self._stderr = self._file = -1  # the file stands in for standard error
        self._read = 0  # how far it is read

    @contextmanager
    def window(self, *, alone: bool = False) -> Generator[list[str]]:
        """Yields a list that afterwards has what libjpeg complained of, in any thread."""
        heard: list[str] = []
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = alone
            self._changed.wait_for(lambda: not (alone and self._listening))
            if not self._listening:
                self._redirect()
            self._listening += 1
            start = len(self._heard)
        try:
            yield heard
        finally:
            with self._changed:
                self._listening -= 1
                if not self._listening:
                    os.dup2(self._stderr, 2)
                self._pass_on()
                heard += self._heard[start:]
                if not self._listening:
                    os.close(self._stderr)
                    self._heard.clear()
                self._alone = self._alone and not alone
                self._changed.notify_all()

    def _redirect(self) -> None:
        if self._file < 0:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
        self._stderr = os.dup(2)
        os.dup2(self._file, 2)

    def _pass_on(self) -> None:
        # pread does not move the place at which others write
        while text := os.pread(self._file, _MOST, self._read):
            self._read += len(text)
            for line in text.splitlines(keepends=True):
                if line.startswith(_COMPLAINTS):
                    self._heard.append(line.decode().strip())
                else:
                    os.write(self._stderr, line)

    def before_fork(self) -> None:
        """Waits until nobody listens, since a child would keep the redirected standard error."""
        self._changed.acquire()
        self._changed.wait_for(lambda: not self._listening)


_listener = _Listener()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_listener.before_fork,
        after_in_parent=lambda: _listener._changed.release(),  # pyright: ignore[reportPrivateUsage]
        after_in_child=_listener.__init__,  # with a file of its own
    )


def with_complaint(decode: Callable[[], _T]) -> tuple[_T, str | None]:
    """Calls a function that decodes with libjpeg, and tells whether libjpeg found damage.

    Args:
        decode: Decodes one image. It may be called twice.

    Returns:
        Its result, and what libjpeg wrote about the data, or None; always None on Windows and
        in processes without a standard error.
    """
    if not hasattr(os, "pread") or sys.__stderr__ is None:
        return decode(), None
    with _listener.window() as heard:
        result = decode()
    if heard:  # perhaps because of another thread's image
        with _listener.window(alone=True) as heard:
            result = decode()
    return result, heard[0] if heard else None
