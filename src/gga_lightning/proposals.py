"""Where the search looks next: random moves, drawn from a seed so that they can be drawn again."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Generator, Tensor

__all__ = ["Ball", "Proposal", "Walk"]


@dataclass(frozen=True)
class Proposal:
    """Uniform noise in a box, added to every parameter that the search moves.

    A proposal says from where the next candidate starts (:attr:`origin`) and what noise is added
    there (:meth:`noise`). Subclass it to write another one.

    Attributes:
        radius: Half-width of the noise, the paper's rho: each coordinate moves by
            U(-radius, radius). Not negative.
        relative: Whether ``radius`` is a share of each parameter tensor's root mean square at
            the step's start, instead of an absolute length. A tensor of zeros then stays put.

    Raises:
        ValueError: If ``radius`` is negative or not finite.
    """

    radius: float
    relative: bool = False

    origin: ClassVar[Literal["start", "accepted", "last"]] = "start"
    """Where a candidate starts: at the search's start, at the last accepted point, or at the last
    candidate, going back to the start after an accepted one."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.radius) and self.radius >= 0):
            raise ValueError(f"`radius` must be finite and not negative, got {self.radius}.")

    def noise(self, param: Tensor, radius: float, generator: Generator) -> Tensor:
        """Draws the noise for one parameter tensor.

        Args:
            param: The parameter, for its shape, type, device and memory format.
            radius: The half-width for this tensor, absolute, the schedule included.
            generator: Where the randomness comes from; on ``param``'s device.

        Returns:
            What to add to ``param``, of its shape.
        """
        return torch.empty_like(param).uniform_(-radius, radius, generator=generator)

    def scaled(self, factor: float) -> Self:
        """Makes the same proposal with another radius.

        Args:
            factor: What to multiply the radius by; not negative.

        Returns:
            The new proposal.
        """
        return dataclasses.replace(self, radius=self.radius * factor)

    def radii(self, params: Sequence[Tensor]) -> list[float]:
        """Gives each tensor's absolute half-width at the search's start.

        Args:
            params: The parameters where the search starts.

        Returns:
            A half-width for each of them.
        """
        if not self.relative:
            return [self.radius] * len(params)
        sizes = [param.detach().float().pow(2).mean().sqrt() for param in params]
        return (self.radius * torch.stack([size.cpu() for size in sizes])).tolist()


@dataclass(frozen=True)
class Walk(Proposal):
    """A random walk: noise adds up from candidate to candidate until one is accepted.

    After an accepted candidate the walk begins again at the search's start, not at the accepted
    point. This is what the paper's code does; its text speaks of draws around the start, which
    is :class:`Ball`. After k rejections the walk is about ``radius * sqrt(k / 3)`` away in every
    coordinate.

    Source: Ballas & Diou, CVPR 2025, the authors' code (``update_simulated_annealing``).
    """

    origin = "last"


@dataclass(frozen=True)
class Ball(Proposal):
    """Independent draws around the search's start: the paper's Algorithm 1 as it is written.

    No candidate leaves the box of half-width ``radius``, and none depends on another.
    """

    origin = "start"
