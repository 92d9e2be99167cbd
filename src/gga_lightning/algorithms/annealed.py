"""Bases of the algorithms whose objective changes after some steps."""

from typing import Any

from torch import nn

from gga_lightning.algorithms.base import ADAM, DomainGeneralizer, OptimizerFactory
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["Annealed", "AnnealedPenalty"]


class Annealed(DomainGeneralizer):
    """Changes the objective after a number of optimizer steps.

    At that step the optimizer's state is cleared, because Adam's averages do not fit the jump in
    the gradient. (DomainBed makes a new optimizer instead. Checkpoints and schedules would
    still refer to the old one.)

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> class FirstMeanThenWorst(Annealed):  # minimizes the mean of losses, later the highest
        ...     def objective(self, batch):
        ...         losses = self.domain_losses(batch)
        ...         return losses.max() if self.annealed else losses.mean()
        >>> FirstMeanThenWorst(MLP((2,)), num_classes=2, anneal_steps=100).annealed
        False
    """

    lr_after: float | None = None
    """The learning rate from that step on, for subclasses to set; the same as before if None. A
    learning rate schedule would overwrite it."""

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        anneal_steps: int,
        *,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            anneal_steps: Number of optimizer steps before the objective changes; not negative.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``anneal_steps`` is negative.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if anneal_steps < 0:
            raise ValueError(f"`anneal_steps` must not be negative, got {anneal_steps}.")
        self.anneal_steps = anneal_steps

    @property
    def change_steps(self) -> tuple[int, ...]:
        """The steps at which the objective changes."""
        return (self.anneal_steps,)

    @property
    def annealed(self) -> bool:
        """Whether the objective has changed."""
        return self.global_step >= self.anneal_steps

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Clears the optimizer's state and sets its learning rate when the objective changes."""
        if self.global_step in self.change_steps:
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()
        if self.global_step == self.anneal_steps and self.lr_after is not None:
            self._set_lr(self.lr_after)

    def _set_lr(self, lr: float) -> None:
        """Sets the learning rate, that of the featurizer to ``lr_factor`` times as much."""
        factor = getattr(self.featurizer, "lr_factor", 1.0)
        inside = {id(param) for param in self.featurizer.parameters()}
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                # a group has parameters of both only where the factor is 1
                group["lr"] = lr * factor if id(group["params"][0]) in inside else lr


class AnnealedPenalty(Annealed):
    """Changes the weight of a penalty after a number of optimizer steps.

    Example:
        >>> from gga_lightning.algorithms import VREx
        >>> from gga_lightning.backbones import MLP
        >>> VREx(MLP((2,)), num_classes=2, penalty_weight=10.0, anneal_steps=500).weight
        1.0
        >>> VREx(MLP((2,)), num_classes=2, penalty_weight=10.0, anneal_steps=0).weight
        10.0
    """

    weight_before = 1.0
    """The penalty's weight before ``anneal_steps``."""

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        penalty_weight: float,
        anneal_steps: int,
        *,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            penalty_weight: The penalty's weight from ``anneal_steps`` on.
            anneal_steps: Number of optimizer steps before that; not negative.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.
        """
        super().__init__(featurizer, num_classes, anneal_steps, optimizer=optimizer, task=task)
        self.penalty_weight = penalty_weight

    @property
    def weight(self) -> float:
        """The penalty's weight at this step."""
        return self.penalty_weight if self.annealed else self.weight_before
