"""Base of the algorithms that align the domains' features."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import (
    ADAM,
    Batch,
    DomainGeneralizer,
    OptimizerFactory,
    pool,
    require_domains,
)
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["FeatureAlignment"]


class FeatureAlignment(DomainGeneralizer, ABC):
    """Minimizes the mean of the domains' losses and a distance between the domains' features.

    The penalty is the mean distance over the pairs of domains. All domains go through the network
    in one pass. DomainBed has one pass per domain, which differs where BatchNorm is in training
    mode.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> class MeanGap(FeatureAlignment):  # aligns the means of the features
        ...     def distance(self, left, right):
        ...         return (left.mean(0) - right.mean(0)).abs().max()
        >>> model = MeanGap(MLP((2,)), num_classes=2, gamma=0.5)
        >>> model.penalty([torch.zeros(4, 32), torch.ones(4, 32)])
        tensor(1.)
    """

    needs = ("vectors",)
    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        gamma: float = 1.0,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            gamma: The penalty's weight.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        self.gamma = gamma

    @abstractmethod
    def distance(self, left: Tensor, right: Tensor) -> Tensor:
        """Computes the distance between two domains' features.

        Args:
            left: Shape ``(N, F)``.
            right: Shape ``(M, F)``.

        Returns:
            A scalar.
        """

    def check(self, batch: Batch) -> None:
        """Raises an error if a batch is too small for the penalty.

        Args:
            batch: Domain name to (inputs, targets).
        """
        require_domains(batch, type(self).__name__, samples=2)

    def penalty(self, features: Sequence[Tensor]) -> Tensor:
        """Computes the penalty.

        Args:
            features: Those of each domain, shape ``(N_e, F)``.

        Returns:
            A scalar, the mean distance over the pairs of domains unless a subclass overrides it.
        """
        pairs = itertools.combinations(features, 2)
        return torch.stack([self.distance(*pair) for pair in pairs]).mean()

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss and the penalty.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        self.check(batch)
        targets = [targets for _, targets in batch.values()]
        features = self.featurizer(pool(batch)[0])
        sizes = [len(own) for own in targets]
        logits = self.classifier(features).split(sizes)
        losses = [self.task.loss(z, y) for z, y in zip(logits, targets, strict=True)]
        penalty = self.penalty(features.split(sizes))
        return torch.stack(losses).mean() + self.gamma * penalty
