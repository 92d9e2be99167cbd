"""The field's model selection rules, which choose one of a training's evaluations."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

from gga_lightning.experiments.tasks import metric_of
from gga_lightning.report.metric import Metric, earliest_best
from gga_lightning.report.results import part_means

__all__ = ["RULES", "ValidationHistory", "ValidationPass", "entry", "select"]

RULES = ("training_domain_validation", "oracle", "last")


class ValidationPass(NamedTuple):
    """Accuracies, in [0, 1], or values of another task's metric, after one validation pass.

    Attributes:
        step: The number of optimizer steps that were taken.
        val_acc: Mean over the source domains' validation parts.
        oracle_acc: Mean over the test domains' parts that are not reported: the smaller ones, or
            those of groups that were trained on in other domains (``seen``).
        test_acc: Mean over the test domains' parts that are reported.
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
        """Called when a validation pass ends: stores its accuracies."""
        if trainer.sanity_checking:
            return
        ending = f"/{metric_of(getattr(pl_module, 'task', None)).name}"
        each = {
            name.removesuffix(ending): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.endswith(ending) and name.count("/") > 1
        }
        # not the logged means, which are rounded: gga-report computes its means from these too
        self.evaluations.append(ValidationPass(trainer.global_step, *part_means(each), each))

    def state_dict(self) -> dict[str, Any]:
        """Called when a checkpoint is saved."""
        return {"evaluations": [tuple(evaluation) for evaluation in self.evaluations]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a checkpoint is loaded."""
        self.evaluations = [ValidationPass(*evaluation) for evaluation in state_dict["evaluations"]]


def select(
    evaluations: list[ValidationPass], *, higher_is_better: bool = True
) -> dict[str, ValidationPass]:
    """Applies the three rules that need one training only.

    The earliest evaluation wins a tie. Two accuracies are tied if they differ by no more than
    rounding, see :func:`gga_lightning.report.metric.earliest_best`.

    Args:
        evaluations: All evaluations of a training, in order; at least one.
        higher_is_better: Whether the best value is the highest, as of accuracies.

    Returns:
        ``"training_domain_validation"``: the one with the best source accuracy; ``"oracle"``: the
        best on the test domains' smaller parts, which a fair comparison must not use; ``"last"``.

    Raises:
        ValueError: If there are none.

    Source: Gulrajani & Lopez-Paz, "In Search of Lost Domain Generalization", ICLR 2021; the
    oracle is that of SWAD's code, which looks at every checkpoint and not at the last alone.

    Example:
        >>> passes = [ValidationPass(50, 0.5, 0.7, 0.6), ValidationPass(100, 0.5 + 6e-8, 0.8, 0.7)]
        >>> {rule: chosen.step for rule, chosen in select(passes).items()}
        {'training_domain_validation': 50, 'oracle': 100, 'last': 100}
    """
    if not evaluations:
        raise ValueError("`evaluations` must hold at least one evaluation, got none.")
    chosen = (
        earliest_best((e.val_acc for e in evaluations), higher_is_better=higher_is_better),
        earliest_best((e.oracle_acc for e in evaluations), higher_is_better=higher_is_better),
        -1,
    )
    return {rule: evaluations[index] for rule, index in zip(RULES, chosen, strict=True)}


def entry(evaluation: ValidationPass, metric: Metric) -> dict[str, float]:
    """Writes down what a rule chose, for ``selections`` in ``result.json``.

    Args:
        evaluation: The evaluation.
        metric: The metric.

    Returns:
        Its step and means, such as ``val_acc``.
    """
    parts = ("val", "oracle", "test")
    means = {metric.key(part): getattr(evaluation, f"{part}_acc") for part in parts}
    return {"step": evaluation.step, **means}
