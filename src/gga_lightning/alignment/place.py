"""Tracks where a search has moved the parameters, and returns to earlier points."""

import random
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["Place", "uniform_noise"]

Draw = Callable[[Tensor, float, torch.Generator], Tensor]
Move = tuple[int, Draw, Sequence[float]] | tuple[Sequence[Tensor], float]


class Place:
    """Moves a search's parameters, and returns to the start or to accepted points.

    A place stores the starting values and the moves made since. Adding the same noise in the same
    order to the same start gives the same bits. Therefore a random move is stored as its seed.

    Attributes:
        params: The parameters' values, moved in place.
        start: Their values where the search began.
        path: The moves that lead from there to the candidate.
        ascent: Computes the direction in which the objective rises fastest. Its argument tells
            whether to remove the components that change the domains' losses to first order. The
            search sets this function.

    Example:
        >>> weight = torch.zeros(3)
        >>> place = Place([weight])
        >>> place.shift([torch.ones(3)], 0.5)
        >>> weight
        tensor([0.5000, 0.5000, 0.5000])
        >>> place.to_start()
        >>> weight
        tensor([0., 0., 0.])
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        generator: torch.Generator | None = None,
    ) -> None:
        """Begins where the parameters are.

        Args:
            params: The parameters to move.
            generator: A CPU generator, from which all randomness is seeded; the global one if
                None.
        """
        self.params = [param.detach() for param in params]  # the same memory, without autograd
        self.start = self.copy()
        self.path: tuple[Move, ...] = ()
        self.ascent: Callable[[bool], list[Tensor]] | None = None
        self._random = random.Random(int(torch.randint(2**62, (), generator=generator)))
        self._generators = {p.device: torch.Generator(p.device) for p in self.params}
        self._noise = Noise.of(self.params)
        self._accepted: list[Tensor] | None = self.start
        self._accepted_path = self._best_path = self.path

    def copy(self) -> list[Tensor]:
        """Copies the parameters' present values.

        Returns:
            A tensor for each parameter.
        """
        return [param.clone() for param in self.params]

    def draw_seed(self) -> int:
        """Draws a seed.

        Returns:
            A number below 2**62.
        """
        return self._random.getrandbits(62)

    def to_start(self) -> None:
        """Moves the parameters to where the search began."""
        self._load(self.start)
        self.path = ()

    def to_accepted(self) -> None:
        """Moves the parameters to the last accepted point, or to the start if there is none."""
        if self._accepted is None:
            if self.path is not self._accepted_path:
                self.follow(self._accepted_path)
            self._accepted = self.copy()
        else:
            self._load(self._accepted)
        self.path = self._accepted_path

    def add_noise(self, draw: Draw, radii: Sequence[float]) -> None:
        """Adds random noise to every parameter.

        Args:
            draw: Draws the noise of one parameter, from it, its radius and a generator.
            radii: A radius for each parameter.
        """
        self._make((self.draw_seed(), draw, radii))

    def shift(self, direction: Sequence[Tensor], length: float) -> None:
        """Adds ``length`` times a direction.

        Args:
            direction: A tensor for each parameter.
            length: The factor.
        """
        self._make((direction, length))

    def accept(self, *, best: bool) -> None:
        """Marks the current point as accepted.

        Args:
            best: Whether it is the best point so far.
        """
        self._accepted_path = self.path
        self._accepted = None
        if best:
            self._best_path = self._accepted_path

    @property
    def share(self) -> float | None:
        """The share of its full length that the last move had; None for random moves."""
        return self.path[-1][1] if self.path and len(self.path[-1]) == 2 else None

    def settle(self) -> None:
        """Moves the parameters to the best accepted point, or to the start if there is none."""
        self.follow(self._best_path)

    def follow(self, path: Iterable[Move]) -> None:
        """Moves the parameters from the start along a path.

        Args:
            path: An earlier :attr:`path`.
        """
        self._load(self.start)
        self.path = ()
        for move in path:
            self._make(move)

    def _make(self, move: Move) -> None:
        self.path += (move,)
        if len(move) == 2:
            _add(self.params, move[0], move[1])
            return
        seed, draw, radii = move
        for generator in self._generators.values():
            generator.manual_seed(seed)
        if self._noise is not None and draw is uniform_noise:
            _add(self.params, self._noise.drawn(radii, self._generators[self._noise.device]))
            return
        for param, radius in zip(self.params, radii, strict=True):
            param.add_(draw(param, radius, self._generators[param.device]))

    def _load(self, values: Sequence[Tensor]) -> None:
        torch._foreach_copy_(self.params, list(values))  # pyright: ignore[reportPrivateUsage]


class Noise:
    """Uniform noise for all parameters in one buffer.

    A GPU needs more time to launch an operation on a small tensor than to run it. With the buffer,
    noise of a common radius is drawn in one operation and added in a few. It takes the memory of
    a copy of the parameters.

    Attributes:
        device: Where the parameters and the noise are.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        """Makes the buffer.

        Args:
            params: The parameters, of one type and on one device.
        """
        self.device = params[0].device
        self._all = params[0].new_empty(sum(param.numel() for param in params))
        parts = self._all.split([param.numel() for param in params])
        self._parts = [_laid_out(part, p) for part, p in zip(parts, params, strict=True)]

    @classmethod
    def of(cls, params: Sequence[Tensor]) -> "Noise | None":
        """Makes a buffer where it saves time.

        Args:
            params: The parameters.

        Returns:
            The buffer; None unless all parameters are of one type and on one GPU.
        """
        kinds = {(param.device, param.dtype) for param in params}
        return cls(params) if len(kinds) == 1 and params[0].is_cuda else None

    def drawn(self, radii: Sequence[float], generator: torch.Generator) -> list[Tensor]:
        """Draws U(-radius, radius) for every parameter.

        Args:
            radii: A half-width for each parameter.
            generator: Where the randomness comes from; on the parameters' device.

        Returns:
            The noise of each parameter, valid until the next call.
        """
        if len(set(radii)) == 1:
            self._all.uniform_(-radii[0], radii[0], generator=generator)
        else:
            for part, radius in zip(self._parts, radii, strict=True):
                part.uniform_(-radius, radius, generator=generator)
        return self._parts


def _laid_out(part: Tensor, param: Tensor) -> Tensor:
    """A part of a buffer, with the shape and, if it has no gaps, the strides of a parameter."""
    dense = torch.empty_like(param, device="meta").stride() == param.stride()
    return (
        part.as_strided(param.shape, param.stride(), part.storage_offset())
        if dense
        else (part.view(param.shape))
    )


def _add(params: Sequence[Tensor], changes: Sequence[Tensor], factor: float = 1.0) -> None:
    torch._foreach_add_(  # pyright: ignore[reportPrivateUsage]
        list(params), list(changes), alpha=factor
    )


def uniform_noise(param: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Draws U(-radius, radius) for one parameter tensor.

    Args:
        param: The parameter, for its shape, type, device and memory format.
        radius: The half-width.
        generator: Where the randomness comes from; on ``param``'s device.

    Returns:
        The noise, of ``param``'s shape.

    Example:
        >>> noise = uniform_noise(torch.zeros(2, 3), 0.1, torch.Generator().manual_seed(0))
        >>> noise.shape, bool(noise.abs().max() <= 0.1)
        (torch.Size([2, 3]), True)
    """
    return torch.empty_like(param).uniform_(-radius, radius, generator=generator)
