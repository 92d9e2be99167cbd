"""Detects trainings that have diverged, which accuracies alone do not show."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

__all__ = ["DivergenceWatch"]


class DivergenceWatch(Callback):
    """Checks losses and weights at every validation.

    A model whose weights are NaN still has an accuracy, that of always choosing the same class.
    Such weights never recover, and the training ends. A loss that is not finite can recover, and
    the training continues.

    Attributes:
        step: The optimizer step at which a loss or a weight was first seen not to be finite; None
            if all were.
    """

    def __init__(self) -> None:
        """Starts with nothing seen."""
        self.step: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a validation pass ends: looks."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        lost = not _are_finite(pl_module)
        losses = [float(v) for n, v in trainer.callback_metrics.items() if n.endswith("/loss")]
        if lost or not all(map(math.isfinite, losses)):
            self.step = trainer.global_step if self.step is None else self.step
        if lost:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when the training ends: warns if it has diverged."""
        if self.step is not None:
            rank_zero_warn(
                f"The training diverged: at the validation after step {self.step} a loss or a "
                "weight was not finite. Its result is marked. A lower learning rate or gradient "
                "clipping (`+trainer.gradient_clip_val=1.0`) may help."
            )

    def state_dict(self) -> dict[str, Any]:
        """Called when a checkpoint is saved."""
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a checkpoint is loaded."""
        self.step = state_dict["step"]


def _are_finite(module: LightningModule) -> bool:
    """Whether all trainable parameters are finite; needs one synchronization with the device."""
    found = [p.detach().isfinite().all() for p in module.parameters() if p.requires_grad]
    return bool(torch.stack(found).all()) if found else True
