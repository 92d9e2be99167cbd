"""Lets a pool of threads do work, with a progress bar."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.progress import track

__all__ = ["in_chunks"]

_CHUNK = 64


def in_chunks(work: Callable[[range], None], count: int, doing: str, progress: bool) -> None:
    """Works on ``range(count)``, a chunk at a time, by a pool of threads.

    Args:
        work: Works on one chunk.
        count: How many items there are.
        doing: What the progress bar says.
        progress: Whether to show a progress bar, on a terminal.
    """
    chunks = [range(begin, min(begin + _CHUNK, count)) for begin in range(0, count, _CHUNK)]
    pool = ThreadPoolExecutor()
    try:
        tasks = [pool.submit(work, chunk) for chunk in chunks]
        console = Console(stderr=True)
        hidden = not (progress and console.is_terminal)
        for task in track(tasks, doing, console=console, transient=True, disable=hidden):
            task.result()
    finally:
        pool.shutdown(cancel_futures=True)
