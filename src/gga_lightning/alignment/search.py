"""The search: propose a point, score it, accept it or not, and end at the best one.

It is plain PyTorch: it moves a list of tensors in place, and asks an evaluator for the loss and the
cosines at their present values.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gga_lightning.alignment.acceptance import Acceptance, Greedy
from gga_lightning.alignment.ascent import agreement_ascent
from gga_lightning.alignment.evaluator import DomainEvaluator
from gga_lightning.alignment.gradients import pairwise
from gga_lightning.alignment.place import Place
from gga_lightning.alignment.proposals import Proposal
from gga_lightning.alignment.score import Objective, Score, check_objective

__all__ = ["SearchResult", "annealing_search"]

Evaluate = DomainEvaluator | Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        start: The score where the search began.
        end: The score where the parameters are now: the best accepted point, or the start.
        scores: Each candidate's score, in order, None for one whose evaluation was broken off
            because it could no longer be accepted. Empty if the start was not finite.
        accepted: The indices of the accepted candidates.
        share: The share of a guided step's full length that was accepted last; None for random
            proposals, or if none was accepted.

    Example:
        >>> start = Score(loss=0.5, min_cosine=-0.25, mean_cosine=0.0, objective=-0.25)
        >>> end = Score(loss=0.75, min_cosine=0.25, mean_cosine=0.5, objective=0.25)
        >>> result = SearchResult(start, end, scores=[None, end], accepted=[1])
        >>> result.gain, result.loss_change
        (0.5, 0.25)
    """

    start: Score
    end: Score
    scores: list[Score | None] = field(repr=False)
    accepted: list[int]
    share: float | None = None

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

    With ``Walk(radius)``, ``Greedy(0.1)``, ``objective="min"`` and 250 candidates, it makes the
    same decisions as the paper's code. After an exception or Ctrl-C too, the parameters are at the
    best point accepted so far, or bit for bit where they began.

    Args:
        params: The tensors to move, of real floating-point numbers.
        evaluate: A :class:`DomainEvaluator`; or a function without arguments that returns the
            loss (a scalar tensor) and the domains' cosine matrix (shape ``(D, D)``, D at least 2)
            at the parameters' present values. It must not move them.
        proposal: Chooses the next candidate.
        num_candidates: The maximum number of candidates; not negative.
        objective: Which of the pairwise cosines to raise: the lowest or their mean.
        acceptance: Decides on each candidate; ``Greedy()`` if None.
        generator: A CPU generator for all randomness of the search; the global one if None.
        patience: End after this many rejected candidates in a row; None to try them all.
        on_candidate: Called after each candidate with its index and the best score so far.

    Returns:
        The scores and which candidates were accepted. Nothing is tried if the start's loss or
        objective is not finite.

    Raises:
        ValueError: If an argument is out of range, there are fewer than two domains, or the
            proposal needs a :class:`DomainEvaluator` and got a function.

    Example:
        >>> from gga_lightning.alignment import Walk
        >>> weight = torch.tensor([1.0, 1.0], requires_grad=True)
        >>> losses = [lambda: (weight**2).sum(), lambda: (weight[0] - 3) ** 2 + weight[1] ** 2]
        >>> evaluator = DomainEvaluator(losses, [weight])
        >>> random = torch.Generator().manual_seed(0)
        >>> result = annealing_search(
        ...     [weight], evaluator, proposal=Walk(0.1), num_candidates=250, generator=random
        ... )
        >>> result.gain > 0, len(result.scores)
        (True, 250)
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
        self._draws = random.Random(place.draw_seed())
        self._scores: list[Score | None] = []
        self._accepted_indices: list[int] = []
        self._share: float | None = None
        place.ascent = self._ascent

    def candidates(self, proposal: Proposal, count: int) -> Iterator[None]:
        """Tries candidates; yields after each decision."""
        moves = proposal.candidates(self._place)
        accepted: Any = None  # what a generator is sent first
        for _ in range(count if self._start.finite else 0):
            try:
                moves.send(accepted)
            except StopIteration:  # the proposal has no more
                return
            accepted = self._decide()
            yield

    def result(self) -> SearchResult:
        """Collects the scores and the decisions so far."""
        found = self._scores, self._accepted_indices
        return SearchResult(self._start, self.best, *found, self._share)

    def _decide(self) -> bool:
        """Scores the candidate where the parameters are, and accepts it or not."""
        above = self._acceptance.objective_above(
            self._accepted, len(self._scores), self._draws.random()
        )
        score = self._scorer.score(self._objective, above)
        below = self._acceptance.loss_below(self.best, self._start)
        self._scores.append(score)
        if score is None or not (score.finite and score.objective > above and score.loss < below):
            self.rejected_in_a_row += 1
            return False
        better = score.objective > self.best.objective
        self._place.accept(best=better)
        self._accepted, self._share = score, self._place.share
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
