"""Live progress inside a searched step, which can take minutes, on whatever bar there is."""

import contextlib
import time
from collections.abc import Generator
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from gga_lightning.alignment import Score

__all__ = ["SearchProgress"]

_SECONDS_BETWEEN_UPDATES = 0.2
_SECONDS_BETWEEN_LINES = 30.0


class SearchProgress:
    """Shows how far a step's search is, in the trainer's progress bar.

    Lightning's rich bar gets a line of its own; its tqdm bar shows it in its description. Where
    there is neither, a step that takes long logs a line every half minute.
    """

    def __init__(self) -> None:
        self._rich: Any = None
        self._task: Any = None
        self._tqdm: Any = None
        self._label = ""
        self._total = 0
        self._period = _SECONDS_BETWEEN_LINES
        self._shown = 0.0

    @contextlib.contextmanager
    def step(self, trainer: Trainer, step: int, total: int) -> Generator[None, None, None]:
        """Shows the search of one step while its body runs.

        Args:
            trainer: The trainer, whose bar is used.
            step: The step searched.
            total: How many candidates it has.

        Yields:
            Nothing; call :meth:`update` in the body.
        """
        self._label, self._total, self._shown = f"GGA step {step}", total, time.monotonic()
        bar = trainer.progress_bar_callback
        enabled = trainer.is_global_zero and getattr(bar, "is_enabled", False)
        rich = getattr(bar, "progress", None) if enabled else None
        self._tqdm = _tqdm_of(bar) if enabled and rich is None else None
        shown = rich is not None or self._tqdm is not None
        self._period = _SECONDS_BETWEEN_UPDATES if shown else _SECONDS_BETWEEN_LINES
        if rich is not None and rich is self._rich:
            rich.reset(self._task, description=self._label, total=total, visible=False)
        elif rich is not None:
            self._task = rich.add_task(self._label, total=total, visible=False)
        self._rich = rich
        description = self._tqdm.desc if self._tqdm is not None else ""
        try:
            yield
        finally:
            if self._rich is not None:
                self._rich.update(self._task, visible=False)
            if self._tqdm is not None:
                self._tqdm.set_description_str(description)

    def update(self, index: int, best: Score) -> None:
        """Shows that a candidate was tried.

        Args:
            index: Its index.
            best: The best score so far.
        """
        now = time.monotonic()
        if now - self._shown < self._period:
            return
        self._shown = now
        done = index + 1
        if self._rich is not None:
            self._rich.update(self._task, completed=done, visible=True, refresh=True)
        elif self._tqdm is not None:
            self._tqdm.set_description_str(f"{self._label}, candidate {done}/{self._total}: ")
        else:
            rank_zero_info(
                f"{self._label}: {done} of {self._total} candidates, "
                f"min cosine {best.min_cosine:+.4f} so far"
            )


def _tqdm_of(bar: Any) -> Any:
    """The tqdm object of Lightning's default bar, None for a bar of another kind."""
    try:
        inner = bar.train_progress_bar
    except (AttributeError, TypeError):  # TypeError: Lightning's word for "not made yet"
        return None
    return inner if hasattr(inner, "set_description_str") else None
