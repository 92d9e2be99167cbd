"""Gradient-Guided Annealing (GGA) as a callback."""

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from gga_lightning.alignment import (
    Acceptance,
    Greedy,
    Guided,
    Objective,
    Proposal,
    SearchResult,
    Walk,
    annealing_search,
)
from gga_lightning.callbacks._base import DomainGradientCallback, say
from gga_lightning.callbacks._moves import PendingTransfer, copies, named_trainable, scramble
from gga_lightning.callbacks._progress import SearchProgress
from gga_lightning.callbacks._reader import StepStart
from gga_lightning.callbacks._records import SearchRecord, closing_lines, entry_line, next_proposal
from gga_lightning.callbacks._resolution import Resolution, measure_resolution, resolution_lines
from gga_lightning.callbacks._setup import ParameterChoice, check_integer, check_moved, check_search
from gga_lightning.probing import DomainLoss, Split
from gga_lightning.probing.probe import Probe

__all__ = ["GradientGuidedAnnealing", "SearchRecord"]

_WORTH_RECORDING = 10  # candidates; a recording costs about three evaluations


class GradientGuidedAnnealing(DomainGradientCallback):
    """Searches for nearby weights where the domains agree, in an early window of training (GGA).

    Before each training step of the window, the callback computes the gradient of every source
    domain's loss on the step's batch. It tries points near the current parameters. It moves to
    the point with the highest minimum cosine similarity between the domains' gradients, among
    those whose loss is within a tolerance. The ordinary training step follows from there, on the
    same batch. The optimizer's state is unchanged.

    The defaults are those of the paper's code (not of its Algorithm 1): see :class:`Walk` and
    :class:`Greedy`. The callback differs from that code as follows:

    * The batch's loss is the size-weighted mean of the domain losses, instead of one more
      forward pass on the joined batch. The two are equal, except with layers that mix samples
      (BatchNorm in training mode).
    * All candidates of a step see the same dropout masks. The paper's code draws new masks at each
      forward pass, and part of its gains is luck with masks. ``fixed_dropout=False`` reproduces it.
    * Evaluations run on a copy of the module. BatchNorm's running statistics and everything else
      are unchanged (docs/guarantees.md).
    * Everything is computed in full float32, also under mixed precision, unless
      ``precision="trainer"``. In TF32, PyTorch's default for convolutions on NVIDIA GPUs, rounding
      errors are larger than the changes of the cosine at the published radius.

    At the first and last step of the window, float64 copies show how large rounding errors are
    (``gga/resolution``) compared with true changes of the objective (``gga/true_change``). Guided
    steps in float32 are not measured, because their changes are far larger.

    On a GPU, CUDA graphs evaluate random candidates. If a module does not allow this, it is
    evaluated as usual, and a log line says why. Set ``cuda_graphs`` to False to turn graphs off.

    Logged at each searched step: ``gga/min_cosine_start``, ``gga/min_cosine_end``, ``gga/gain``,
    ``gga/accepted``, ``gga/loss_change``, ``gga/seconds``, and with ``measure_transfer=True``
    ``gga/transfer`` a step later. All searched steps are kept in :attr:`records`, measurements of
    rounding errors in :attr:`resolutions`; checkpoints hold both.

    Source: Ballas & Diou, "Gradient-Guided Annealing for Domain Generalization", CVPR 2025,
    arXiv 2502.20162.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from gga_lightning import GradientGuidedAnnealing, Guided
        >>> gga = GradientGuidedAnnealing(0, 100, proposal=Guided(0.01, relative=True))
        >>> trainer = Trainer(max_steps=5000, callbacks=[gga], logger=False)
        >>> [gga.should_search(step) for step in (0, 99, 100)]
        [True, True, False]
    """

    label = "GGA"
    cuda_graphs = True
    controls = ("scramble", "shuffle_domains")

    def __init__(
        self,
        start_step: int = 100,
        end_step: int = 201,
        *,
        proposal: Proposal = Walk(radius=1e-5),
        num_candidates: int = 250,
        radius_schedule: Literal["constant", "linear"] = "constant",
        objective: Objective = "min",
        acceptance: Acceptance = Greedy(loss_tolerance=0.1),
        patience: int | None = None,
        control: Literal["scramble", "shuffle_domains"] | None = None,
        fixed_dropout: bool = True,
        measure_transfer: bool = False,
        every_n_steps: int = 1,
        precision: Literal["float32", "trainer"] = "float32",
        parameters: ParameterChoice | None = None,
        domain_loss: DomainLoss | None = None,
        split: Split | None = None,
        seed: int = 0,
    ) -> None:
        """Configures the search.

        Args:
            start_step: The first optimizer step searched, counted from 0.
            end_step: The step before which the window ends. The paper's 100 to 200, both
                included, is 100 and 201 here.
            proposal: Chooses the next candidate.
            num_candidates: The maximum number of candidates a step.
            radius_schedule: ``"linear"`` lets the radius fall to 0 over the window.
            objective: Which of the pairwise cosines to raise, the lowest or their mean.
            acceptance: Which candidates are accepted.
            patience: End a step's search after this many rejected candidates in a row, if given.
            control: None, or the kind of control run. ``"scramble"`` makes the move that the search
                found, with the sign of every coordinate drawn at random. ``"shuffle_domains"``
                searches with samples that are assigned to domains at random. If a control gives
                the same accuracy, agreement between domains is not what helped.
            fixed_dropout: Whether all candidates of a step see the same dropout masks (and
                whatever else the module draws at random).
            measure_transfer: Whether to score each step's move also on the next batch, since a gain
                may be luck with one batch. Costs two candidates a step and two parameter copies.
            every_n_steps: Search only at every n-th step of the window.
            precision: ``"float32"``, or ``"trainer"`` for the settings of the Trainer and PyTorch,
                such as bfloat16 or TF32; docs/resolution.md says when these are precise enough.
            parameters: Which parameters are moved: a regular expression for the start of their
                names, or a callable ``(name, parameter) -> bool``. Default: those of the module's
                ``featurizer`` if it has one, as in the paper's code, else all. Gradients are
                taken for all trainable parameters in any case.
            domain_loss: A callable ``(module, domain_batch) -> loss``. Default: the module's
                ``domain_loss(domain_batch)``, else its ``training_step`` on the domain's part.
            split: Where the batch has its domain labels (a key or an index), or a callable that
                turns it into a mapping of domain names to domain batches. Default: see
                :class:`gga_lightning.probing.Splitter`.
            seed: Seed of the noise, which is a function of it and the step. Must be the same on
                all ranks.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(
            start_step=start_step,
            end_step=end_step,
            every_n_steps=every_n_steps,
            control=control,
            parameters=parameters,
            domain_loss=domain_loss,
            split=split,
            seed=seed,
        )
        check_integer("end_step", end_step, 1)  # this window has an end
        self.precision = precision
        self.full_precision = precision == "float32"
        self.proposal = proposal
        self.num_candidates = num_candidates
        self.radius_schedule = radius_schedule
        self.objective: Objective = objective
        self.acceptance = acceptance
        self.patience = patience
        self.fixed_dropout = fixed_dropout
        self.measure_transfer = measure_transfer
        check_search(self)
        self.records: list[SearchRecord] = []
        self.resolutions: list[Resolution] = []
        self._pending: PendingTransfer | None = None
        self._same_samples = 0  # how often the next batch held the samples of the search's own
        self._progress = SearchProgress()

    @property
    def state_key(self) -> str:
        """Tells two searches with different windows apart in a checkpoint."""
        return self._generate_state_key(start_step=self.start_step, end_step=self.end_step)

    def should_search(self, step: int) -> bool:
        """Decides whether to search before a step. Override it for another schedule.

        Args:
            step: The optimizer step, counted from 0.

        Returns:
            Whether to search; must be the same on all ranks.
        """
        return super()._acts_at(step)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when fit begins: checks the parameters to move."""
        super().on_fit_start(trainer, pl_module)
        check_moved(self, self._chosen(pl_module), self.proposal)

    def _leave(self) -> None:
        self._progress.close()

    def _acts_at(self, step: int) -> bool:
        return self.should_search(step)

    def _has_own_schedule(self) -> bool:
        return type(self).should_search is not GradientGuidedAnnealing.should_search

    def _restart(self, step: int) -> None:
        self.records = [record for record in self.records if record.step < step]
        self.resolutions = [found for found in self.resolutions if found.step < step]
        self._pending, self._same_samples = None, 0

    def _default(self, named: list[tuple[str, nn.Parameter]]) -> list[nn.Parameter]:
        featurizer = [param for name, param in named if name.startswith("featurizer.")]
        return featurizer or super()._default(named)

    def _redraws_randomness(self) -> bool:
        return not self.fixed_dropout

    def _prepare(self, start: StepStart) -> None:
        if self._pending is not None:
            self._measure(self._pending, start)

    def _measure(self, pending: PendingTransfer, start: StepStart) -> None:
        """Scores the last search's move on this batch, which that search did not see."""
        self._pending = None
        transfer = 0.0  # of a step that did not move
        if pending.moved:
            with self._open(start) as probe:
                if probe is None:
                    return
                if probe.samples() == pending.samples:
                    self._same_samples += 1
                    return
                transfer = pending.gain(named_trainable(start.module), probe, self.objective)
            if not math.isfinite(transfer):
                return
        for index, record in enumerate(self.records):
            if record.step == pending.step:
                self.records[index] = record._replace(transfer=transfer)
        self._report(start, {"gga/transfer": transfer})

    def _act(self, start: StepStart) -> None:
        """Searches, and keeps a record."""
        params = self._chosen(start.module)
        self._measure_resolution(start, params)
        began = time.monotonic()
        before = {}
        if self.measure_transfer or self.control == "scramble":
            before = copies(named_trainable(start.module))
        with self._open(start) as probe:
            if probe is None:
                return
            samples = probe.samples() if self.measure_transfer else 0
            result = self._search(start, probe, params)
            if self.control == "scramble" and result.accepted:
                scramble(start.module, params, before, self._generator(start.step, use="scramble"))
                end = probe.score(self.objective)
                assert end is not None
                result = dataclasses.replace(result, end=end)
        if not result.start.finite:
            self._skipped += 1
            self._reader.warn_of_not_finite(start.step)
            return
        if start.trainer.world_size > 1 and result.accepted:
            for param in params:  # the ranks agree already; this holds on unlike devices too
                torch.distributed.broadcast(param.data, src=0)
        if self.measure_transfer:
            after = copies(named_trainable(start.module)) if result.accepted else {}
            self._pending = PendingTransfer(start.step, samples, before if after else {}, after)
        self._record(start, result, time.monotonic() - began)

    def _measure_resolution(self, start: StepStart, params: list[nn.Parameter]) -> None:
        """Measures rounding errors at the first and the last step of the window."""
        if isinstance(self.proposal, Guided) and self.full_precision:
            return  # its gains are thousands of times as large, and its few candidates cost less
        if self.resolutions and self._steps_left(start.trainer, start.step) != 1:
            return
        found = measure_resolution(
            self._reader,
            start,
            self._compared(start.module),
            params,
            proposal=self._proposal_at(start.step),
            objective=self.objective,
            draw=self._generator(start.step, use="resolution"),
            shuffle=self._shuffle(start),
        )
        self.resolutions.append(found)
        if found.change is not None and found.error is not None:
            self._report(start, {"gga/resolution": found.error, "gga/true_change": found.change})

    def _search(self, start: StepStart, probe: Probe, params: list[nn.Parameter]) -> SearchResult:
        """Searches, and moves the parameters to where the domains agree best."""
        left = self._steps_left(start.trainer, start.step)
        enough = not isinstance(self.proposal, Guided) and self.num_candidates >= _WORTH_RECORDING
        with (
            self._progress.step(start.trainer, start.step, self.num_candidates, left),
            self._reader.replayed(start, probe, self.cuda_graphs and enough) as refusal,
        ):
            if refusal:
                say(start.trainer, f"{self.label}: evaluates without CUDA graphs: {refusal}.")
            return annealing_search(
                params,
                probe,
                proposal=self._proposal_at(start.step),
                num_candidates=self.num_candidates,
                objective=self.objective,
                acceptance=self.acceptance,
                generator=self._generator(start.step),
                patience=self.patience,
                on_candidate=self._progress.update,
            )

    def _proposal_at(self, step: int) -> Proposal:
        left = 1.0
        if self.radius_schedule == "linear":
            assert self.end_step is not None
            left = (self.end_step - step) / (self.end_step - self.start_step)
        return next_proposal(self.proposal, self.records, min(max(left, 0.0), 1.0))

    def _record(self, start: StepStart, result: SearchResult, seconds: float) -> None:
        self.records.append(SearchRecord.of(start.step, result, seconds))
        values = self.records[-1]._asdict()
        del values["step"], values["candidates"], values["transfer"], values["share"]
        self._report(start, {f"gga/{name}": value for name, value in values.items()})

    def _entry(self, domains: str, start: StepStart) -> str:
        moved = sum(param.numel() for param in self._chosen(start.module))
        return entry_line(start.step, self.end_step, domains, self.num_candidates, moved)

    def _closing(self, step: int) -> Iterator[str]:
        window = f"steps {self.start_step} to {(self.end_step or 0) - 1}; training is at {step}"
        yield from closing_lines(
            self.records, self._skipped, self._same_samples, self.objective, window
        )
        yield from resolution_lines(self.resolutions, self.records, self.objective)

    def _state(self) -> dict[str, Any]:
        return {
            "records": [tuple(record) for record in self.records],
            "pending": None if self._pending is None else tuple(self._pending),
            "same_samples": self._same_samples,
            "resolutions": [tuple(found) for found in self.resolutions],
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self.records = [SearchRecord(*record) for record in state["records"]]
        pending = state["pending"]
        self._pending = None if pending is None else PendingTransfer(*pending)
        self._same_samples = state["same_samples"]
        self.resolutions = [Resolution(*found) for found in state["resolutions"]]
