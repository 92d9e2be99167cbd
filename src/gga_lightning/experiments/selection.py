"""Which of a training's evaluations counts: the field's model selection rules."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gga_lightning.report.results import earliest_best, mean

__all__ = ["SelectedCheckpoint", "ValidationHistory", "ValidationPass", "select"]

_RULES = ("training_domain_validation", "oracle", "last")


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
        if trainer.sanity_checking:
            return
        each = {
            name.removesuffix("/acc"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.endswith("/acc") and name.count("/") > 1
        }
        # not the logged means, which are rounded: gga-report computes its means from these too
        val, oracle, test = (
            mean(value for name, value in each.items() if name.startswith(f"{part}/"))
            for part in ("val", "oracle", "test")
        )
        self.evaluations.append(ValidationPass(trainer.global_step, val, oracle, test, each))

    def state_dict(self) -> dict[str, Any]:
        """Called when a checkpoint is saved."""
        return {"evaluations": [tuple(evaluation) for evaluation in self.evaluations]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a checkpoint is loaded."""
        self.evaluations = [ValidationPass(*evaluation) for evaluation in state_dict["evaluations"]]


def select(evaluations: list[ValidationPass]) -> dict[str, ValidationPass]:
    """Applies the three rules that need one training only.

    The earliest evaluation wins a tie. Two accuracies are tied if they differ by no more than
    rounding, see :func:`gga_lightning.report.results.earliest_best`.

    Args:
        evaluations: All evaluations of a training, in order; at least one.

    Returns:
        ``"training_domain_validation"``: the one with the best source accuracy; ``"oracle"``: the
        best on the test domains' smaller parts, which no fair comparison knows; ``"last"``.

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
        earliest_best(evaluation.val_acc for evaluation in evaluations),
        earliest_best(evaluation.oracle_acc for evaluation in evaluations),
        -1,
    )
    return {rule: evaluations[index] for rule, index in zip(_RULES, chosen, strict=True)}


class SelectedCheckpoint(Checkpoint):
    """Keeps the checkpoint of the evaluation that a selection rule chooses.

    After each validation pass it asks :func:`select`, as ``result.json`` does at the end. The
    file ``<rule>-<step>.ckpt`` is therefore always of the step that the result names. A
    superseded file is deleted at the next validation pass, when ``last.ckpt`` is of a later
    step: a training that is resumed from ``last.ckpt`` still has the file that was chosen then.

    Example::

        history = ValidationHistory()
        best = SelectedCheckpoint("run/checkpoints", "training_domain_validation")
        Trainer(callbacks=[history, best]).fit(module, data)
    """

    def __init__(self, folder: str | Path, rule: str) -> None:
        """Names the folder and the rule.

        Args:
            folder: Where to save.
            rule: ``"training_domain_validation"`` or ``"oracle"``.

        Raises:
            ValueError: If there is no such rule.
        """
        if rule not in _RULES[:2]:
            raise ValueError(f"`rule` must be one of {', '.join(_RULES[:2])}, got {rule!r}.")
        self.folder, self.rule = Path(folder), rule

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called when a fit begins: checks that the accuracies are kept."""
        if not any(isinstance(found, ValidationHistory) for found in _callbacks(trainer)):
            raise MisconfigurationException(
                "`SelectedCheckpoint` chooses among the evaluations that a `ValidationHistory` "
                "keeps: add one to the trainer's callbacks."
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a validation pass begins: deletes the superseded file."""
        self._delete_superseded(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a validation pass ends: saves if the rule chooses it."""
        evaluations = _evaluations(trainer)
        if evaluations and select(evaluations)[self.rule] is evaluations[-1]:
            unfinished = self.folder / f"{self.rule}.ckpt.part"
            trainer.save_checkpoint(unfinished, weights_only=False)
            if trainer.is_global_zero:  # a process that is killed leaves no broken checkpoint
                os.replace(unfinished, self._path(evaluations[-1].step))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when the training ends: deletes the superseded file."""
        self._delete_superseded(trainer)

    def _path(self, step: int) -> Path:
        return self.folder / f"{self.rule}-{step}.ckpt"

    def _delete_superseded(self, trainer: Trainer) -> None:
        evaluations = _evaluations(trainer)
        if evaluations:
            chosen = self._path(select(evaluations)[self.rule].step)
            for path in self.folder.glob(f"{self.rule}-*.ckpt"):
                if path != chosen and chosen.exists():
                    trainer.strategy.remove_checkpoint(path)


def _callbacks(trainer: Trainer) -> list[Callback]:
    return cast(Any, trainer).callbacks


def _evaluations(trainer: Trainer) -> list[ValidationPass]:
    """Those of the training so far; none outside a training."""
    if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
        return []
    return next(c for c in _callbacks(trainer) if isinstance(c, ValidationHistory)).evaluations
