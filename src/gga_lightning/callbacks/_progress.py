"""Shows the progress of a search, whose window can take hours, on the present progress bar."""

import contextlib
import time
from collections.abc import Generator
from datetime import timedelta
from typing import Any

from lightning.pytorch import Trainer

from gga_lightning.alignment import Score
from gga_lightning.callbacks._base import say

__all__ = ["SearchProgress"]

_SECONDS_BETWEEN_UPDATES = 0.2
_SECONDS_BETWEEN_LINES = 30.0


class SearchProgress:
    """Shows the progress of the search and the remaining time of its window.

    Lightning's rich bar, and any other that has a rich ``progress``, gets a line of its own for
    the whole window; Lightning's tqdm bar shows the step in its description. Without
    such a bar, or if the output is not a terminal, a line is printed after half a minute, and then
    whenever the elapsed time has grown by half.
    """

    def __init__(self) -> None:
        self._trainer: Any = None
        self._rich: Any = None
        self._task: Any = None
        self._tqdm: Any = None
        self._label = ""
        self._candidates = 0  # of a step
        self._steps: int | None = None  # of the window; None if unknown
        self._done = 0  # steps of it
        self._began: float | None = None  # the window, in this process
        self._shown = 0.0
        self._period = _SECONDS_BETWEEN_LINES

    @contextlib.contextmanager
    def step(
        self, trainer: Trainer, step: int, candidates: int, steps_left: int | None
    ) -> Generator[None, None, None]:
        """Shows the search of one step while its body runs.

        Args:
            trainer: The trainer, whose bar is used.
            step: The step searched.
            candidates: The number of candidates of a step.
            steps_left: The number of steps that remain to be searched, this one included; None if
                it is unknown.

        Yields:
            Nothing; call :meth:`update` in the body.
        """
        if self._began is None or steps_left is None:
            self._began, self._done = time.monotonic(), 0
            self._shown, self._period = self._began, _SECONDS_BETWEEN_LINES
        self._trainer, self._label, self._candidates = trainer, f"GGA step {step}", candidates
        self._steps = None if steps_left is None else self._done + steps_left
        self._find_bar()
        description = self._tqdm.desc if self._tqdm is not None else ""
        try:
            yield
        finally:
            self._trainer = None  # must not be pickled or copied with the callback
            self._done += 1
            if self._rich is not None and self._done >= (self._steps or 1):
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
        tried = index + 1
        left = self._time_left(now, tried)
        if self._rich is not None:
            done = (self._done * self._candidates if self._steps else 0) + tried
            self._rich.update(self._task, completed=done, left=left, visible=True, refresh=True)
        elif self._tqdm is not None:
            text = f"{self._label}, candidate {tried}/{self._candidates}, {left} left: "
            self._tqdm.set_description_str(text)
        else:
            self._period = max(_SECONDS_BETWEEN_LINES, self._elapsed(now) / 2)
            window = "" if self._steps is None else " of the window"
            say(
                self._trainer,
                f"{self._label}: {tried} of {self._candidates} candidates, min cosine "
                f"{best.min_cosine:+.4f} so far, {left}{window} left",
            )

    def close(self) -> None:
        """Removes the line of a window that the end of training cut short, and resets."""
        if self._rich is not None:
            self._rich.update(self._task, visible=False)
        self.__init__()

    def _find_bar(self) -> None:
        """Looks for a bar, which a new stage of the trainer may have replaced."""
        bar = self._trainer.progress_bar_callback
        enabled = self._trainer.is_global_zero and getattr(bar, "is_enabled", False)
        rich = getattr(bar, "progress", None) if enabled else None
        self._tqdm = _tqdm_of(bar) if enabled and rich is None else None
        if rich is not None and not (rich.console.is_terminal or rich.console.is_jupyter):
            rich = None  # it draws nothing
        shown = rich is not None or self._tqdm is not None
        self._period = _SECONDS_BETWEEN_UPDATES if shown else self._period
        total = self._candidates * (self._steps or 1)
        if rich is not None and rich is self._rich:
            rich.update(self._task, description=self._label, total=total)
        elif rich is not None:
            self._task = rich.add_task(self._label, total=total, visible=False)
        self._rich = rich

    def _elapsed(self, now: float) -> float:
        return 0.0 if self._began is None else now - self._began

    def _time_left(self, now: float, tried: int) -> str:
        """Estimates the time left in the window, or in the step if its end is unknown."""
        done = self._done + tried / self._candidates
        seconds = self._elapsed(now) / done * ((self._steps or 1) - done)
        return str(timedelta(seconds=round(max(seconds, 0.0))))


def _tqdm_of(bar: Any) -> Any:
    """Finds the tqdm object of Lightning's default bar; None for another kind of bar."""
    try:
        inner = bar.train_progress_bar
    except (AttributeError, TypeError):  # TypeError: Lightning's word for "not made yet"
        return None
    return inner if hasattr(inner, "set_description_str") else None
