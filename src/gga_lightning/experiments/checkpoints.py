"""Saves and reads the checkpoints of a run folder, so that they survive crashes."""

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gga_lightning.experiments.selection import (
    RULES,
    ValidationHistory,
    ValidationPass,
    select,
)
from gga_lightning.experiments.tasks import metric_of

__all__ = [
    "LastCheckpoint",
    "SelectedCheckpoint",
    "read_checkpoint",
    "replace_file",
    "save_checkpoint",
]


def save_checkpoint(
    trainer: Trainer, path: Path, *, weights_only: bool = False, previous: Path | None = None
) -> None:
    """Saves a training. The file gets its name only when it is complete and on the disk.

    Args:
        trainer: The trainer. All its processes call this.
        path: The file to write. An existing file stays until the new one is complete.
        weights_only: Whether to leave out what only a resumed training needs.
        previous: Where to keep the existing file; None to delete it.

    Raises:
        OSError: If the file cannot be written, as on a full disk. The unfinished file is deleted.
    """
    unfinished = path.with_name(f"{path.name}.part")
    try:
        trainer.save_checkpoint(unfinished, weights_only=weights_only)
    except OSError:  # a full disk
        unfinished.unlink(missing_ok=True)
        raise
    if trainer.is_global_zero:
        if previous is not None and path.exists():
            os.replace(path, previous)
        replace_file(unfinished, path)


def replace_file(source: Path, target: Path) -> None:
    """Renames a file so that after a power cut either the old or the new file is complete.

    Args:
        source: The new file.
        target: Its name from now on.
    """
    with source.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(source, target)
    with contextlib.suppress(OSError):  # folders cannot be opened or synced on every system
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of a training. No code in it is executed.

    Args:
        path: The file.

    Returns:
        What it holds: ``state_dict``, ``global_step`` and more.

    Raises:
        ValueError: If the file is missing, damaged, or no checkpoint.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is not a checkpoint that can be loaded safely: it is damaged, or holds more "
            "than weights and numbers."
        ) from error
    except Exception as error:  # torch's readers raise errors of many kinds on damaged files
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(found, dict) or not {"state_dict", "global_step"} <= found.keys():
        raise ValueError(f"{path} is not a checkpoint of a training.")
    return cast("dict[str, Any]", found)


class LastCheckpoint(Checkpoint):
    """Saves the training at the end of every epoch that ended with a validation.

    The previous checkpoint is kept as ``previous.ckpt``, in case the last one is damaged.
    Lightning's own ``save_last`` leaves out the epochs that are no better by ``monitor``.
    """

    def __init__(self, path: str | Path) -> None:
        """Names the file.

        Args:
            path: The file to write.
        """
        self.path = Path(path)
        self._validated = -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a validation pass ends."""
        self._validated = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when an epoch ends: a training may end within one, without a validation."""
        if self._validated == trainer.global_step:
            previous = self.path.with_name("previous.ckpt")
            save_checkpoint(trainer, self.path, previous=previous)


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
        if rule not in RULES[:2]:
            raise ValueError(f"`rule` must be one of {', '.join(RULES[:2])}, got {rule!r}.")
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
        self._delete_superseded(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a validation pass ends: saves if the rule chooses it."""
        evaluations = _evaluations(trainer)
        if evaluations and _chosen(evaluations, pl_module, self.rule) is evaluations[-1]:
            save_checkpoint(trainer, self._path(evaluations[-1].step))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when the training ends: deletes the superseded file."""
        self._delete_superseded(trainer, pl_module)

    def _path(self, step: int) -> Path:
        return self.folder / f"{self.rule}-{step}.ckpt"

    def _delete_superseded(self, trainer: Trainer, module: LightningModule) -> None:
        evaluations = _evaluations(trainer)
        if evaluations:
            chosen = self._path(_chosen(evaluations, module, self.rule).step)
            for path in self.folder.glob(f"{self.rule}-*.ckpt"):
                if path != chosen and chosen.exists():
                    trainer.strategy.remove_checkpoint(path)


def _chosen(
    evaluations: list[ValidationPass], module: LightningModule, rule: str
) -> ValidationPass:
    metric = metric_of(getattr(module, "task", None))
    return select(evaluations, higher_is_better=metric.higher_is_better)[rule]


def _callbacks(trainer: Trainer) -> list[Callback]:
    return cast(Any, trainer).callbacks


def _evaluations(trainer: Trainer) -> list[ValidationPass]:
    """Those of the training so far; none outside a training."""
    if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
        return []
    return next(c for c in _callbacks(trainer) if isinstance(c, ValidationHistory)).evaluations
