"""Mixup between domains."""

import torch
from torch import Tensor, nn
from torch.distributions import Beta

from gga_lightning.algorithms.base import (
    ADAM,
    Batch,
    DomainGeneralizer,
    OptimizerFactory,
    require_domains,
)
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["Mixup"]


class Mixup(DomainGeneralizer):
    """Trains on mixtures of samples of two domains.

    The domains are put in a circle at random, and each is mixed with the next: l x + (1 - l) x',
    with one l ~ Beta(alpha, alpha) per pair. The losses of both targets are mixed with the same l.
    Where one domain has more samples than the other, the rest is left out.

    Source: Yan et al., 2020, arXiv 2001.00677, and Xu et al., AAAI 2020, arXiv 1912.01805, in
    DomainBed's form. All pairs go through the network in one pass.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = Mixup(MLP((2,)), num_classes=2, alpha=0.2)
        >>> x, y = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
        >>> same = {"a": (x, y), "b": (x, y)}  # mixing equal samples changes nothing
        >>> model.objective(same).isclose(model.domain_loss((x, y))).item()
        True
    """

    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        alpha: float = 0.2,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            alpha: Both parameters of the Beta distribution; positive.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``alpha`` is not positive.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not alpha > 0:
            raise ValueError(f"`alpha` must be positive, got {alpha}.")
        self.alpha = alpha

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss over the pairs.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        require_domains(batch, "Mixup")
        parts = list(batch.values())
        order = torch.randperm(len(parts)).tolist()
        mixed, targets = [], []
        for place, first in enumerate(order):
            (x, y), (other_x, other_y) = parts[first], parts[order[place - 1]]
            size = min(len(y), len(other_y))
            share = Beta(self.alpha, self.alpha).sample().item()  # on the CPU
            mixed.append(share * x[:size] + (1 - share) * other_x[:size])
            targets.append((share, y[:size], other_y[:size]))
        logits = self(torch.cat(mixed)).split([len(part) for part in mixed])
        losses = [
            share * self.task.loss(z, y) + (1 - share) * self.task.loss(z, o)
            for z, (share, y, o) in zip(logits, targets, strict=True)
        ]
        return torch.stack(losses).mean()
