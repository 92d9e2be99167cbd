"""A simple moving average of the weights, as a callback."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from gga_lightning.callbacks._clock import planned_steps
from gga_lightning.callbacks._setup import check_integer
from gga_lightning.callbacks.swad import SWAD

__all__ = ["SimpleMovingAverage"]


class SimpleMovingAverage(WeightAveraging):
    """Averages the weights of all steps from ``start_step`` on (SMA).

    The average after step T is the mean of the weights after the steps ``start_step`` to T, all
    with equal weight. Floating-point buffers, such as BatchNorm's running statistics, are averaged
    too; other buffers are those of the last step.

    It is Lightning's ``WeightAveraging`` with such a start. Every validation evaluates the average,
    and the module keeps it at the end. In checkpoints, ``state_dict`` holds the average and
    ``current_model_state`` the plain weights, with which a resumed training continues. It needs one
    more copy of the module.

    Until ``start_step`` the average is a copy of the weights. (Lightning's own callback has the
    weights from before the training until then, and leaves the module with them if the training
    ends earlier.)

    Source: Arpit et al., "Ensemble of Averages", NeurIPS 2022, arXiv 2110.10832. The ``MovingAvg``
    of DomainBed counts steps from 1, and its average includes the weights from before its start:
    its 100 is 98 here.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(max_steps=5000, callbacks=[SimpleMovingAverage(100)], logger=False)
    """

    def __init__(self, start_step: int = 100) -> None:
        """Configures where the average begins.

        Args:
            start_step: The first optimizer step, counted from 0, after which the weights are in the
                average; not negative.

        Raises:
            ValueError: If ``start_step`` is out of range.
        """
        check_integer("start_step", start_step, 0)
        super().__init__(avg_fn=_mean)
        self.start_step = start_step

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Called after every optimizer step and every epoch: whether the weights are averaged.

        Args:
            step_idx: The step, counted from 0; None after an epoch.
            epoch_idx: The epoch, counted from 0; None after a step.

        Returns:
            Whether they are.
        """
        return step_idx is not None and step_idx >= self.start_step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called when fit begins: forgets an earlier training, and looks for other averages."""
        if stage == "fit":
            others = [c for c in _callbacks(trainer) if c is not self and _averages(c)]
            if others:
                raise MisconfigurationException(
                    "SimpleMovingAverage must be the only callback that averages weights, because "
                    "each leaves the module with an average of its own, got "
                    f"{type(others[0]).__name__} too. Remove one of them."
                )
            self._latest_update_step = 0
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when fit begins: checks that the average begins before the training ends."""
        steps = planned_steps(trainer)
        if self.start_step >= steps and not getattr(trainer, "fast_dev_run", False):
            raise MisconfigurationException(
                "`start_step` of SimpleMovingAverage must be less than the number of training "
                f"steps ({steps}), got {self.start_step}. Lower `start_step` or train longer."
            )

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a validation epoch begins: evaluates the average from here on."""
        self._follow(pl_module)
        super().on_validation_epoch_start(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called when a checkpoint is saved: adds the average."""
        self._follow(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when training ends: leaves the module with the average."""
        if self._follow(pl_module) and not getattr(trainer, "fast_dev_run", False):
            rank_zero_warn(
                f"SimpleMovingAverage: the training ended before `start_step={self.start_step}`, "
                "so the weights are not averaged."
            )
        super().on_train_end(trainer, pl_module)

    def _follow(self, pl_module: LightningModule) -> bool:
        """Copies the weights into the average if that has not begun, and says whether it did."""
        average = self._average_model
        if average is None or average.n_averaged > 0:
            return False
        average.update_parameters(pl_module)
        average.n_averaged.zero_()
        return True


def _mean(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
    """The mean of ``count`` tensors, and of one more; of integers the last."""
    if average.is_floating_point() or average.is_complex():
        return average + (current - average) / (count + 1)
    return current


def _callbacks(trainer: Trainer) -> list[Callback]:
    return vars(trainer)["callbacks"]


def _averages(callback: Callback) -> bool:
    return isinstance(callback, WeightAveraging | SWAD)
