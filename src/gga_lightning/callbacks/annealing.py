"""Gradient-Guided Annealing (GGA) as a callback."""

import dataclasses
import math
import time
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gga_lightning.callbacks._base import (
    DomainGradientCallback,
    ParameterChoice,
    check_integer,
    check_window,
    say,
)
from gga_lightning.callbacks._progress import SearchProgress
from gga_lightning.callbacks._records import SearchRecord, closing_lines
from gga_lightning.callbacks._transfer import Move
from gga_lightning.domains import Split
from gga_lightning.probing import DomainLoss, Probe
from gga_lightning.proposals import Guided, Proposal, Walk
from gga_lightning.score import Objective, check_objective
from gga_lightning.search import Acceptance, Greedy, SearchResult, annealing_search

__all__ = ["GradientGuidedAnnealing", "SearchRecord"]


class GradientGuidedAnnealing(DomainGradientCallback):
    """Searches, in an early window of training, for nearby weights where the domains agree.

    At each step of the window, before the training step, the callback computes every source
    domain's loss gradient on the step's batch, tries points near the present parameters, and
    moves to the one with the highest minimum cosine similarity between the domains' gradients
    whose loss is no worse than a tolerance. The ordinary training step follows from there, on
    the same batch. The optimizer's state (Adam's moments) stays as it is.

    The defaults are those of the paper's code (not of its Algorithm 1): see :class:`Walk` and
    :class:`Greedy`. Where we differ from that code, and why:

    * The batch's loss is the size-weighted mean of the domain losses, instead of one more
      forward pass on the joined batch. That is the same number, but for layers that mix samples
      (BatchNorm in training mode).
    * All candidates of a step see the same dropout masks. The paper's code draws new ones at each
      forward pass; a part of its gains is luck with masks. ``fixed_dropout=False`` does as it.
    * BatchNorm's running statistics, and all else that evaluations change, are put back.
    * Everything is computed in full float32, also under mixed precision.

    Logged at each searched step: ``gga/min_cosine_start``, ``gga/min_cosine_end``, ``gga/gain``,
    ``gga/accepted``, ``gga/loss_change``, ``gga/seconds``, and with ``measure_transfer=True``
    ``gga/transfer`` a step later. All searched steps are kept in :attr:`records`, which
    checkpoints hold too.

    Source: Ballas & Diou, "Gradient-Guided Annealing for Domain Generalization", CVPR 2025,
    arXiv 2502.20162.

    Example::

        trainer = Trainer(callbacks=[GradientGuidedAnnealing()])
    """

    full_precision = True
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
        parameters: ParameterChoice | None = None,
        domain_loss: DomainLoss | None = None,
        split: Split | None = None,
        seed: int = 0,
    ) -> None:
        """Sets the search.

        Args:
            start_step: The first optimizer step searched, counted from 0.
            end_step: The step before which the window ends. The paper's 100 to 200, both
                included, is 100 and 201 here.
            proposal: Where the next candidate lies.
            num_candidates: How many candidates a step tries at most.
            radius_schedule: ``"linear"`` lets the radius fall to 0 over the window.
            objective: Which of the pairwise cosines to raise, the lowest or their mean.
            acceptance: Which candidates are accepted.
            patience: End a step's search after so many candidates in a row of which none was
                accepted; None to try them all.
            control: None, or what turns the run into a control. ``"scramble"``: the move that the
                search found, with the sign of every coordinate drawn at random: as long, but
                blind. ``"shuffle_domains"``: in the search each sample counts as of a domain
                drawn at random. Where a control does as well, agreement is not what helped.
            fixed_dropout: Whether all candidates of a step see the same dropout masks (and
                whatever else the module draws at random).
            measure_transfer: Whether to score each step's move on the next batch too, which the
                search never saw, for two candidates' time a step and two copies of the
                parameters. The gain on the search's own batch is in part luck with it.
            every_n_steps: Search only every so many steps of the window.
            parameters: Which parameters are moved: a regular expression for the start of their
                names, or a callable ``(name, parameter) -> bool``. Default: those of the module's
                ``featurizer`` if it has one, as in the paper's code, else all. Gradients are
                taken for all trainable parameters in any case.
            domain_loss: A callable ``(module, domain_batch) -> loss``. Default: the module's
                ``domain_loss(domain_batch)``, else its ``training_step`` on the domain's part of
                the batch.
            split: Where the batch has its domain labels (a key or an index), or a callable that
                turns it into a mapping of domain names to domain batches. Default: see
                :func:`gga_lightning.domains.split_batch`.
            seed: Seed of the noise, which is a function of it and the step. Must be the same on
                all ranks.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(
            control=control, parameters=parameters, domain_loss=domain_loss, split=split, seed=seed
        )
        check_window(start_step, end_step)
        check_integer("num_candidates", num_candidates, 1)
        check_integer("every_n_steps", every_n_steps, 1)
        if not isinstance(proposal, Proposal):
            raise ValueError(
                f"`proposal` must be a Proposal, such as Walk(1e-5), got {proposal!r}."
            )
        if isinstance(proposal, Guided) and not fixed_dropout:
            raise ValueError(
                "`fixed_dropout` must be True with a Guided proposal, which takes differences of "
                "gradients that new dropout masks would drown, got False."
            )
        if not isinstance(acceptance, Acceptance):
            raise ValueError(
                f"`acceptance` must be an acceptance, such as Greedy(0.1), got {acceptance!r}."
            )
        if radius_schedule not in ("constant", "linear"):
            raise ValueError(
                f"`radius_schedule` must be 'constant' or 'linear', got {radius_schedule!r}."
            )
        check_objective(objective)
        if patience is not None:
            check_integer("patience", patience, 1)
        self.start_step = start_step
        self.end_step = end_step
        self.proposal = proposal
        self.num_candidates = num_candidates
        self.radius_schedule = radius_schedule
        self.objective: Objective = objective
        self.acceptance = acceptance
        self.patience = patience
        self.fixed_dropout = fixed_dropout
        self.measure_transfer = measure_transfer
        self.every_n_steps = every_n_steps
        self.records: list[SearchRecord] = []
        self._last_step = -1
        self._skipped = 0
        self._pending: Move | None = None
        self._entered = False
        self._summed_up = False
        self._progress = SearchProgress()

    @property
    def state_key(self) -> str:
        """Tells two searches with different windows apart in a checkpoint."""
        return self._generate_state_key(start_step=self.start_step, end_step=self.end_step)

    def should_search(self, step: int) -> bool:
        """Decides whether a step is searched. Override it for another schedule.

        Args:
            step: The optimizer step (``trainer.global_step``), counted from 0.

        Returns:
            Whether to search before this step; must be the same on all ranks.
        """
        inside = self.start_step <= step < self.end_step
        return inside and (step - self.start_step) % self.every_n_steps == 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called when fit begins: checks the combination, forgets an earlier training."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.records = [r for r in self.records if r.step < trainer.global_step]
            self._last_step = self.records[-1].step if self.records else -1
            self._skipped = 0
            self._pending = None
            self._entered = self._summed_up = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when fit begins: checks the parameters to move."""
        super().on_fit_start(trainer, pl_module)
        chosen = self._chosen(pl_module)
        if not all(param.is_floating_point() for param in chosen):
            raise MisconfigurationException(
                f"{type(self).__name__} moves real parameters, but `parameters="
                f"{self.parameters!r}` selects complex ones. Select others."
            )
        half = {p.dtype for p in chosen if p.dtype in (torch.float16, torch.bfloat16)}
        if half:
            rank_zero_warn(
                f"{type(self).__name__}: the parameters are {half.pop()}, in which small moves "
                f"are rounded away ({self.proposal} at most). Use mixed precision instead, which "
                "keeps them in float32."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when training begins: warns if the window cannot be reached."""
        own_schedule = type(self).should_search is not GradientGuidedAnnealing.should_search
        if own_schedule or getattr(trainer, "fast_dev_run", False):
            return
        if trainer.global_step >= self.end_step:
            rank_zero_warn(
                f"{type(self).__name__}: training goes on at step {trainer.global_step}, after "
                f"the window (steps {self.start_step} to {self.end_step - 1}); nothing is searched."
            )
        elif 0 <= trainer.max_steps <= self.start_step or (
            _planned_steps(trainer) <= self.start_step
        ):
            rank_zero_warn(
                f"{type(self).__name__}: training ends before the window, whose first step is "
                f"`start_step={self.start_step}`; nothing is searched. Lower `start_step` or "
                "train longer."
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Called when a training batch begins: searches, if the step is in the window.

        With gradient accumulation a step is searched once, at its first batch.
        """
        step = trainer.global_step
        if self._pending is not None:
            self._measure(self._pending, trainer, pl_module, batch, batch_idx)
        if step != self._last_step and self.should_search(step):
            self._last_step = step
            self._search(trainer, pl_module, batch, batch_idx)
            return
        self._try_once(trainer, pl_module, batch, batch_idx)
        if step >= self.end_step:
            self._sum_up(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when training ends: sums up a window that was not left before."""
        self._sum_up(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Called when a checkpoint is saved."""
        return {
            "last_step": self._last_step,
            "skipped": self._skipped,
            "records": [tuple(record) for record in self.records],
            "pending": None if self._pending is None else tuple(self._pending),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a checkpoint is loaded."""
        self._last_step = state_dict["last_step"]
        self._skipped = state_dict["skipped"]
        self.records = [SearchRecord(*record) for record in state_dict["records"]]
        pending = state_dict["pending"]
        self._pending = None if pending is None else Move(*pending)

    def _default(self, named: list[tuple[str, nn.Parameter]]) -> list[nn.Parameter]:
        featurizer = [param for name, param in named if name.startswith("featurizer.")]
        return featurizer or super()._default(named)

    def _redraws_randomness(self) -> bool:
        return not self.fixed_dropout

    def _search(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step, began = trainer.global_step, time.monotonic()
        self._tried = True
        params = self._chosen(pl_module)
        before: dict[nn.Parameter, Tensor] = {}
        if self.measure_transfer or self.control == "scramble":
            before = {param: param.detach().clone() for param in self._compared(pl_module)}
        with self._open(trainer, pl_module, batch, batch_idx) as opened:
            if opened is None:
                self._skipped += 1
                return
            self._enter(trainer, opened, params)
            result = self._find(trainer, opened, params)
            if self.control == "scramble" and result.accepted:
                self._scramble(params, before, self._generator(step, use="scramble"))
                end = opened.score(self.objective)
                assert end is not None
                result = dataclasses.replace(result, end=end)
        if not result.start.finite:
            self._skipped += 1
            self._warn_once(
                "not finite",
                f"{type(self).__name__}: the loss or a gradient is not finite at step {step} "
                "(or `training_step` returned None); such steps are trained on as usual.",
            )
            return
        if trainer.world_size > 1 and result.accepted:
            for param in params:  # the ranks agree already; this holds on unlike devices too
                torch.distributed.broadcast(param.data, src=0)
        if self.measure_transfer:
            self._pending = Move(step)
            if result.accepted:
                after = before | {param: param.detach().clone() for param in params}
                self._pending = Move(step, list(before.values()), list(after.values()))
        self._record(trainer, pl_module, step, result, time.monotonic() - began)

    def _find(self, trainer: Trainer, opened: Probe, params: list[nn.Parameter]) -> SearchResult:
        """Searches, and moves the parameters to where the domains agree best."""
        step = trainer.global_step
        with self._progress.step(trainer, step, self.num_candidates):
            return annealing_search(
                params,
                opened,
                proposal=self._proposal_at(step),
                num_candidates=self.num_candidates,
                objective=self.objective,
                acceptance=self.acceptance,
                generator=self._generator(step),
                patience=self.patience,
                on_candidate=self._progress.update,
            )

    @torch.no_grad()
    def _scramble(
        self,
        params: list[nn.Parameter],
        before: dict[nn.Parameter, Tensor],
        generator: torch.Generator,
    ) -> None:
        """Draws the sign of every coordinate of the move anew."""
        for param in params:
            old = before[param]
            signs = torch.randint(2, param.shape, generator=generator).to(param) * 2 - 1
            param.copy_(old + (param - old) * signs)

    def _measure(
        self, move: Move, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Scores the last search's move on a batch that it never saw."""
        self._pending = None
        transfer = 0.0  # of a step that did not move
        if move.after:
            with self._open(trainer, pl_module, batch, batch_idx) as opened:
                if opened is None:
                    return
                transfer = move.gain(self._compared(pl_module), opened, self.objective)
            if not math.isfinite(transfer):
                return
        for index, record in enumerate(self.records):
            if record.step == move.step:
                self.records[index] = record._replace(transfer=transfer)
        self._report(trainer, pl_module, {"gga/transfer": transfer})

    def _proposal_at(self, step: int) -> Proposal:
        if self.radius_schedule == "constant":
            return self.proposal
        left = (self.end_step - step) / (self.end_step - self.start_step)
        return self.proposal.scaled(min(max(left, 0.0), 1.0))

    def _record(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        step: int,
        result: SearchResult,
        seconds: float,
    ) -> None:
        record = SearchRecord(
            step=step,
            min_cosine_start=result.start.min_cosine,
            min_cosine_end=result.end.min_cosine,
            gain=result.gain,
            candidates=len(result.scores),
            accepted=len(result.accepted),
            loss_change=result.loss_change,
            seconds=seconds,
        )
        self.records.append(record)
        values = record._asdict()
        del values["step"], values["candidates"], values["transfer"]
        self._report(trainer, pl_module, {f"gga/{name}": v for name, v in values.items()})

    def _enter(self, trainer: Trainer, opened: Probe, params: list[nn.Parameter]) -> None:
        if self._entered:
            return
        self._entered, self._summed_up = True, False
        moved = sum(param.numel() for param in params)
        controlled = f"; a control: {self.control!r}" if self.control else ""
        say(
            trainer,
            f"GGA: searching steps {trainer.global_step} to {self.end_step - 1} for agreement of "
            f"{len(opened.domains)} domains ({', '.join(opened.domains)}; by "
            f"{opened.batches.source}), at most {self.num_candidates} candidates a step, moving "
            f"{moved:,} parameters{controlled}.",
        )

    def _sum_up(self, trainer: Trainer) -> None:
        if self._summed_up or not (self.records or self._skipped):
            return
        self._summed_up = True
        for line in closing_lines(self.records, self._skipped, self.objective):
            say(trainer, line)


def _planned_steps(trainer: Trainer) -> float:
    try:
        planned = trainer.estimated_stepping_batches
    except MisconfigurationException:  # accumulation that changes with the epochs
        return math.inf
    return math.inf if planned < 0 else planned
