"""Computes losses, gradients and cosines of the domains at the current parameters.

Plain PyTorch. An evaluator is made from one loss function for each domain. The search uses it, and
so can any other code that needs to know how far the domains agree.
"""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gga_lightning.alignment.gradients import cosine_matrix, gram_matrix
from gga_lightning.alignment.graphs import Recorder, Recordings
from gga_lightning.alignment.score import Objective, PairwiseCosines, Score

__all__ = ["DomainEvaluator", "Evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """The domains' losses and gradients at one point.

    Attributes:
        losses: Each domain's mean loss over its samples, shape ``(D,)``.
        weights: Each domain's share of the samples, D numbers that sum to 1.
        gradients: D gradients with respect to all parameters asked for.

    Example:
        >>> gradients = [(torch.tensor([1.0, 0.0]),), (torch.tensor([3.0, 4.0]),)]
        >>> found = Evaluation(torch.tensor([1.0, 3.0]), [0.75, 0.25], gradients)
        >>> float(found.loss), round(float(found.cosines[0, 1]), 3)
        (1.5, 0.6)
    """

    losses: Tensor
    weights: Sequence[float]
    gradients: list[tuple[Tensor, ...]]

    @property
    def loss(self) -> Tensor:
        """The mean loss over all samples, which is the domain losses weighted by their sizes."""
        return torch.dot(self.losses, self.losses.new_tensor(self.weights))

    @property
    def cosines(self) -> Tensor:
        """Cosine similarities of the domain gradients, shape ``(D, D)``, float64."""
        return cosine_matrix(gram_matrix(self.gradients))


class DomainEvaluator:
    """Evaluates the losses and gradients of D domains at the current parameters.

    Under several processes each domain is that of all ranks' batches joined; see ``shares``.

    Attributes:
        params: The parameters differentiated with respect to.
        weights: Each domain's share of the samples.

    Example:
        >>> weight = torch.tensor([1.0, 1.0], requires_grad=True)
        >>> losses = [lambda: (weight**2).sum(), lambda: (weight[0] - 3) ** 2 + weight[1] ** 2]
        >>> evaluator = DomainEvaluator(losses, [weight])
        >>> evaluator.evaluate().losses
        tensor([2., 5.])
        >>> round(evaluator.score("min").min_cosine, 3)
        -0.316
    """

    def __init__(
        self,
        losses: Sequence[Callable[[], Tensor | None]],
        params: Sequence[Tensor],
        *,
        sizes: Sequence[int] | None = None,
        shares: Sequence[float] | None = None,
        reduce: Callable[[Tensor], Tensor] | None = None,
        loss_scale: float = 1.0,
    ) -> None:
        """Takes the domains' losses.

        Args:
            losses: For each domain a function without arguments that computes its mean loss, a
                scalar with a graph, or None where there is none (a NaN loss, a zero gradient).
            params: The parameters to take gradients for.
            sizes: How many samples each domain has; equally many if None.
            shares: This rank's share of each domain's samples, in [0, 1]. A domain without a
                share is not computed here.
            reduce: Sums a tensor over the ranks; None for a single process.
            loss_scale: What losses are multiplied by while differentiated, against underflow in
                float16.

        Raises:
            ValueError: If there are no parameters.
        """
        if not params:
            raise ValueError("`params` must hold at least one tensor, got none.")
        count = len(losses)
        self.params = list(params)
        sizes = [1] * count if sizes is None else sizes
        total = sum(sizes)
        self.weights = [size / total for size in sizes]
        self._losses = list(losses)
        self._shares = [1.0] * count if shares is None else list(shares)
        self._reduce = reduce
        self._loss_scale = loss_scale
        # one type for losses and gradients, equal on all ranks, and in at least float32
        self._dtype = torch.promote_types(self.params[0].dtype, torch.float32)
        self._order = list(range(count))
        self._latest: tuple[list[int], list[tuple[Tensor, ...]]] | None = None
        self._recordings: Recordings | None = None

    def __len__(self) -> int:
        """The number of domains."""
        return len(self._losses)

    def evaluate(self) -> Evaluation:
        """Computes every domain's loss and gradient.

        Returns:
            Losses and gradients, equal on all ranks.
        """
        found = [self._domain(index) for index in range(len(self))]
        losses = self.summed(torch.stack([loss for loss, _ in found]))
        return Evaluation(losses, self.weights, [gradient for _, gradient in found])

    def score(self, objective: Objective, above: float = -math.inf) -> Score | None:
        """Scores the current parameters, and stops early if they cannot exceed the bound.

        For the lowest cosine, the domains are evaluated one by one, first those with the lowest
        cosine in the last full evaluation. The evaluation ends at the first pair whose cosine is
        not above the bound, because the lowest cosine cannot be above it either. A rejected
        candidate therefore costs as little as two domains instead of D. The decision is always the
        same as with all domains.

        Args:
            objective: Which of the pairwise cosines counts, the lowest or their mean.
            above: The bound.

        Returns:
            The score, or None where the lowest cosine is not above the bound (or not a number).
        """
        self._latest = None  # its memory is needed now
        bounded = objective == "min" and above > -math.inf
        compared = PairwiseCosines(self._agreed)
        losses: dict[int, Tensor] = {}
        for index in self._order if bounded else range(len(self)):
            losses[index] = self._add(index, compared)
            if bounded and len(losses) > 1 and not compared.lowest() > above:
                return None
        stacked = torch.stack([losses[index] for index in range(len(self))])
        values = compared.settle(self.summed(stacked))
        self._order = compared.most_conflicting_first()
        self._latest = (self._versions(), compared.gradients())
        loss = math.fsum(w * value for w, value in zip(self.weights, values, strict=True))
        return Score.of(loss, compared.pairs(), objective)

    @contextmanager
    def recorded(self, recorder: Recorder) -> Generator[None]:
        """Lets :meth:`score` replay recordings instead of running the losses' code, if it can.

        If it cannot, ``recorder.refusal`` says why, and scores are computed as usual.

        Args:
            recorder: Records the evaluations.

        Yields:
            Nothing.
        """
        if recorder.refusal is None:
            recorder.refusal = self.not_recordable()
        try:
            if recorder.refusal is None:
                try:
                    self._recordings = Recordings(self, recorder)
                except Exception as error:  # the losses' own errors will come up again in a score
                    recorder.refusal = _first_line(error)
            yield
        finally:
            self._latest = self._recordings = None
            recorder.release()

    def not_recordable(self) -> str | None:
        """Tells why the domains' evaluations cannot be recorded. Override it for more reasons.

        It is asked before and after the first evaluations.

        Returns:
            The reason; None if none is known.
        """
        return None if self._reduce is None else "there are several processes"

    @property
    def repeatable(self) -> bool:
        """Whether evaluations at the same point are equal. Override it if they are not."""
        return True

    def gradients(self) -> list[tuple[Tensor, ...]]:
        """Returns the domains' gradients, from the last score if nothing has moved since.

        Returns:
            D gradients, equal on all ranks.
        """
        if self._latest is not None and self._latest[0] == self._versions():
            return self._latest[1]
        return self.evaluate().gradients

    def local(self, index: int) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """Computes what this rank's samples add to a domain's loss and gradient.

        Args:
            index: The domain.

        Returns:
            The loss and the gradient on this rank's samples, times their share of the domain's;
            None where there is no loss.
        """
        if not self._shares[index]:
            return None
        with self.around(index):
            return self.differentiated(index)

    def differentiated(self, index: int) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """Computes what :meth:`local` does, and nothing around it.

        Args:
            index: The domain.

        Returns:
            See :meth:`local`.
        """
        loss = self.loss(index)
        if loss is None:
            return None
        gradient = torch.autograd.grad(
            loss if self._loss_scale == 1.0 else loss * self._loss_scale,
            self.params,
            allow_unused=True,
            materialize_grads=True,
        )
        share = self._shares[index]
        factor = share / self._loss_scale
        if factor != 1.0:
            gradient = tuple(g.to(self._dtype) * factor for g in gradient)
        return loss.detach().to(self._dtype) * share, gradient

    def around(self, index: int) -> AbstractContextManager[Any]:
        """Surrounds each computation of a domain's loss and gradient. Override it to prepare one.

        Args:
            index: The domain.

        Returns:
            A context manager; unless overridden, one that does nothing.
        """
        return nullcontext()

    def rewind(self, index: int) -> None:
        """Takes back what evaluations change in tensors. Override it if they do.

        A recording begins with it. It must not do anything but tensor operations.

        Args:
            index: The domain that is recorded.
        """

    def redraw(self, index: int) -> None:
        """Prepares the random numbers of a replay. Override it to set a random state.

        Args:
            index: The domain that will be replayed.
        """

    def loss(self, index: int) -> Tensor | None:
        """Computes a domain's loss on this rank's samples, and nothing around it.

        Args:
            index: The domain.

        Returns:
            The loss, with its graph.
        """
        return self._losses[index]()

    def summed(self, tensor: Tensor) -> Tensor:
        """Sums a tensor over the ranks.

        Args:
            tensor: This rank's.

        Returns:
            The sum; the tensor itself with a single process.
        """
        return tensor if self._reduce is None else self._reduce(tensor)

    def summed_together(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Sums tensors over the ranks in one collective.

        Args:
            tensors: This rank's.

        Returns:
            The sums.
        """
        if self._reduce is None:
            return tuple(tensors)
        flat = torch.cat([tensor.to(self._dtype).flatten() for tensor in tensors])
        parts = self._reduce(flat).split([tensor.numel() for tensor in tensors])
        return tuple(part.view(t.shape) for part, t in zip(parts, tensors, strict=True))

    def _agreed(self, values: Tensor) -> Tensor:
        """Rank 0's values: equal already on like devices, and so on unlike ones too."""
        if self._reduce is not None:
            torch.distributed.broadcast(values, src=0)
        return values

    def _add(self, index: int, compared: PairwiseCosines) -> Tensor:
        """Evaluates a domain, adds its gradient to others, and returns its loss."""
        if self._recordings is None:
            loss, gradient = self._domain(index)
            compared.add(index, gradient)
        else:
            loss, gradient, products = self._recordings.replay(index)
            compared.add_known(index, gradient, products)
        return loss

    def _domain(self, index: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A domain's loss (this rank's share of it) and its gradient over all ranks."""
        found = self.local(index)
        if found is None:
            missing = math.nan if self._shares[index] else 0.0
            value = torch.full((), missing, dtype=self._dtype, device=self.params[0].device)
            gradient = tuple(torch.zeros_like(param) for param in self.params)
        else:
            value, gradient = found
        return value, self.summed_together(gradient)

    def _versions(self) -> list[int]:
        return [param._version for param in self.params]


def _first_line(error: BaseException) -> str:
    """The first line of the error that led to others."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
