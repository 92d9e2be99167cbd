"""Reads the domains of training batches: finds them, checks the module, opens an evaluation."""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gga_lightning.alignment.graphs import CudaRecorder, Recorder
from gga_lightning.callbacks._setup import MORE_DOMAINS
from gga_lightning.probing import Domain, DomainLoss, Split, Splitter
from gga_lightning.probing.check import check_evaluation
from gga_lightning.probing.probe import Probe
from gga_lightning.probing.sandbox import Sandbox
from gga_lightning.probing.source import LossSource
from gga_lightning.probing.trees import in_double
from gga_lightning.probing.twin import Known

__all__ = ["DomainReader", "StepStart"]


@dataclass(frozen=True)
class StepStart:
    """A training batch that is about to be trained on.

    Attributes:
        trainer: The trainer.
        module: Its module.
        batch: The batch.
        batch_idx: Its index in the epoch.
        step: The optimizer step, counted from 0; see :class:`StepClock`.
    """

    trainer: Trainer
    module: LightningModule
    batch: Any
    batch_idx: int
    step: int


class DomainReader:
    """Opens the batches of one fit for evaluation.

    Attributes:
        checked: Whether :meth:`check` has seen a batch with several domains.
    """

    def __init__(
        self,
        name: str,
        *,
        domain_loss: DomainLoss | None,
        split: Split | None,
        full_precision: bool,
        redraw_randomness: bool,
    ) -> None:
        """Sets how to find and evaluate domains.

        Args:
            name: The callback's name, for warnings.
            domain_loss: See :class:`~gga_lightning.probing.source.LossSource`.
            split: See :class:`~gga_lightning.probing.domains.Splitter`.
            full_precision: See :class:`~gga_lightning.probing.sandbox.Sandbox`.
            redraw_randomness: See :class:`~gga_lightning.probing.sandbox.Sandbox`.
        """
        self.checked = False
        self._name = name
        self._domain_loss = domain_loss
        self._full_precision = full_precision
        self._redraw_randomness = redraw_randomness
        self._splitter = Splitter(split)
        self._known = Known()
        self._warned: set[str] = set()
        self._recorder: Recorder | None = None

    @property
    def source(self) -> str:
        """A description of where the domains were found."""
        return self._splitter.source

    @contextlib.contextmanager
    def open(
        self,
        start: StepStart,
        params: Sequence[Tensor],
        shuffle: torch.Generator | None,
        *,
        double: bool = False,
    ) -> Generator[Probe | None, None, None]:
        """Opens a batch for evaluation.

        Args:
            start: The batch.
            params: The parameters to take gradients for.
            shuffle: If given, assigns the samples to the domains at random.
            double: Whether to compute in float64, on copies of the present parameters.

        Yields:
            The domains to evaluate, or None (with a warning, once) if there are too few.
        """
        domains = self._domains(start, shuffle)
        if double:
            domains = [
                replace(d, batch=in_double(d.batch), step=in_double(d.step)) for d in domains
            ]
        scaler = getattr(start.trainer.precision_plugin, "scaler", None)
        if self._full_precision or double:
            scaler = None
        with Sandbox(
            start.trainer,
            start.module,
            self._known,
            full_precision=self._full_precision,
            redraw_randomness=self._redraw_randomness,
            double=double,
        ) as sandbox:
            probe = Probe(
                domains,
                sandbox,
                LossSource(start.module, self._domain_loss),
                sandbox.own(params),
                batch_idx=start.batch_idx,
                trainer=start.trainer,
                loss_scale=1.0 if scaler is None else scaler.get_scale(),
            )
            yield probe if self._is_usable(start.module, probe) else None

    @contextlib.contextmanager
    def replayed(
        self, start: StepStart, probe: Probe, wanted: bool
    ) -> Generator[str | None, None, None]:
        """Lets scores of a batch replay recordings on a GPU, if possible.

        Args:
            start: The batch.
            probe: The batch, opened.
            wanted: Whether recordings are wanted at all.

        Yields:
            The reason if it is not possible, once per fit; otherwise None.
        """
        if self._recorder is None and start.module.device.type == "cuda":
            self._recorder = CudaRecorder(start.module.device)
        if self._recorder is None or not wanted:
            yield None
            return
        known = self._recorder.refusal
        with probe.recorded(self._recorder):
            yield None if known else self._recorder.refusal

    def check(
        self, start: StepStart, params: Sequence[Tensor], shuffle: torch.Generator | None
    ) -> None:
        """Checks the evaluation of domains, if the batch has several; see :func:`check_evaluation`.

        Args:
            start: The batch.
            params: The parameters to take gradients for.
            shuffle: If given, assigns the samples to the domains at random.

        Raises:
            MisconfigurationException: If no domains can be found, or their evaluation fails or
                changes anything.
        """
        domains = self._domains(start, shuffle)
        alone = start.trainer.world_size == 1
        if alone and len(domains) < 2:
            self._warn_of_few([domain.name for domain in domains])
        if len(domains) < (2 if alone else 1):
            return  # a later batch may have more
        largest = max(domains, key=lambda domain: domain.size)
        try:
            check_evaluation(
                start.trainer,
                start.module,
                LossSource(start.module, self._domain_loss),
                largest,
                params,
                others=[domain for domain in domains if domain is not largest],
                batch=start.batch,
                batch_idx=start.batch_idx,
                known=self._known,
                full_precision=self._full_precision,
            )
        except MisconfigurationException as error:
            if largest.size == 1 and "Expected more than 1" in str(error.__cause__):
                return  # BatchNorm wants more samples; a later batch may have them
            raise
        self.checked = True

    def warn_once(self, kind: str, message: str) -> None:
        """Warns, unless it has done so in this fit.

        Args:
            kind: The kind of the warning. One warning of each kind is printed.
            message: The warning, without the name.
        """
        if kind not in self._warned:
            self._warned.add(kind)
            rank_zero_warn(f"{self._name}: {message}")

    def warn_of_not_finite(self, step: int) -> None:
        """Warns, once, that a step cannot be searched.

        Args:
            step: The step.
        """
        self.warn_once(
            "not finite",
            f"the loss or a gradient is not finite at step {step} (or `training_step` returned "
            "None); such steps are trained on as usual.",
        )

    def _domains(self, start: StepStart, shuffle: torch.Generator | None) -> list[Domain]:
        try:
            return self._splitter(start.batch, shuffle)
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error

    def _is_usable(self, module: LightningModule, probe: Probe) -> bool:
        if probe.left_out:
            self.warn_once(
                "single sample",
                f"the domain {probe.left_out[0]!r} has a single sample in a batch, which the "
                "module's normalization layers refuse; such a domain is left out.",
            )
        if len(probe.domains) < 2:
            self._warn_of_few(probe.domains)
            return False
        if probe.missing:
            rank, missing = next(iter(probe.missing.items()))
            synced = any(isinstance(m, nn.SyncBatchNorm) for m in module.modules())
            doing = (
                "such batches are trained on as usual, since SyncBatchNorm needs every rank"
                if synced
                else "its gradient comes from the other ranks alone there"
            )
            self.warn_once(
                "missing domains",
                f"rank {rank} has no sample of {', '.join(map(repr, missing))} in its part of a "
                f"batch; {doing}.",
            )
            return not synced
        return True

    def _warn_of_few(self, domains: Sequence[str]) -> None:
        found = f"only {domains[0]!r}" if domains else "none with samples"
        self.warn_once(
            "few domains",
            f"a batch shows fewer than two domains ({found}, by {self.source}); such batches are "
            "trained on as usual. If all batches are like this, there is nothing to compare: train "
            f"on {MORE_DOMAINS}.",
        )
