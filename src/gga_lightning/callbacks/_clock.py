"""Counts the optimizer steps of a training, those made and those planned."""

import math
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

__all__ = ["StepClock", "planned_steps"]


class StepClock:
    """Counts optimizer steps: the batches of a fit in which an optimizer stepped.

    That is ``trainer.global_step`` under automatic optimization. Under manual optimization,
    ``trainer.global_step`` counts the steps of all optimizers; here a batch counts once.
    """

    def __init__(self) -> None:
        self._steps: int | None = None
        self._seen = 0  # the trainer's count at the last call

    def now(self, trainer: Trainer) -> int:
        """Returns the present step. Call it at least once per batch.

        Args:
            trainer: The trainer.

        Returns:
            The number of steps made so far.
        """
        count = trainer.global_step
        if self._steps is None:  # the callback was added to a training that had already begun
            module = trainer.lightning_module
            each = 1 if module.automatic_optimization else max(1, len(trainer.optimizers))
            self._steps = count // each
        elif count != self._seen:
            self._steps += 1
        self._seen = count
        return self._steps

    def restart(self, trainer: Trainer) -> None:
        """Begins a fit, which may be a further one of the same trainer.

        Args:
            trainer: The trainer.
        """
        if trainer.global_step == 0 or trainer.global_step != self._seen:
            self._steps = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a checkpoint."""
        return {"steps": self._steps, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state from a checkpoint."""
        self._steps, self._seen = state["steps"], state["seen"]


def planned_steps(trainer: Trainer) -> float:
    """Gives the number of optimizer steps after which a training ends.

    Args:
        trainer: The trainer.

    Returns:
        The number; infinity if nothing limits it.
    """
    limit = math.inf if trainer.max_steps < 0 else trainer.max_steps
    try:
        planned = trainer.estimated_stepping_batches
    except MisconfigurationException:  # accumulation that changes with the epochs
        return limit
    return limit if planned < 0 else min(planned, limit)
