"""The score of a point: the loss, and the lowest and the mean cosine between the domains."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from gga_lightning.alignment.gradients import from_rows, vector_products, vectors

__all__ = ["Objective", "PairwiseCosines", "Score", "check_objective"]

Objective = Literal["min", "mean"]


def check_objective(objective: str) -> None:
    """Checks the name of an objective.

    Args:
        objective: The name.

    Raises:
        ValueError: If it is not one.
    """
    if objective not in get_args(Objective):
        raise ValueError(f"`objective` must be 'min' or 'mean', got {objective!r}.")


class Score(NamedTuple):
    """The score of a point, by which the search decides.

    Attributes:
        loss: The loss of the whole batch.
        min_cosine: The lowest cosine over the pairs of domains, in [-1, 1].
        mean_cosine: The mean cosine over the pairs, in [-1, 1].
        objective: The one of these two cosines that the search raises.

    Example:
        >>> Score.of(0.5, pairs=[0.5, -0.25, 0.5], objective="min")
        Score(loss=0.5, min_cosine=-0.25, mean_cosine=0.25, objective=-0.25)
    """

    loss: float
    min_cosine: float
    mean_cosine: float
    objective: float

    @classmethod
    def of(cls, loss: float, pairs: Sequence[float], objective: Objective) -> "Score":
        """Computes the score of a point from its loss and its cosines.

        Args:
            loss: The loss of the whole batch.
            pairs: The cosines of all pairs of domains.
            objective: Which of their minimum and mean the search raises.

        Returns:
            The score; NaN where a cosine is.

        Raises:
            ValueError: If there are no pairs.
        """
        if not pairs:
            raise ValueError("A point has a score with at least two domains, got fewer: no pairs.")
        mean = math.fsum(pairs) / len(pairs)
        low = mean if math.isnan(mean) else min(pairs)
        return cls(loss, low, mean, low if objective == "min" else mean)

    @property
    def finite(self) -> bool:
        """Whether the loss and the objective are numbers; a point that is not is never taken."""
        return math.isfinite(self.loss) and math.isfinite(self.objective)


class PairwiseCosines:
    """Cosines between the gradients added so far, brought to the host as seldom as can be."""

    def __init__(self, agreed: Callable[[Tensor], Tensor]) -> None:
        """Begins without gradients.

        Args:
            agreed: Makes a vector equal on all ranks.
        """
        self._agreed = agreed
        self._gradients: dict[int, tuple[Tensor, ...]] = {}
        self._vectors: dict[int, list[Tensor]] = {}
        self._pending: list[tuple[dict[int, int], Tensor]] = []
        self._squares: dict[int, float] = {}
        self._cosines: dict[tuple[int, int], float] = {}

    def add(self, index: int, gradient: tuple[Tensor, ...]) -> None:
        """Adds a domain.

        Args:
            index: The domain.
            gradient: Its gradient.
        """
        found = vectors(gradient)
        self._vectors[index] = found
        # where the vectors are a copy, its numbers are enough
        self._gradients[index] = from_rows(found[0], gradient) if found[0].is_cuda else gradient
        products = vector_products(found, list(self._vectors.values()))
        self._pending.append(({other: at for at, other in enumerate(self._vectors)}, products))

    def add_known(self, index: int, gradient: tuple[Tensor, ...], products: Tensor) -> None:
        """Adds a domain whose inner products are known.

        Args:
            index: The domain.
            gradient: Its gradient.
            products: Its inner products with all domains, itself included, in their order,
                float64. Those with domains that have not been added are not used.
        """
        self._gradients[index] = gradient
        self._pending.append(({other: other for other in self._gradients}, products))

    def settle(self, *more: Tensor) -> list[float]:
        """Takes all pending products to the host, and more values.

        Args:
            *more: Vectors.

        Returns:
            Their values.
        """
        parts = [products for _, products in self._pending]
        if not parts and not more:
            return []
        device = [*parts, *more][0].device
        values: list[float] = self._agreed(
            torch.cat([*parts, *(extra.to(device, torch.float64) for extra in more)])
        ).tolist()
        for places, products in self._pending:
            taken, values = values[: len(products)], values[len(products) :]
            *others, index = places
            square = self._squares[index] = taken[places[index]]
            for other in others:
                pair = (min(other, index), max(other, index))
                product = taken[places[other]]
                self._cosines[pair] = _cosine(product, self._squares[other], square)
        self._pending = []
        return values

    def gradients(self) -> list[tuple[Tensor, ...]]:
        """Gives all gradients.

        Returns:
            One a domain, in their order.
        """
        return [self._gradients[index] for index in sorted(self._gradients)]

    def lowest(self) -> float:
        """Finds the lowest cosine so far.

        Returns:
            It; NaN where one is.
        """
        self.settle()
        values = self._cosines.values()
        return math.nan if any(math.isnan(value) for value in values) else min(values)

    def pairs(self) -> list[float]:
        """Gives all cosines.

        Returns:
            One a pair, in the pairs' order.
        """
        return [self._cosines[pair] for pair in sorted(self._cosines)]

    def most_conflicting_first(self) -> list[int]:
        """Orders the domains so that a conflict is found early.

        Returns:
            The domains, those of the lowest cosine first and then by their lowest with any.
        """
        lowest = dict.fromkeys(self._gradients, math.inf)
        for pair, value in self._cosines.items():
            for index in pair:
                lowest[index] = min(lowest[index], value)
        return sorted(lowest, key=lambda index: (lowest[index], index))


def _cosine(product: float, square: float, other_square: float) -> float:
    """The cosine of two vectors; 0 where one is zero, NaN where one is not finite."""
    scale = math.sqrt(square) * math.sqrt(other_square) if square >= 0 <= other_square else math.nan
    if scale == 0.0:
        return 0.0
    return min(max(product / scale, -1.0), 1.0) if math.isfinite(scale) else math.nan
