"""The search: propose a point, score it, accept it or not, and end at the best one.

Plain PyTorch: it moves a list of tensors in place and asks a callable for the loss and the
cosines where they stand. Nothing of a candidate is stored but its seed.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Generator, Tensor

from gga_lightning.proposals import Proposal

__all__ = ["Acceptance", "Greedy", "Objective", "Score", "SearchResult", "annealing_search"]

Objective = Literal["min", "mean"]


class Score(NamedTuple):
    """What the search knows of a point.

    Attributes:
        loss: The loss of the whole batch.
        min_cosine: The lowest cosine over the pairs of domains, in [-1, 1].
        mean_cosine: The mean cosine over the pairs, in [-1, 1].
        objective: Whichever of the two the search raises.
    """

    loss: float
    min_cosine: float
    mean_cosine: float
    objective: float

    @property
    def finite(self) -> bool:
        """Whether the loss and the objective are numbers; a point that is not is never taken."""
        return math.isfinite(self.loss) and math.isfinite(self.objective)


class Acceptance(Protocol):
    """Decides whether a candidate is accepted. Called only with finite candidates."""

    def __call__(self, candidate: Score, accepted: Score, start: Score) -> bool:
        """Decides on one candidate.

        Args:
            candidate: The point to decide on.
            accepted: The last accepted point, at first the start.
            start: Where the search began.

        Returns:
            Whether to accept the candidate.
        """
        ...


@dataclass(frozen=True)
class Greedy:
    """Accepts what raises the objective and does not raise the loss by more than a tolerance.

    Attributes:
        loss_tolerance: A candidate's loss must be less than the reference's plus this.
        reference: ``"best"``, as in the paper's code: the last accepted point, so that the loss
            may creep up by a tolerance an accept, without end. ``"start"``: the search's start,
            so that the tolerance holds for the whole search.

    Source: Ballas & Diou, CVPR 2025, the authors' code (``update_simulated_annealing``), with
    0.1 fixed there.

    Raises:
        ValueError: If ``loss_tolerance`` is NaN or ``reference`` is neither of the two.
    """

    loss_tolerance: float = 0.1
    reference: Literal["best", "start"] = "best"

    def __post_init__(self) -> None:
        if math.isnan(self.loss_tolerance):
            raise ValueError(f"`loss_tolerance` must be a number, got {self.loss_tolerance}.")
        if self.reference not in ("best", "start"):
            raise ValueError(f"`reference` must be 'best' or 'start', got {self.reference!r}.")

    def __call__(self, candidate: Score, accepted: Score, start: Score) -> bool:
        """Decides on one candidate; see :class:`Acceptance`."""
        reference = accepted if self.reference == "best" else start
        return (
            candidate.objective > accepted.objective
            and candidate.loss - reference.loss < self.loss_tolerance
        )


@dataclass(frozen=True)
class SearchResult:
    """How a search went.

    Attributes:
        start: The score where it began.
        end: The score where the parameters are now: the best accepted point, or the start.
        scores: The score of every candidate, in order; empty if the start was not finite.
        accepted: The indices of the accepted candidates.
    """

    start: Score
    end: Score
    scores: list[Score] = field(repr=False)
    accepted: list[int]

    @property
    def gain(self) -> float:
        """By how much the objective rose; not negative."""
        return self.end.objective - self.start.objective

    @property
    def loss_change(self) -> float:
        """By how much the loss changed on the search's own batch."""
        return self.end.loss - self.start.loss


def annealing_search(
    params: Iterable[Tensor],
    evaluate: Callable[[], tuple[Tensor, Tensor]],
    *,
    proposal: Proposal,
    num_candidates: int,
    objective: Objective = "min",
    acceptance: Acceptance | None = None,
    generator: Generator | None = None,
    on_candidate: Callable[[int, Score], None] | None = None,
) -> SearchResult:
    """Moves parameters to the best point found nearby, in place.

    With ``Walk(radius)``, ``Greedy(0.1)``, ``objective="min"`` and 250 candidates it takes the
    decisions of the paper's code. Whatever ends it, an exception or Ctrl-C too, the parameters
    are left at the best point accepted so far, or bit for bit where they began.

    Args:
        params: The tensors to move, of real floating-point numbers.
        evaluate: Takes nothing; returns the loss (a scalar tensor) and the domains' cosine matrix
            (shape ``(D, D)``, D at least 2) at the parameters' present values. It must not move
            them.
        proposal: Where the next candidate lies.
        num_candidates: How many are tried; at least 0.
        objective: Which of the pairwise cosines to raise: the lowest or their mean.
        acceptance: Decides on each candidate; ``Greedy()`` if None.
        generator: A CPU generator for the candidates' seeds; the global one if None.
        on_candidate: Called after each candidate with its index and the best score so far.

    Returns:
        The scores and which candidates were accepted. Nothing is tried if the start's loss or
        objective is not finite.

    Raises:
        ValueError: If an argument is out of range.
    """
    params = list(params)
    acceptance = Greedy() if acceptance is None else acceptance
    _check(params, num_candidates, objective)

    start = best = accepted = _score(*evaluate(), objective)
    scores: list[Score] = []
    accepted_indices: list[int] = []
    if not start.finite:
        return SearchResult(start, start, scores, accepted_indices)
    position = _Position(params, proposal, generator)
    try:
        for index in range(num_candidates):
            position.move()
            candidate = _score(*evaluate(), objective)
            scores.append(candidate)
            if candidate.finite and acceptance(candidate, accepted, start):
                accepted = candidate
                accepted_indices.append(index)
                better = candidate.objective > best.objective
                best = candidate if better else best
                position.accept(best=better)
            if on_candidate is not None:
                on_candidate(index, best)
    finally:
        try:
            position.settle()
        except BaseException:  # Ctrl-C while settling
            position.settle()
            raise
    return SearchResult(start, best, scores, accepted_indices)


