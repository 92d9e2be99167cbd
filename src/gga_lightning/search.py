"""The search: propose a point, score it, accept it or not, and end at the best one.

Plain PyTorch: it moves a list of tensors in place and asks an evaluator for the loss and the
cosines where they stand.
"""

import math
import random
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from gga_lightning.ascent import agreement_ascent
from gga_lightning.evaluation import DomainEvaluator
from gga_lightning.gradients import pairwise
from gga_lightning.parallel import ParallelScorer
from gga_lightning.proposals import Candidates, Place, Proposal
from gga_lightning.score import Objective, Score, check_objective

__all__ = ["Acceptance", "Greedy", "Metropolis", "SearchResult", "annealing_search"]

Evaluate = DomainEvaluator | Callable[[], tuple[Tensor, Tensor]]


@runtime_checkable
class Acceptance(Protocol):
    """Decides on candidates: what their objective must exceed and their loss stay below.

    As bounds, known before a candidate is evaluated, so that one which cannot pass need not be
    evaluated to the end.
    """

    def objective_above(self, accepted: Score, index: int, draw: float) -> float:
        """What a candidate's objective must exceed.

        Args:
            accepted: The last accepted point, at first the start.
            index: The candidate's index.
            draw: A number drawn from U(0, 1) for it.

        Returns:
            The bound.
        """
        ...

    def loss_below(self, accepted: Score, start: Score) -> float:
        """What a candidate's loss must stay below.

        Args:
            accepted: The last accepted point, at first the start.
            start: Where the search began.

        Returns:
            The bound.
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

    def objective_above(self, accepted: Score, index: int, draw: float) -> float:
        """What a candidate's objective must exceed; see :class:`Acceptance`."""
        return accepted.objective

    def loss_below(self, accepted: Score, start: Score) -> float:
        """What a candidate's loss must stay below; see :class:`Acceptance`."""
        reference = accepted if self.reference == "best" else start
        return reference.loss + self.loss_tolerance


@dataclass(frozen=True)
class Metropolis:
    """Simulated annealing proper: also accepts a worse candidate, ever more seldom.

    A candidate that lowers the objective by d is accepted with probability exp(-d / T), T falling
    geometrically from candidate to candidate. The search still ends at the best accepted point.

    Attributes:
        temperature: T for the first candidate, in units of the objective (a cosine); positive.
        cooling: What T is multiplied by after each candidate, in (0, 1].
        loss_tolerance: See :class:`Greedy`.
        reference: See :class:`Greedy`; ``"start"`` here, so that the loss cannot creep up over
            many accepts.

    Source: Kirkpatrick, Gelatt & Vecchi, Science 1983. The paper's code has temperature fields,
    but nothing reads them.

    Raises:
        ValueError: If an argument is out of range.
    """

    temperature: float
    cooling: float = 0.99
    loss_tolerance: float = 0.1
    reference: Literal["best", "start"] = "start"

    def __post_init__(self) -> None:
        Greedy(self.loss_tolerance, self.reference)  # checks the two
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"`temperature` must be positive, got {self.temperature}.")
        if not 0 < self.cooling <= 1:
            raise ValueError(f"`cooling` must be in (0, 1], got {self.cooling}.")

    def objective_above(self, accepted: Score, index: int, draw: float) -> float:
        """What a candidate's objective must exceed; see :class:`Acceptance`."""
        temperature = self.temperature * self.cooling**index
        return accepted.objective + temperature * math.log(max(draw, 1e-300))

    def loss_below(self, accepted: Score, start: Score) -> float:
        """What a candidate's loss must stay below; see :class:`Acceptance`."""
        return Greedy(self.loss_tolerance, self.reference).loss_below(accepted, start)


@dataclass(frozen=True)
class SearchResult:
    """How a search went.

    Attributes:
        start: The score where it began.
        end: The score where the parameters are now: the best accepted point, or the start.
        scores: Each candidate's score, in order, None for one whose evaluation was broken off
            because it could no longer be accepted. Empty if the start was not finite.
        accepted: The indices of the accepted candidates.
    """

    start: Score
    end: Score
    scores: list[Score | None] = field(repr=False)
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
    evaluate: Evaluate,
    *,
    proposal: Proposal,
    num_candidates: int,
    objective: Objective = "min",
    acceptance: Acceptance | None = None,
    generator: torch.Generator | None = None,
    patience: int | None = None,
    on_candidate: Callable[[int, Score], None] | None = None,
) -> SearchResult:
    """Moves parameters to the best point found nearby, in place.

    With ``Walk(radius)``, ``Greedy(0.1)``, ``objective="min"`` and 250 candidates it takes the
    decisions of the paper's code. Whatever ends it, an exception or Ctrl-C too, the parameters
    are left at the best point accepted so far, or bit for bit where they began.

    Args:
        params: The tensors to move, of real floating-point numbers.
        evaluate: A :class:`DomainEvaluator`; or a function without arguments that returns the
            loss (a scalar tensor) and the domains' cosine matrix (shape ``(D, D)``, D at least 2)
            at the parameters' present values. It must not move them.
        proposal: Where the next candidate lies.
        num_candidates: How many are tried at most; not negative.
        objective: Which of the pairwise cosines to raise: the lowest or their mean.
        acceptance: Decides on each candidate; ``Greedy()`` if None.
        generator: A CPU generator for all randomness of the search; the global one if None.
        patience: End after so many candidates in a row of which none was accepted; None to try
            them all.
        on_candidate: Called after each candidate with its index and the best score so far.

    Returns:
        The scores and which candidates were accepted. Nothing is tried if the start's loss or
        objective is not finite.

    Raises:
        ValueError: If an argument is out of range, there are fewer than two domains, or the
            proposal needs a :class:`DomainEvaluator` and got a function.
    """
    params = list(params)
    _check(params, num_candidates, objective, patience)
    scorer = evaluate if isinstance(evaluate, DomainEvaluator) else _Function(evaluate)
    place = Place(params, generator)
    acceptance = Greedy() if acceptance is None else acceptance
    search = _Search(params, place, scorer, objective, acceptance)
    try:
        for index, _ in enumerate(search.candidates(proposal, num_candidates)):
            if on_candidate is not None:
                on_candidate(index, search.best)
            if patience is not None and search.rejected_in_a_row >= patience:
                break
    finally:
        try:
            place.settle()
        except BaseException:  # Ctrl-C while settling
            place.settle()
            raise
    return search.result()


