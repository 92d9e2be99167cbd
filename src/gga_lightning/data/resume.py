"""Makes a resumed training with a data module equal the uninterrupted one."""

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

__all__ = ["EpochRestart", "LazyLoader", "ResumableLoader", "training_progress"]


class LazyLoader(DataLoader[Any]):
    """A DataLoader that starts when its first batch is asked for.

    A plain DataLoader starts its worker processes and draws its seed as soon as ``iter()`` is
    called. Lightning calls ``iter()`` early: for training, possibly before it has loaded a
    checkpoint; for validation, before callbacks learn that a validation begins.
    """

    def __iter__(self) -> Any:
        return self._batches()

    def _batches(self) -> Iterator[Any]:
        yield from super().__iter__()


class ResumableLoader(LazyLoader):
    """A loader whose batches continue from the step of a checkpoint.

    Lightning recognizes such loaders by the methods ``state_dict`` and ``load_state_dict``, and
    warns about others when a training is resumed within an epoch. There is no state to save: the
    sampler asks the trainer how many batches it has trained on. The position of the loader itself
    would be of no use, because worker processes read ahead of the training.
    """

    def state_dict(self) -> dict[str, Any]:
        """Gives the state for a checkpoint, which is empty.

        Returns:
            An empty dictionary.
        """
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the state from a checkpoint, which needs nothing.

        Args:
            state_dict: The state.
        """


def training_progress(trainer: Trainer, batches: int) -> tuple[int, int]:
    """Determines how far a training has come.

    Args:
        trainer: The trainer.
        batches: The number of batches of the training loader.

    Returns:
        The number of batches trained on so far, in all epochs and in all fits of the trainer, and
        the number of batches in an epoch.
    """
    # Lightning has these counters in all its checkpoints. `fit_loop.total_batch_idx` also counts a
    # batch that an exception interrupted, which is trained again after resuming.
    counted: Any = trainer.fit_loop.epoch_loop.batch_progress
    length = min(batches, trainer.num_training_batches)
    return counted.total.processed, max(1, int(length))


class EpochRestart(Callback):
    """Makes Lightning continue a resumed training in the right epoch.

    Lightning 2.6 has three faults here (one of them is its issue 19617):

    - With ``max_steps``, it takes every checkpoint for one from within an epoch. After one from an
      epoch's end it trains one more batch in that epoch, or counts an epoch without batches, so
      that later epochs and validations are shifted and ``max_epochs`` ends the training early.
    - After a checkpoint from the end of an epoch's last batch it does not count the start of the
      next epoch, which leads to the first fault when the training is resumed once more.
    - It takes the epoch in which ``max_steps`` ended a training for a whole one. When the training
      is resumed with more steps, later epochs and validations are shifted.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when training starts, after Lightning has restored its counters."""
        loop = trainer.fit_loop
        epochs: Any = loop.epoch_progress
        batches: Any = loop.epoch_loop.batch_progress
        if not loop.is_resuming or epochs.current.processed < epochs.current.ready:
            return  # there was no checkpoint, or Lightning continues within the epoch
        # of an epoch whose rest was skipped by `on_train_batch_start`, the last batch is marked
        unfinished = 0 < batches.current.processed < trainer.num_training_batches
        if unfinished and not batches.is_last_batch:
            _reopen(epochs)
            loop.restarting = True
            loop.update_restart_stage()
            return
        if not loop.epoch_loop.restarted_on_train_batch_end:  # else it still has to count a batch
            loop.epoch_loop.restarting = False
        for counted in (epochs.total, epochs.current):
            counted.completed = counted.processed
        loop.on_iteration_done()  # from here on, as if it had not been restarted


def _reopen(epochs: Any) -> None:
    """Counts the latest epoch as not yet ended."""
    for counted in (epochs.total, epochs.current):
        counted.processed = counted.completed = counted.ready - 1
