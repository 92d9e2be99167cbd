"""What the algorithms share whose penalty jumps up after some steps."""

from typing import Any

from torch import nn

from gga_lightning.algorithms.base import DomainGeneralizer

__all__ = ["AnnealedPenalty"]


class AnnealedPenalty(DomainGeneralizer):
    """Gives the penalty the weight 1 at first and its own from a step on.

    At that step the optimizer's state is cleared, since Adam's averages do not fit the jump in
    the gradient. (The reference suites make a new optimizer, which a checkpoint or a schedule
    would not know of.)
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        penalty_weight: float,
        anneal_steps: int,
        **settings: Any,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            penalty_weight: The penalty's weight from ``anneal_steps`` on.
            anneal_steps: How many optimizer steps the weight is 1; not negative.
            **settings: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``anneal_steps`` is negative.
        """
        super().__init__(featurizer, num_classes, **settings)
        if anneal_steps < 0:
            raise ValueError(f"`anneal_steps` must not be negative, got {anneal_steps}.")
        self.penalty_weight = penalty_weight
        self.anneal_steps = anneal_steps

    @property
    def weight(self) -> float:
        """The penalty's weight at this step."""
        return self.penalty_weight if self.global_step >= self.anneal_steps else 1.0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Clears the optimizer's state where the weight changes."""
        if self.global_step == self.anneal_steps > 0:
            for optimizer in self.trainer.optimizers:
                optimizer.state.clear()
