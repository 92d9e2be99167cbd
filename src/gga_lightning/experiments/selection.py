"""Which of a training's evaluations counts: the field's model selection rules."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["ValidationHistory", "ValidationPass", "select"]


class ValidationPass(NamedTuple):
    """Accuracies, in [0, 1], after one validation pass.

    Attributes:
        step: How many optimizer steps were taken.
        val_acc: Mean over the source domains' validation parts.
        oracle_acc: Mean over the test domains' smaller parts.
        test_acc: Mean over the test domains' larger parts, which is what is reported.
        accuracies: Each part's, by ``<part>/<domain>``.
    """

    step: int
    val_acc: float
    oracle_acc: float
    test_acc: float
    accuracies: Mapping[str, float] = MappingProxyType({})


class ValidationHistory(Callback):
    """Keeps the accuracies of every validation pass, in checkpoints too.

    Attributes:
        evaluations: One entry a pass, in order.
    """

    def __init__(self) -> None:
        """Starts with none."""
        self.evaluations: list[ValidationPass] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a validation pass ends: takes note of its accuracies."""
        if not trainer.sanity_checking:
            found = {n: float(v) for n, v in trainer.callback_metrics.items() if n.endswith("/acc")}
            val, oracle, test = (found[f"{part}/acc"] for part in ("val", "oracle", "test"))
            each = {n.removesuffix("/acc"): v for n, v in found.items() if n.count("/") > 1}
            self.evaluations.append(ValidationPass(trainer.global_step, val, oracle, test, each))

    def state_dict(self) -> dict[str, Any]:
        """Called when a checkpoint is saved."""
        return {"evaluations": [tuple(evaluation) for evaluation in self.evaluations]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a checkpoint is loaded."""
        self.evaluations = [ValidationPass(*evaluation) for evaluation in state_dict["evaluations"]]


def select(evaluations: list[ValidationPass]) -> dict[str, ValidationPass]:
    """Applies the three rules that need one training only; ties go to the earliest.

    Args:
        evaluations: All evaluations of a training, in order; at least one.

    Returns:
        ``"training_domain_validation"``: the one with the best source accuracy; ``"oracle"``: the
        best on the test domains' smaller parts, which no fair comparison knows; ``"last"``.

    Raises:
        ValueError: If there are none.

    Source: Gulrajani & Lopez-Paz, "In Search of Lost Domain Generalization", ICLR 2021; the
    oracle is that of SWAD's code, which looks at every checkpoint and not at the last alone.
    """
    if not evaluations:
        raise ValueError("`evaluations` must hold at least one evaluation, got none.")
    return {
        "training_domain_validation": max(evaluations, key=lambda e: e.val_acc),
        "oracle": max(evaluations, key=lambda e: e.oracle_acc),
        "last": evaluations[-1],
    }