class _Search:
    """A search under way: scores candidates, decides on them, keeps count."""

    def __init__(
        self,
        params: list[Tensor],
        place: Place,
        scorer: "DomainEvaluator | _Function",
        objective: Objective,
        acceptance: Acceptance,
    ) -> None:
        start = scorer.score(objective)
        assert start is not None
        self.best = self._start = self._accepted = start
        self.rejected_in_a_row = 0
        self._params = params
        self._place = place
        self._scorer = scorer
        self._objective: Objective = objective
        self._acceptance = acceptance
        # apart from the seeds of moves, so that candidates may be drawn ahead of decisions
        self._draws = random.Random(place.draw_seed())
        self._scores: list[Score | None] = []
        self._accepted_indices: list[int] = []
        place.ascent = self._ascent

    def candidates(self, proposal: Proposal, count: int) -> Iterator[None]:
        """Tries candidates; yields after each decision."""
        moves = self._moves(proposal, count)
        taken: Any = None  # what a generator is sent first
        for _ in range(count if self._start.finite else 0):
            try:
                score = moves.send(taken)
            except StopIteration:  # the proposal has no more
                return
            taken = self._decide(score)
            yield

    def result(self) -> SearchResult:
        """What came of it."""
        return SearchResult(self._start, self.best, self._scores, self._accepted_indices)

    def _moves(self, proposal: Proposal, count: int) -> Generator[Score | None, bool, None]:
        """Moves to candidates, or goes on with those that it has scored ahead."""
        moves = proposal.candidates(self._place)
        if proposal.independent and isinstance(self._scorer, DomainEvaluator):
            together = ParallelScorer.where_it_pays(self._scorer, self._params)
            if together is not None:
                yield from self._in_blocks(moves, count, together)
        yield from moves

    def _in_blocks(
        self, moves: Candidates, count: int, together: ParallelScorer
    ) -> Generator[Score | None, bool, None]:
        """Scores candidates a block at a time, as long as the module lets itself be run so."""
        while len(self._scores) < count:
            paths, points = [], []
            for _ in range(min(together.block, count - len(self._scores))):
                next(moves)
                paths.append(self._place.path)
                points.append(self._place.copy())
            known = [] if self._scores else [(self._place.start, self._start)]
            scores = together.scores(points, self._objective, known)
            for index, path in enumerate(paths):
                if scores is None:
                    self._place.follow(path)
                    yield None
                else:
                    self._place.path = path
                    yield scores[index]
            if scores is None:
                return

    def _decide(self, score: Score | None) -> bool:
        """Accepts the candidate or not, having scored it where that has not been done ahead."""
        above = self._acceptance.objective_above(
            self._accepted, len(self._scores), self._draws.random()
        )
        if score is None:
            score = self._scorer.score(self._objective, above)
        below = self._acceptance.loss_below(self._accepted, self._start)
        self._scores.append(score)
        if score is None or not (score.finite and score.objective > above and score.loss < below):
            self.rejected_in_a_row += 1
            return False
        better = score.objective > self.best.objective
        self._place.accept(best=better)
        self._accepted = score
        self.best = score if better else self.best
        self._accepted_indices.append(len(self._scores) - 1)
        self.rejected_in_a_row = 0
        return True

    def _ascent(self, orthogonal: bool) -> list[Tensor]:
        """The direction in which the objective rises fastest."""
        if not isinstance(self._scorer, DomainEvaluator):
            raise ValueError(
                "A guided proposal differentiates the objective, so it needs `evaluate` to be a "
                "DomainEvaluator, got a function."
            )
        return agreement_ascent(self._scorer, self._params, self._objective, orthogonal=orthogonal)


class _Function:
    """Scores with a function of the user's."""

    def __init__(self, evaluate: Callable[[], tuple[Tensor, Tensor]]) -> None:
        self._evaluate = evaluate

    def score(self, objective: Objective, above: float = -math.inf) -> Score:
        """Scores the present parameters, in one transfer to the host."""
        loss, cosines = self._evaluate()
        pairs = pairwise(cosines)
        value, *values = torch.cat([loss.detach().reshape(1).to(pairs), pairs]).tolist()
        return Score.of(value, values, objective)


def _check(params: list[Tensor], num_candidates: int, objective: str, patience: int | None) -> None:
    if not params or not all(param.is_floating_point() for param in params):
        raise ValueError(
            "`params` must be one or more tensors of real floating-point numbers, "
            f"got {[str(param.dtype) for param in params]}."
        )
    if num_candidates < 0:
        raise ValueError(f"`num_candidates` must not be negative, got {num_candidates}.")
    if patience is not None and patience < 1:
        raise ValueError(f"`patience` must be at least 1 or None, got {patience}.")
    check_objective(objective)
