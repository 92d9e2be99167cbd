"""Random state in checkpoints, so that a resumed run draws what the uninterrupted run draws."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from gga_lightning.callbacks._setup import run_in_order

__all__ = ["RandomState"]


class RandomState(Callback):
    """Saves the state of the random generators in checkpoints, which Lightning does not do.

    A run that is resumed from a checkpoint then draws the same dropout masks, mixing weights and so
    on as the uninterrupted run. The callback covers all that the training process draws from torch
    (on the CPU and on its GPU), NumPy and Python. It does not cover what the worker processes of a
    data loader draw, such as augmentations; :class:`~gga_lightning.data.DomainDataModule` needs no
    state for these. The state of each process is saved. If a run is resumed with another number of
    processes, the states are not restored.

    A data loader draws a seed when an epoch begins, which a resumed run does at another time.
    Therefore the first batch of every epoch begins with the state at the end of the epoch before.
    A validation leaves the state unchanged, because Lightning does not repeat the validation that
    follows a checkpoint.

    It runs before all other callbacks, wherever it is in the list, so that they draw from the
    restored state too.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from gga_lightning import GradientGuidedAnnealing
        >>> trainer = Trainer(callbacks=[GradientGuidedAnnealing(), RandomState()], logger=False)
        >>> # trainer.fit(module, data) begins a training; with ckpt_path="last" it resumes one
    """

    place = 0

    def __init__(self) -> None:
        """Creates the callback, without a state to restore."""
        self._next: dict[str, Any] | None = None  # what the next batch begins with
        self._training: dict[str, Any] = {}  # what a validation interrupts

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called when fit begins: forgets an earlier training, and takes its place in the list."""
        self._next = None
        if stage == "fit":
            run_in_order(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called when a checkpoint is saved, on every process."""
        own = self._next or _state(pl_module.device)
        states: list[Any] = [own]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, own)
        checkpoint["random_states"] = states

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called when a checkpoint is loaded."""
        states = checkpoint.get("random_states", [])
        self._next = states[trainer.global_rank] if len(states) == trainer.world_size else None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Called when a training batch begins."""
        if self._next is not None:
            _set_state(self._next, pl_module.device)
            self._next = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a validation begins."""
        self._training = _state(pl_module.device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a validation ends, before checkpoints are saved."""
        _set_state(self._training, pl_module.device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when an epoch ends, before checkpoints are saved."""
        if self._next is None:  # else no batch came: an empty epoch, as after resuming
            self._next = _state(pl_module.device)


def _state(device: torch.device) -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }


def _set_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["device"].cpu(), device)
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
