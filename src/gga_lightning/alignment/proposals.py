"""Proposals: which points the search tries.

A proposal is a small object with its settings. Its :meth:`Proposal.candidates` is a generator: it
moves the parameters to a candidate, yields, and receives whether the candidate was accepted. It
moves them through a :class:`Place`.
"""

import dataclasses
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from gga_lightning.alignment.place import Place, uniform_noise

__all__ = ["Ball", "Candidates", "Climb", "Guided", "Proposal", "Walk"]

Candidates = Generator[None, bool, None]

_HALVINGS = 10  # of a guided step before it is given up: a thousandth of its length


@dataclass(frozen=True)
class Proposal:
    """The base class of proposals. A subclass defines :meth:`candidates`.

    Attributes:
        radius: How far away a candidate may be; not negative. For the random proposals, each
            coordinate moves by noise from U(-radius, radius); the paper calls the radius rho.
        relative: Whether ``radius`` is a share of each parameter tensor's root mean square at
            the step's start, instead of an absolute length. A tensor of zeros then stays put.

    Raises:
        ValueError: If ``radius`` is negative or not finite.

    Example:
        >>> class Ahead(Proposal):
        ...     def candidates(self, place):
        ...         place.shift([torch.ones_like(param) for param in place.params], self.radius)
        ...         yield
        >>> weight = torch.zeros(2)
        >>> next(Ahead(0.5).candidates(Place([weight])))
        >>> weight
        tensor([0.5000, 0.5000])
    """

    radius: float
    relative: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.radius) and self.radius >= 0):
            raise ValueError(f"`radius` must be finite and not negative, got {self.radius}.")

    def candidates(self, place: Place) -> Candidates:
        """Moves to one candidate after the other.

        Args:
            place: Where the parameters are, at first the search's start.

        Yields:
            Nothing, at each candidate; is sent whether it was accepted.

        Raises:
            TypeError: If the subclass does not say how.
        """
        raise TypeError(f"{type(self).__name__} must define `candidates(place)`.")
        yield

    def scaled(self, factor: float) -> Self:
        """Makes the same proposal with another radius.

        Args:
            factor: What to multiply the radius by; not negative.

        Returns:
            The new proposal.
        """
        return dataclasses.replace(self, radius=self.radius * factor)

    def radii(self, params: Sequence[Tensor]) -> list[float]:
        """Gives each tensor's absolute radius.

        Args:
            params: The parameters where the search starts.

        Returns:
            A radius for each of them.
        """
        if not self.relative:
            return [self.radius] * len(params)
        sizes = [param.detach().float().pow(2).mean().sqrt() for param in params]
        return (self.radius * torch.stack([size.cpu() for size in sizes])).tolist()


@dataclass(frozen=True)
class Walk(Proposal):
    """Proposes the points of a random walk, whose noise adds up until one is accepted.

    After an accepted candidate the walk begins again at the search's start, not at the accepted
    point. This is what the paper's code does; its text speaks of draws around the start, which
    is :class:`Ball`. After k rejections the walk is about ``radius * sqrt(k / 3)`` away in every
    coordinate.

    Source: Ballas & Diou, CVPR 2025, the authors' code (``update_simulated_annealing``).

    Example:
        >>> weight = torch.zeros(3)
        >>> walk = Walk(0.1).candidates(Place([weight]))
        >>> next(walk)  # moves to the first candidate
        >>> first = weight.clone()
        >>> walk.send(False)  # it was rejected: the next candidate adds noise to it
        >>> bool((weight - first).abs().max() <= 0.1)
        True
    """

    def candidates(self, place: Place) -> Candidates:
        """Moves to one candidate after the other; see :meth:`Proposal.candidates`."""
        radii = self.radii(place.params)
        while True:
            place.add_noise(uniform_noise, radii)
            if (yield):
                place.to_start()