def check_objective(objective: str) -> None:
    """Checks the name of an objective.

    Args:
        objective: The name.

    Raises:
        ValueError: If it is not one.
    """
    if objective not in get_args(Objective):
        raise ValueError(f"`objective` must be 'min' or 'mean', got {objective!r}.")


def _check(params: list[Tensor], num_candidates: int, objective: str) -> None:
    if not params or not all(param.is_floating_point() for param in params):
        raise ValueError(
            "`params` must be one or more tensors of real floating-point numbers, "
            f"got {[str(param.dtype) for param in params]}."
        )
    if num_candidates < 0:
        raise ValueError(f"`num_candidates` must not be negative, got {num_candidates}.")
    check_objective(objective)


def _score(loss: Tensor, cosines: Tensor, objective: Objective) -> Score:
    """Brings a point's figures to the host, in one transfer."""
    value, *flat = torch.cat([loss.detach().reshape(1).to(cosines), cosines.flatten()]).tolist()
    size = len(cosines)
    pairs = [flat[i * size + j] for i, j in itertools.combinations(range(size), 2)]
    mean = math.fsum(pairs) / len(pairs)
    low = mean if math.isnan(mean) else min(pairs)
    return Score(value, low, mean, low if objective == "min" else mean)


class _Position:
    """Where the parameters are: a stored start and the seeds of the moves made since.

    Adding the same noise in the same order to the same start gives the same bits, so a point is
    its list of seeds, and the best one is reached again at the end. Only a proposal around the
    accepted point keeps a second copy.
    """

    def __init__(
        self, params: list[Tensor], proposal: Proposal, generator: Generator | None
    ) -> None:
        self._params = params
        self._proposal = proposal
        self._seeds = generator
        self._radii = proposal.radii(params)
        self._noise = {device: Generator(device) for device in {p.device for p in params}}
        self._start = [param.detach().clone() for param in params]
        self._accepted = self._start
        self._path: list[int] = []
        self._accepted_path: list[int] = []
        self._best_path: list[int] = []

    @torch.no_grad()
    def move(self) -> None:
        """Goes to the next candidate."""
        if self._proposal.origin == "start":
            self._return_to(self._start, [])
        elif self._proposal.origin == "accepted":
            self._return_to(self._accepted, self._accepted_path)
        seed = int(torch.randint(2**62, (), generator=self._seeds))
        self._path.append(seed)
        self._add(seed)

    @torch.no_grad()
    def accept(self, *, best: bool) -> None:
        """Takes note that the present point is accepted, and whether it is the best so far."""
        self._accepted_path = list(self._path)
        if best:
            self._best_path = self._accepted_path
        if self._proposal.origin == "accepted":
            self._accepted = [param.detach().clone() for param in self._params]
        elif self._proposal.origin == "last":
            self._return_to(self._start, [])

    @torch.no_grad()
    def settle(self) -> None:
        """Ends at the best accepted point, or at the start."""
        self._return_to(self._start, [])
        for seed in self._best_path:
            self._add(seed)

    def _return_to(self, point: list[Tensor], path: list[int]) -> None:
        for param, value in zip(self._params, point, strict=True):
            param.copy_(value)
        self._path = list(path)

    def _add(self, seed: int) -> None:
        for generator in self._noise.values():
            generator.manual_seed(seed)
        for param, radius in zip(self._params, self._radii, strict=True):
            noise = self._proposal.noise(param, radius, self._noise[param.device])
            param.add_(noise)
