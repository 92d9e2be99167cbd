"""Checks, on the first batch of a fit, that evaluating a module leaves no trace."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from gga_lightning.probing.domains import Domain
from gga_lightning.probing.outline import describe
from gga_lightning.probing.record import Record
from gga_lightning.probing.sandbox import Sandbox
from gga_lightning.probing.source import LossSource
from gga_lightning.probing.twin import Known

__all__ = ["check_evaluation"]

_WAYS_OUT = (
    "Change the step so that it does not, or give `domain_loss=`, a callable (module, "
    "domain_batch) -> loss that computes the loss and nothing else."
)
_NAMED = 5  # changes that a message names at most


def check_evaluation(
    trainer: Trainer,
    pl_module: LightningModule,
    source: LossSource,
    domain: Domain,
    params: Sequence[Tensor],
    *,
    others: Sequence[Domain],
    batch: Any,
    batch_idx: int,
    known: Known,
    full_precision: bool,
) -> None:
    """Evaluates a domain twice in a sandbox, and compares everything.

    Args:
        trainer: The trainer at work.
        pl_module: Its module.
        source: What computes the domain's loss.
        domain: The domain.
        params: The parameters to take gradients for.
        others: The batch's other domains. Each is evaluated once if the module has large tensors
            or arrays, to find which of them the step changes.
        batch: The training batch that the domain is of.
        batch_idx: Its index.
        known: Filled with what the first evaluation shows.
        full_precision: See :class:`~gga_lightning.probing.sandbox.Sandbox`.

    Raises:
        MisconfigurationException: If an evaluation fails, if it changes anything that can be
            reached from the module, the batch or the optimizers, or if the two losses differ.
            The message names it.
        OutOfMemoryError: If there is not enough memory for it.
    """
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    record = Record(
        {
            "self": pl_module,
            "batch": batch,
            "self.optimizers()": trainer.optimizers,
            "self.lr_schedulers()": schedulers,
        }
    )
    losses: list[float] = []
    sandbox = Sandbox(trainer, pl_module, known, full_precision=full_precision, trial=True)
    for again in (False, True):
        try:
            with sandbox, sandbox.run(domain.name, source.input(domain)) as part:
                losses.append(_evaluate(sandbox, source, part, batch_idx, domain, params))
        except (MisconfigurationException, torch.OutOfMemoryError):
            raise
        except Exception as error:  # user code can raise anything
            _refuse(record.changes(), source, domain)
            raise MisconfigurationException(_failure(source, domain, error, again=again)) from error
        _refuse(record.changes(), source, domain)
    for other in others if sandbox.has_large else ():
        known_later = contextlib.suppress(Exception)  # the domain's own evaluation raises it again
        with known_later, sandbox, sandbox.run(other.name, source.input(other)) as part:
            _evaluate(sandbox, source, part, batch_idx, other, params)
        _refuse(record.changes(), source, other)
    sandbox.discard()
    if not _alike(*losses, exact=pl_module.device.type == "cpu"):
        raise MisconfigurationException(
            f"{source.name} gave the losses {losses[0]!r} and {losses[1]!r} in two evaluations of "
            f"domain {domain.name!r} at the same point, with the same batch and the same random "
            "numbers. So its loss depends on something that could not be restored, such as a "
            "global variable, the time, a file, or the state of an object that cannot be copied, "
            f"and points cannot be compared by it. {_WAYS_OUT}"
        )


def _refuse(changes: list[str], source: LossSource, domain: Domain) -> None:
    if changes:
        more = f" and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
        raise MisconfigurationException(
            f"Evaluating {source.name} on domain {domain.name!r} changed "
            f"{', '.join(f'`{name}`' for name in changes[:_NAMED])}{more}, although it ran on a "
            f"copy of the module and the batch. {_WAYS_OUT}"
        )


def _evaluate(
    sandbox: Sandbox,
    source: LossSource,
    part: Any,
    batch_idx: int,
    domain: Domain,
    params: Sequence[Tensor],
) -> float:
    loss = source(sandbox.module, part, batch_idx, domain.name)
    if loss is None:
        return math.nan
    torch.autograd.grad(loss, list(params), allow_unused=True)
    return loss.item()


def _alike(first: float, second: float, *, exact: bool) -> bool:
    if math.isnan(first) or math.isnan(second):
        return math.isnan(first) and math.isnan(second)
    return first == second if exact else math.isclose(first, second, rel_tol=1e-3)


def _failure(source: LossSource, domain: Domain, error: Exception, *, again: bool) -> str:
    given = describe(source.input(domain))
    when = "the second time, although it had worked the first time" if again else "alone"
    message = (
        f"{source.name} failed on domain {domain.name!r} {when}, on {given}: "
        f"{type(error).__name__}: {error} "
    )
    if again:
        return message + _WAYS_OUT
    if source.takes_step and domain.step is not domain.batch:
        message += (
            "(The batch's keys were taken for domains. Labelled and unlabelled data, for example, "
            "are none.) "
        )
    return message + (
        "Each domain's loss is computed from its own samples, before the training step. If the "
        "step needs more than that, give `domain_loss=`, a callable (module, domain_batch) -> "
        "loss, or `split=`, a callable that finds the domains in a batch."
    )
