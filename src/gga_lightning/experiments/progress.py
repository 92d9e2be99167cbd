"""The progress bar of ``gga-train``."""

from multiprocessing import current_process
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["ProgressBar"]


class ProgressBar(LightningProgressBar):
    """Shows a line for the training, and one for the validation or the search while they run.

    A line fits a terminal of 80 columns: it shows as many of the metrics as there is room for.
    Nothing is drawn where the output is not a terminal, and nothing stays at the end.

    Attributes:
        progress: Rich's progress display while a trainer runs on a terminal, else None.
    """

    def __init__(self) -> None:
        """Creates the progress bar, which is drawn only during a fit."""
        super().__init__()
        self.progress: Progress | None = None
        self.is_enabled = True
        self._training = self._validation = TaskID(0)

    def disable(self) -> None:
        """Called by Lightning on all processes but the first one."""
        self.is_enabled = False

    def enable(self) -> None:
        """Called by Lightning."""
        self.is_enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when training begins: shows the bar."""
        console = Console()
        drawn = console.is_terminal and not console.is_dumb_terminal
        beside_others = current_process().name.startswith("Loky")  # joblib's, several at a time
        if not self.is_enabled or not drawn or beside_others:
            return
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            _TimeLeft(),
            _Metrics(),
            console=console,
            transient=True,
        )
        total = trainer.max_steps if trainer.max_steps > 0 else None
        self._training = self.progress.add_task("", total=total, completed=trainer.global_step)
        self._validation = self.progress.add_task("validation", visible=False)
        self.progress.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when an epoch begins: names it."""
        if self.progress is not None:
            self.progress.update(self._training, description=f"epoch {trainer.current_epoch}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Called when a training batch ends: shows the step and the metrics."""
        if self.progress is not None:
            metrics = trainer.progress_bar_metrics.items()
            text = " ".join(f"{name} {_number(value)}" for name, value in metrics)
            self.progress.update(self._training, completed=trainer.global_step, metrics=text)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a validation pass begins."""
        if self.progress is not None:
            batches = sum(trainer.num_val_batches)
            total = batches if batches < float("inf") else None
            self.progress.reset(self._validation, total=total, visible=True)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Called when a validation batch ends."""
        if self.progress is not None:
            self.progress.advance(self._validation)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a validation pass ends."""
        if self.progress is not None:
            self.progress.update(self._validation, visible=False)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Called when an exception ends the training: removes the bar."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called when the trainer is done: removes the bar."""
        self._stop()

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


class _TimeLeft(TimeRemainingColumn):
    """The time left, as whoever updates the task knows it, or as Rich estimates it."""

    def render(self, task: Task) -> Text:
        known = task.fields.get("left")
        return super().render(task) if known is None else Text(known)


class _Metrics(ProgressColumn):
    """The metrics, cut off where the line ends."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("metrics", ""), no_wrap=True, overflow="ellipsis")


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
