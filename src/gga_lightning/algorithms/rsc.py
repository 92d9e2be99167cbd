"""Representation self-challenging (RSC)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gga_lightning.algorithms.base import ADAM, Batch, DomainGeneralizer, OptimizerFactory, pool
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["RSC"]


class RSC(DomainGeneralizer):
    """Mutes the features on which a prediction depends most, in training.

    For each sample, the features with the largest gradients of the true class's logit (the share
    ``drop_features``) are candidates. They are set to 0 for the samples whose true class loses the
    most probability by it (the share ``drop_samples``).

    Source: Huang et al., ECCV 2020, arXiv 2007.02454, its form by channels, on the feature vector
    as in DomainBed. The classifier is linear, and the gradient of a logit is therefore a row of its
    weights.

    Example:
        Each class has its own feature. Without it the loss is log(2):

        >>> from gga_lightning.backbones import MLP
        >>> model = RSC(MLP((2,)), num_classes=2, drop_features=1 / 2, drop_samples=1.0)
        >>> model.featurizer, model.classifier = nn.Identity(), nn.Linear(2, 2, bias=False)
        >>> _ = model.classifier.load_state_dict({"weight": torch.eye(2)})
        >>> round(model.objective({"a": (torch.eye(2), torch.tensor([0, 1]))}).item(), 4)
        0.6931
    """

    needs = ("classes", "vectors")

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        drop_features: float = 1 / 3,
        drop_samples: float = 1 / 3,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            drop_features: The share of a sample's features that is left out, in [0, 1].
            drop_samples: The share of samples for which they are left out, in [0, 1].
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If a share is out of range.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        for name, share in (("drop_features", drop_features), ("drop_samples", drop_samples)):
            if not 0 <= share <= 1:
                raise ValueError(f"`{name}` must be in [0, 1], got {share}.")
        self.drop_features = drop_features
        self.drop_samples = drop_samples

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss on the features that are not muted.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        inputs, targets = pool(batch)
        features = self.featurizer(inputs)
        kept = self._kept(features.detach(), targets)
        return functional.cross_entropy(self.classifier(features * kept), targets)

    @torch.no_grad()
    def _kept(self, features: Tensor, targets: Tensor) -> Tensor:
        """1 for the features that are left, 0 for the others, shape (N, F)."""
        slopes = _wide(self.classifier.weight[targets])
        weak = slopes < slopes.quantile(1 - self.drop_features, dim=1, keepdim=True)
        change = self._certainty(features, targets) - self._certainty(features * weak, targets)
        steady = change < change.quantile(1 - self.drop_samples)
        return (weak | steady[:, None]).to(features)

    def _certainty(self, features: Tensor, targets: Tensor) -> Tensor:
        """The true class's probability."""
        probabilities = _wide(self.classifier(features)).softmax(1)
        return probabilities.gather(1, targets[:, None]).squeeze(1)


def _wide(values: Tensor) -> Tensor:
    """In float32 or better, for there are no quantiles in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
