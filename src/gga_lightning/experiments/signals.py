"""Ends ``gga-train`` on a signal: with the status that schedulers expect, and how to resume."""

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

__all__ = ["exit_on_signals", "resumable"]

_received: list[signal.Signals] = []  # of this process, which has one set of signal handlers


class _Stopped(KeyboardInterrupt):
    """A signal told the process to end. Lightning then ends its other processes too."""


@contextlib.contextmanager
def exit_on_signals(program: str) -> Generator[None]:
    """Ends the process with status 128 + number if SIGTERM (15) or SIGINT (2) arrives in the body.

    The body is interrupted immediately, in a search too, since schedulers kill a process that
    does not end soon. Handlers that were set by others, such as a launcher, stay in place.

    Args:
        program: The command's name, for the message.

    Yields:
        Nothing.

    Raises:
        SystemExit: If one of the two arrived.
    """
    _received.clear()
    earlier = _set_handlers()
    try:
        yield
    except KeyboardInterrupt:
        _exit(program, _received[0] if _received else signal.SIGINT)
    except SystemExit:  # Lightning turns the interrupt into one of status 1, or of none
        if not _received:
            raise
        _exit(program, _received[0])
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _exit(program: str, number: signal.Signals) -> NoReturn:
    print(f"{program}: stopped by {number.name}", file=sys.stderr)
    sys.exit(128 + number)


@contextlib.contextmanager
def resumable(program: str, folder: Path, *, one_of_many: bool) -> Generator[None]:
    """Prints how to resume the training in the body, if a signal ends it.

    Args:
        program: The command's name.
        folder: The run folder.
        one_of_many: Whether the training is a job of a sweep.

    Yields:
        Nothing.
    """
    try:
        yield
    finally:
        if _received:
            typed = [word for word in sys.argv[1:] if not word.startswith("hydra.run.dir=")]
            place = [] if one_of_many else [f"hydra.run.dir={folder}"]
            command = shlex.join([program, *typed, *place])
            print(f"{program}: to resume the training: {command}", file=sys.stderr)


def _set_handlers() -> dict[signal.Signals, Any]:
    """Sets our handlers in place of the default ones, and returns these."""

    def stop(number: int, frame: FrameType | None) -> None:
        _received.append(signal.Signals(number))
        raise _Stopped

    defaults = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {
        number: handler
        for number, handler in defaults.items()
        if signal.getsignal(number) is handler
    }
    for number in found:
        signal.signal(number, stop)
    return found
