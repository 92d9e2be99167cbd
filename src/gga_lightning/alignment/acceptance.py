"""Which candidates a search accepts.

An acceptance is a small object with two methods. They return bounds instead of decisions, because
bounds are known before a candidate is evaluated: the evaluation of a candidate that cannot pass
can stop early.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from gga_lightning.alignment.score import Score

__all__ = ["Acceptance", "Greedy", "Metropolis"]


@runtime_checkable
class Acceptance(Protocol):
    """Decides which candidates a search accepts.

    A candidate is accepted if its objective is above one bound and its loss is below another.

    Example:
        >>> class LossFalls:
        ...     def objective_above(self, accepted, index, draw):
        ...         return accepted.objective
        ...
        ...     def loss_below(self, best, start):
        ...         return start.loss
        >>> isinstance(LossFalls(), Acceptance)
        True
    """

    def objective_above(self, accepted: Score, index: int, draw: float) -> float:
        """Computes the bound that a candidate's objective must exceed.

        Args:
            accepted: The score of the last accepted point; at first that of the start.
            index: The candidate's index, counted from 0.
            draw: A random number from U(0, 1), drawn for this candidate.

        Returns:
            The bound.
        """
        ...

    def loss_below(self, best: Score, start: Score) -> float:
        """Computes the bound that a candidate's loss must stay below.

        Args:
            best: The score of the accepted point with the highest objective; at first that of
                the start.
            start: The score where the search began.

        Returns:
            The bound.
        """
        ...


@dataclass(frozen=True)
class Greedy:
    """Accepts a candidate that raises the objective without raising the loss by much.

    Under this rule each accepted point is better than the one before, so that the last accepted
    point is always the best one.

    Attributes:
        loss_tolerance: A candidate's loss must be less than the reference's loss plus this.
        reference: Where the loss is compared. ``"best"`` is the best accepted point, as in the
            paper's code: the loss may rise by one tolerance with every accepted candidate.
            ``"start"`` is the point where the search began, so that the tolerance holds for the
            whole search.

    Raises:
        ValueError: If ``loss_tolerance`` is NaN or ``reference`` is neither of the two.

    Source: Ballas & Diou, CVPR 2025, the authors' code (``update_simulated_annealing``), where
    the tolerance is fixed at 0.1.

    Example:
        >>> best = Score(loss=0.5, min_cosine=0.2, mean_cosine=0.3, objective=0.2)
        >>> start = Score(loss=1.0, min_cosine=0.1, mean_cosine=0.2, objective=0.1)
        >>> Greedy(0.25).loss_below(best, start), Greedy(0.25, "start").loss_below(best, start)
        (0.75, 1.25)
    """

    loss_tolerance: float = 0.1
    reference: Literal["best", "start"] = "best"

    def __post_init__(self) -> None:
        if math.isnan(self.loss_tolerance):
            raise ValueError(f"`loss_tolerance` must be a number, got {self.loss_tolerance}.")
        if self.reference not in ("best", "start"):
            raise ValueError(f"`reference` must be 'best' or 'start', got {self.reference!r}.")

    def objective_above(self, accepted: Score, index: int, draw: float) -> float:
        """Returns the last accepted objective; see :class:`Acceptance`."""
        return accepted.objective

    def loss_below(self, best: Score, start: Score) -> float:
        """Returns the reference's loss plus the tolerance; see :class:`Acceptance`."""
        reference = best if self.reference == "best" else start
        return reference.loss + self.loss_tolerance


@dataclass(frozen=True)
class Metropolis:
    """Also accepts candidates that lower the objective, ever more rarely (simulated annealing).

    A candidate whose objective is lower by d is accepted with probability exp(-d / T). The
    temperature T falls geometrically from candidate to candidate. The search still ends at the
    best accepted point, which need not be the last one.

    Attributes:
        temperature: T for the first candidate, in units of the objective (a cosine); positive.
        cooling: The factor by which T falls after each candidate, in (0, 1].
        loss_tolerance: See :class:`Greedy`.
        reference: See :class:`Greedy`. The default differs: ``"start"`` keeps the loss from
            rising step by step over many accepted candidates.

    Raises:
        ValueError: If an argument is out of range.

    Source: Kirkpatrick, Gelatt & Vecchi, Science 1983. The paper's code has temperature fields,
    but nothing reads them.

    Example:
        >>> accepted = Score(loss=0.5, min_cosine=0.2, mean_cosine=0.3, objective=0.2)
        >>> rule = Metropolis(temperature=0.1)
        >>> bounds = [rule.objective_above(accepted, index, draw=0.5) for index in (0, 100)]
        >>> [round(bound, 3) for bound in bounds]  # the later, the nearer to the accepted objective
        [0.131, 0.175]
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
        """Returns the accepted objective plus T log(draw); see :class:`Acceptance`."""
        temperature = self.temperature * self.cooling**index
        return accepted.objective + temperature * math.log(max(draw, 1e-300))

    def loss_below(self, best: Score, start: Score) -> float:
        """Returns the reference's loss plus the tolerance; see :class:`Acceptance`."""
        return Greedy(self.loss_tolerance, self.reference).loss_below(best, start)
