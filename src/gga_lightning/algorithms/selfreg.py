"""SelfReg: similar logits and features within a class."""

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional

from gga_lightning.algorithms.base import (
    ADAM,
    Batch,
    DomainGeneralizer,
    OptimizerFactory,
    pool,
    require_domains,
)
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["SelfReg"]


class SelfReg(DomainGeneralizer):
    """Makes the logits and features of samples of the same class similar.

    Each sample is compared with another sample of its class, drawn at random from all domains, and
    with a mixture of two such samples, l ~ Beta(1/2, 1/2). Features are compared with a projection
    of the others' features. Both differences are weighted by l and 1 - l, and by the loss itself as
    long as that is below 1.

    Source: Kim et al., ICCV 2021, arXiv 2104.09841, its losses (not its averaging of weights and
    its curriculum). In DomainBed and the code derived from it the projection is not trained,
    because their optimizer is created before it.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = SelfReg(MLP((2,)), num_classes=2)
        >>> x, y = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
        >>> (model.objective({"photo": (x, y)}) > model.domain_loss((x, y))).item()
        True
    """

    needs = ("classes", "vectors")

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        size = self.classifier.in_features
        hidden = size if size == 2048 else 2 * size
        layers: list[nn.Module] = []
        for width, following in ((size, hidden), (hidden, hidden)):
            layers += [nn.Linear(width, following), nn.BatchNorm1d(following), nn.ReLU()]
        self.projection = nn.Sequential(*layers, nn.Linear(hidden, size), nn.BatchNorm1d(size))

    def objective(self, batch: Batch) -> Tensor:
        """Computes the loss and the differences within classes.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        require_domains(batch, "SelfReg", domains=1, samples=2)  # the projection's BatchNorm
        inputs, targets = pool(batch)
        features = self.featurizer(inputs)
        logits, projected = self.classifier(features), self.projection(features)
        share = Beta(0.5, 0.5).sample().item()  # on the CPU
        first, second = _of_the_same_class(targets), _of_the_same_class(targets)

        def difference(values: Tensor, others: Tensor) -> Tensor:
            one = others[first]
            mixed = torch.lerp(others[second], one, share)
            return share * functional.mse_loss(values, one) + (1 - share) * functional.mse_loss(
                values, mixed
            )

        loss = functional.cross_entropy(logits, targets)
        penalty = difference(logits, logits) + 0.3 * difference(features, projected)
        return loss + loss.detach().clamp(max=1.0) * penalty


def _of_the_same_class(targets: Tensor) -> Tensor:
    """For each sample another of its class, or itself: a permutation within each class."""
    by_class = targets.argsort(stable=True)
    shuffled = torch.randperm(len(targets)).to(targets.device)
    shuffled = shuffled[targets[shuffled].argsort(stable=True)]  # by class, at random within
    return torch.empty_like(by_class).scatter_(0, by_class, shuffled)
