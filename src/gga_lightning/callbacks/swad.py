"""Stochastic weight averaging, densely (SWAD)."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gga_lightning.callbacks._base import say
from gga_lightning.callbacks._setup import check_integer

__all__ = ["SWAD"]


class _Segment:
    """The mean of the weights of several steps: from after one validation to the next.

    Attributes:
        step: The step of the validation that it comes after.
        loss: The validation loss there.
        count: How many steps' weights.
        mean: Their mean, a tensor each.
    """

    def __init__(self, step: int, loss: float, count: int, mean: list[Tensor]) -> None:
        self.step, self.loss, self.count, self.mean = step, loss, count, mean

    @torch.no_grad()
    def add(self, weights: list[Tensor], count: int = 1) -> None:
        self.count += count
        share = count / self.count
        for mean, weight in zip(self.mean, weights, strict=True):
            mean.lerp_(weight.to(mean), share)

    def state(self) -> tuple[int, float, int, list[Tensor]]:
        return self.step, self.loss, self.count, [mean.clone() for mean in self.mean]


class SWAD(Callback):
    """Averages the weights of all steps in a flat part of the training (SWAD).

    The validation loss of the source domains decides where the average begins and ends.

    Averaging starts after the first validation whose loss is no higher than the next
    ``patience - 1``. These losses set a bound: their mean plus the share ``tolerance`` of it.
    Averaging ends with the last validation before ``overfit_patience`` validations in a row whose
    losses are above the bound. Training ends then too, unless ``stop=False``. Otherwise averaging
    ends with the training. If no start is found, the callback averages the weights since the last
    but one validation and warns.

    When the fit is over, the module has the averaged weights: ``trainer.test(module, ...)``
    evaluates them, and ``trainer.save_checkpoint(path, weights_only=True)`` saves them.
    Checkpoints that are saved during training hold the plain weights. Therefore
    ``trainer.test(ckpt_path="last")`` and ``"best"`` evaluate plain weights, and leave them in the
    module. Checkpoints also hold the averages so far, up to ``overfit_patience`` + 2 copies of the
    parameters, so that a resumed training averages as the uninterrupted one does.

    The callback averages parameters and floating-point buffers. Running statistics of BatchNorm
    are among them; :func:`torch.optim.swa_utils.update_bn` computes them anew, as SWAD's code
    does. It works with any LightningModule that logs its validation loss.

    Validate often: a training with fewer than ``patience`` validations cannot start to average.
    Under ``fast_dev_run`` the callback checks ``monitor`` and averages nothing.

    Source: Cha et al., NeurIPS 2021, arXiv 2102.08604, Algorithm 1, with a validation loss every
    few steps. The authors' code differs in that it looks back from the beginning
    (``look_back=True``, from which the published numbers come), leaves out a bad end of a training
    that was not ended, and counts some segments twice.

    Attributes:
        start_step: The first step after which weights are in the average, or None.
        end_step: The first step after that with weights that are not.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> swad = SWAD(patience=3, monitor="val/loss")
        >>> trainer = Trainer(val_check_interval=100, callbacks=[swad], logger=False)
        >>> swad.start_step is None  # until the average begins
        True
    """

    def __init__(
        self,
        patience: int = 3,
        overfit_patience: int = 6,
        tolerance: float = 0.3,
        *,
        monitor: str = "val/loss",
        look_back: bool = False,
        stop: bool = True,
    ) -> None:
        """Configures where the average begins and ends.

        Args:
            patience: Validations in a row, the first of which must have the lowest loss (N_s).
            overfit_patience: Validations in a row above the bound that end it (N_e).
            tolerance: How far the bound is above the losses' mean, as a share of it; not
                negative (r - 1). The paper takes 0.2 on VLCS.
            monitor: The name of the validation loss; the source domains', never a target's.
            look_back: Whether the average also takes in earlier validations in a row whose losses
                are not above the bound, among the last ``overfit_patience`` ones.
            stop: Whether to end the training together with the average.

        Raises:
            ValueError: If an argument is out of range.
        """
        check_integer("patience", patience, 1)
        check_integer("overfit_patience", overfit_patience, 1)
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise ValueError(f"`tolerance` must be finite and not negative, got {tolerance}.")
        self.patience = patience
        self.overfit_patience = overfit_patience
        self.tolerance = tolerance
        self.monitor = monitor
        self.look_back = look_back
        self.stop = stop
        self._reset()

    def _reset(self) -> None:
        self.start_step: int | None = None
        self.end_step: int | None = None
        self._bound: float | None = None
        self._ended = False
        self._segments: list[_Segment] = []  # not yet in the average; the last is still growing
        self._average: _Segment | None = None
        self._last_step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called when fit begins: forgets an earlier training."""
        if stage == "fit":
            self._reset()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when fit begins, with a checkpoint loaded."""
        if self._ended and self.stop:
            trainer.should_stop = True
        if self._segments:
            growing = zip(self._segments[-1].mean, _weights(pl_module), strict=True)
            self._segments[-1].mean = [mean.to(weight) for mean, weight in growing]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Called when a training batch ends: takes the weights after a step into the average."""
        if trainer.global_step == self._last_step:  # gradients are accumulated
            return
        self._last_step = trainer.global_step
        if self._segments and not self._ended:
            self._segments[-1].add(_weights(pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a validation ends: decides where the average begins and ends."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or self._ended:
            return
        if self.monitor not in trainer.callback_metrics:
            raise MisconfigurationException(
                f"`monitor` must be a validation loss that the module logs, got {self.monitor!r}; "
                f"it logs {sorted(trainer.callback_metrics)}."
            )
        # the first process's, so that all decide alike
        loss = trainer.strategy.broadcast(float(trainer.callback_metrics[self.monitor]))
        loss = math.inf if math.isnan(loss) else loss
        if self._segments and self._segments[-1].step == trainer.global_step:
            self._segments.pop()  # validated twice at one step
        elif self._segments:
            self._segments[-1].mean = [mean.cpu() for mean in self._segments[-1].mean]
        weights = [weight.clone() for weight in _weights(pl_module)]
        self._segments.append(_Segment(trainer.global_step, loss, 0, weights))
        if self._bound is None:
            self._begin(trainer)
        else:
            self._go_on(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when the fit is over: leaves the module with the averaged weights."""
        if getattr(trainer, "fast_dev_run", False):
            return
        if not self._segments and self._average is None:
            rank_zero_warn("SWAD: there was no validation, so the weights are not averaged.")
            return
        if self._bound is None:
            rank_zero_warn(
                f"SWAD: no validation loss was as low as the {self.patience - 1} after it, so only "
                "the weights since the last but one validation are averaged. Validate more often, "
                "or train longer."
            )
            self._segments = self._segments[-2:]
            self.start_step = self._segments[0].step + 1
        if not self._ended:
            self._merge(len(self._segments))
            self.end_step = self._last_step + 1
        assert self._average is not None
        assert self.end_step is not None
        with torch.no_grad():
            for weight, mean in zip(_weights(pl_module), self._average.mean, strict=True):
                weight.copy_(mean)
        say(
            trainer,
            f"SWAD: averaged the weights after {self._average.count} steps, from "
            f"{self.start_step} to {self.end_step - 1}.",
        )

    def _begin(self, trainer: Trainer) -> None:
        """Looks whether the average begins with an earlier validation."""
        kept = max(self.patience, self.overfit_patience)
        self._segments = self._segments[-kept:]
        recent = self._segments[-self.patience :]
        losses = [segment.loss for segment in recent]
        if len(recent) < self.patience or losses[0] > min(losses) or losses[0] == math.inf:
            return
        self._bound = (1 + self.tolerance) * math.fsum(losses) / len(losses)
        first = len(self._segments) - self.patience
        while self.look_back and first > 0 and self._segments[first - 1].loss <= self._bound:
            first -= 1
        self._segments = self._segments[first:]
        self.start_step = self._segments[0].step + 1

    def _go_on(self, trainer: Trainer) -> None:
        """Takes what is sure to belong to the average into it, or ends it."""
        assert self._bound is not None
        sure = len(self._segments) - self.overfit_patience
        if sure <= 0:
            return
        if min(segment.loss for segment in self._segments[sure:]) <= self._bound:
            self._merge(sure)
            return
        self._merge(sure - 1 if self._average or sure > 1 else 1)
        self.end_step = self._segments[0].step + 1
        self._segments = []
        self._ended = True
        trainer.should_stop = trainer.should_stop or self.stop

    def _merge(self, count: int) -> None:
        """Takes the first segments into the average."""
        for segment in self._segments[:count]:
            if self._average is None:
                self._average = segment
            elif segment.count:
                self._average.add(segment.mean, segment.count)
        self._segments = self._segments[count:]

    def state_dict(self) -> dict[str, Any]:
        """Called when a checkpoint is saved."""
        return {
            "start_step": self.start_step,
            "end_step": self.end_step,
            "bound": self._bound,
            "ended": self._ended,
            "last_step": self._last_step,
            "segments": [segment.state() for segment in self._segments],
            "average": None if self._average is None else self._average.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a checkpoint is loaded."""
        self.start_step, self.end_step = state_dict["start_step"], state_dict["end_step"]
        self._bound, self._ended = state_dict["bound"], state_dict["ended"]
        self._last_step = state_dict["last_step"]
        self._segments = [_Segment(*state) for state in state_dict["segments"]]
        average = state_dict["average"]
        self._average = None if average is None else _Segment(*average)


@torch.no_grad()
def _weights(module: nn.Module) -> list[Tensor]:
    """Parameters and floating-point buffers, the same memory."""
    tensors = [*module.parameters(), *module.buffers()]
    return [t.detach() for t in tensors if t.is_floating_point() or t.is_complex()]
