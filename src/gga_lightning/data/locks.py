"""Locks between processes that would otherwise do the same work twice."""

import contextlib
import warnings
from collections.abc import Callable, Generator
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["alone"]


@contextlib.contextmanager
def alone(file: Path, waits: Callable[[], None]) -> Generator[bool]:
    """Lets one process at a time run a block. The system ends the lock of a killed process.

    Args:
        file: The lock file, in a folder that exists. It is deleted at the end: a process that
            waits for a deleted file notices and makes a new one.
        waits: Called if another process holds the lock, before waiting for it.

    Yields:
        Whether the lock is held. A disk that cannot lock is used without a lock.

    Example:
        >>> import tempfile
        >>> with (
        ...     tempfile.TemporaryDirectory() as folder,
        ...     alone(Path(folder, "PACS.lock"), lambda: print("waiting")) as held,
        ... ):
        ...     print(held)
        True
    """
    lock = FileLock(file)
    held = _acquire(lock, waits)
    try:
        yield held
    finally:
        if held:
            with contextlib.suppress(OSError):  # Windows deletes no open files
                file.unlink()
        lock.release()


def _acquire(lock: FileLock, waits: Callable[[], None]) -> bool:
    with warnings.catch_warnings():
        # where the system has no locks, filelock warns and takes files for locks, which would
        # outlive a killed process
        warnings.filterwarnings("error", "flock not supported")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waits()
            lock.acquire()
        except (OSError, UserWarning):
            return False
    return True
