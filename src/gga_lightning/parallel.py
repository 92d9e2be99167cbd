"""Several independent candidates evaluated at once, through ``torch.func``.

For small models, whose evaluations cost more in calls than in arithmetic. Where a module cannot
be run so, nobody notices: candidates are then evaluated one by one.
"""

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from gga_lightning.evaluation import DomainEvaluator
from gga_lightning.gradients import cosine_matrix, pairwise
from gga_lightning.score import Objective, Score

__all__ = ["ParallelScorer"]

# What one call evaluates at once pays where calls cost more than arithmetic. Set by trial: in
# benchmarks/search_cost.py the MLP is evaluated so, all other models one candidate at a time.
_MAX_PARAMETERS = 20_000
_MAX_BLOCK = 256
_MAX_NUMBERS = 2**20  # of one block of points, against running out of the processor's cache


class ParallelScorer:
    """Scores a block of points at once.

    Attributes:
        block: How many points to score at once.
    """

    @classmethod
    def where_it_pays(
        cls, evaluator: DomainEvaluator, moved: Sequence[Tensor]
    ) -> "ParallelScorer | None":
        """Makes a scorer for a model that is faster so.

        Args:
            evaluator: The domains.
            moved: The parameters in which the points differ.

        Returns:
            The scorer, or None for a model that is better evaluated point by point.
        """
        size = sum(param.numel() for param in evaluator.params)
        flat = all(param.ndim <= 2 for param in evaluator.params)
        if evaluator.module is None or evaluator.joined or size > _MAX_PARAMETERS or not flat:
            return None
        return cls(evaluator, evaluator.module, moved)

    def __init__(
        self, evaluator: DomainEvaluator, module: nn.Module, moved: Sequence[Tensor]
    ) -> None:
        """Prepares to run the module as a function of its parameters.

        Args:
            evaluator: The domains, of a single process.
            module: The module that its losses run.
            moved: The parameters in which the points differ.
        """
        self._evaluator = evaluator
        self._runner = _Runner(module, evaluator.loss)
        names = {id(param): name for name, param in self._runner.named_parameters()}
        self._fixed = {name: param.detach() for name, param in self._runner.named_parameters()}
        self._moved = [names[id(param)] for param in moved]
        self._compared = [names[id(param)] for param in evaluator.params]
        size = sum(param.numel() for param in evaluator.params)
        self.block = max(1, min(_MAX_BLOCK, _MAX_NUMBERS // size))

    def scores(
        self,
        points: Sequence[Sequence[Tensor]],
        objective: Objective,
        known: Sequence[tuple[Sequence[Tensor], Score]] = (),
    ) -> list[Score] | None:
        """Scores points.

        Args:
            points: K points, each a tensor for each moved parameter.
            objective: Which of the pairwise cosines counts, the lowest or their mean.
            known: Further points with their scores, to see whether all is well.

        Returns:
            K scores; None where the module cannot be run so, or comes to other scores.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of operations that are slow so
                scores = self._scores([*points, *(point for point, _ in known)], objective)
        except Exception:  # there is no end of ways in which a module can resist
            return None
        for score, (_, expected) in zip(scores[len(points) :], known, strict=True):
            if not _alike(score, expected):
                return None
        return scores[: len(points)]

    def _scores(self, points: Sequence[Sequence[Tensor]], objective: Objective) -> list[Score]:
        stacked = {
            name: torch.stack(values)
            for name, values in zip(self._moved, zip(*points, strict=True), strict=True)
        }
        found = [self._domain(index, stacked) for index in range(len(self._evaluator))]
        losses = torch.stack([loss for loss, _ in found], dim=1).double()
        weights = losses.new_tensor(self._evaluator.weights)
        gram = sum(
            torch.bmm(tensors, tensors.mT).double()
            for name in self._compared
            if (tensors := torch.stack([g[name].flatten(1) for _, g in found], dim=1)).numel()
        )
        assert isinstance(gram, Tensor)
        pairs = pairwise(cosine_matrix(gram))
        table = torch.cat([(losses @ weights)[:, None], pairs], dim=1).tolist()
        return [Score.of(loss, cosines, objective) for loss, *cosines in table]

    def _domain(self, index: int, stacked: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A domain's losses, shape (K,), and gradients, each of shape (K, ...), by name."""
        compared = {name: self._fixed[name] for name in self._compared} | stacked
        dims = {name: 0 if name in stacked else None for name in compared}

        def loss(params: dict[str, Tensor]) -> Tensor:
            return functional_call(self._runner, self._fixed | params, (index,))

        with self._evaluator.around(index):
            gradients, losses = vmap(grad_and_value(loss), (dims,), randomness="same")(compared)
        return losses.detach(), gradients


class _Runner(nn.Module):
    """Makes a function of the module, whose parameters can be replaced, out of its losses."""

    def __init__(self, module: nn.Module, loss: Callable[[int], Tensor | None]) -> None:
        super().__init__()
        self.module = module
        self._loss = loss

    def forward(self, index: int) -> Tensor:
        loss = self._loss(index)
        if loss is None:
            raise ValueError("no loss")
        return loss


def _alike(left: Score, right: Score) -> bool:
    """Whether two scores of one point are equal but for rounding."""
    return all(
        math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3) for a, b in zip(left, right, strict=True)
    )