@dataclass(frozen=True)
class Ball(Proposal):
    """Proposes independent points around the search's start, as the paper's Algorithm 1 does.

    No candidate leaves the box of half-width ``radius``.

    Example:
        >>> weight = torch.zeros(3)
        >>> ball = Ball(0.1).candidates(Place([weight]))
        >>> next(ball)  # moves to the first candidate
        >>> for _ in range(100):
        ...     ball.send(False)  # rejected: another draw around the start
        >>> bool(weight.abs().max() <= 0.1)
        True
    """

    def candidates(self, place: Place) -> Candidates:
        """Moves to one candidate after the other; see :meth:`Proposal.candidates`."""
        radii = self.radii(place.params)
        while True:
            place.to_start()
            place.add_noise(uniform_noise, radii)
            yield


@dataclass(frozen=True)
class Climb(Proposal):
    """Proposes points around the last accepted point, so that the search can move far away.

    Example:
        >>> weight = torch.zeros(3)
        >>> place = Place([weight])
        >>> climb = Climb(0.1).candidates(place)
        >>> next(climb)  # moves to the first candidate
        >>> first = weight.clone()
        >>> place.accept(best=True)
        >>> climb.send(True)  # the next candidate is drawn around the accepted one
        >>> bool((weight - first).abs().max() <= 0.1)
        True
    """

    def candidates(self, place: Place) -> Candidates:
        """Moves to one candidate after the other; see :meth:`Proposal.candidates`."""
        radii = self.radii(place.params)
        while True:
            place.to_accepted()
            place.add_noise(uniform_noise, radii)
            yield


@dataclass(frozen=True)
class Guided(Proposal):
    """Proposes steps along the gradient of the objective, halved until one is accepted.

    Each step computes this gradient, for about the cost of a candidate. It then tries the first
    length, half of it, and so on, ten lengths at most. The proposal ends after ``steps`` accepted
    steps, or after a step of which no length is accepted. The next step begins at twice the length
    that was accepted, but at no more than the full length.

    Attributes:
        radius: Absolute: a sign step, each coordinate moves by ``radius``, the corner of the
            random proposals' box to which the objective rises most. Relative: the step's length
            is this share of the length of all moved parameters together.
        steps: How many steps; at least 1.
        orthogonal: Whether to project the direction off the domains' gradients, so that every
            domain's loss holds to first order. An absolute step is then scaled into the box
            instead of taking signs.
        first: The share of the full length that is tried first, in (0, 1]. The callback sets it
            at each searched step, to twice the share that was accepted last.

    Raises:
        ValueError: If ``radius``, ``steps`` or ``first`` is out of range.

    Example:
        >>> from gga_lightning.alignment import DomainEvaluator, annealing_search
        >>> weight = torch.tensor([1.0, 1.0], requires_grad=True)
        >>> losses = [lambda: (weight**2).sum(), lambda: (weight[0] - 3) ** 2 + weight[1] ** 2]
        >>> evaluator = DomainEvaluator(losses, [weight])
        >>> result = annealing_search([weight], evaluator, proposal=Guided(0.1), num_candidates=10)
        >>> result.gain > 0
        True
    """

    steps: int = 1
    orthogonal: bool = False
    first: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"`steps` must be at least 1, got {self.steps}.")
        if not 0.0 < self.first <= 1.0:
            raise ValueError(f"`first` must be in (0, 1], got {self.first}.")

    def candidates(self, place: Place) -> Candidates:
        """Moves to one candidate after the other; see :meth:`Proposal.candidates`."""
        first = self.first
        for _ in range(self.steps):
            assert place.ascent is not None
            direction = self._step(place.params, place.ascent(self.orthogonal))
            if not any(part.any() for part in direction):  # no slope
                return
            for halving in range(_HALVINGS):
                share = first * 0.5**halving
                place.to_accepted()
                place.shift(direction, share)
                if (yield):
                    first = min(1.0, 2 * share)
                    break
            else:
                return

    def _step(self, params: Sequence[Tensor], direction: list[Tensor]) -> list[Tensor]:
        """The direction, of the full step's length."""
        if not self.relative and not self.orthogonal:
            return [self.radius * part.sign() for part in direction]
        if self.relative:
            factor = self.radius * get_total_norm(params) / get_total_norm(direction)
        else:
            factor = self.radius / torch.stack([part.abs().max().cpu() for part in direction]).max()
        factor = float(factor) if math.isfinite(factor) else 0.0  # no slope: stay
        return [factor * part for part in direction]
