"""Risk minimization with an information bottleneck (IB-ERM)."""

from typing import Literal

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.annealed import AnnealedPenalty
from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, pool, require_domains
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["IBERM"]


class IBERM(AnnealedPenalty):
    """Minimizes the mean of the domains' losses and the variance of the features in each domain.

    The penalty is the variance of a feature over the samples of a domain (divided by N_e - 1),
    averaged over the features and the domains. Low variance stands for low entropy: the network
    is to keep only what it needs of the input.

    Source: Ahuja et al., NeurIPS 2021, arXiv 2106.06607. As in DomainBed, from which the paper's
    DomainBed results come. The paper argues with the variance of the classifier's output, which
    is ``of="logits"``. In DomainBed a domain with a single sample makes all weights NaN from the
    first step on, even while the weight of the penalty is 0; here it raises an error.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = IBERM(MLP((2,)), num_classes=2, penalty_weight=100.0, anneal_steps=0)
        >>> x, y = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
        >>> penalty = model.featurizer(x).var(0).mean()
        >>> expected = model.domain_loss((x, y)) + 100 * penalty
        >>> model.objective({"photo": (x, y)}).isclose(expected).item()
        True
    """

    weight_before = 0.0

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        penalty_weight: float = 100.0,
        anneal_steps: int = 500,
        of: Literal["features", "logits"] = "features",
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            penalty_weight: The variance's weight from ``anneal_steps`` on; 0 before. Not negative.
            anneal_steps: The optimizer step from which on the variance is penalized.
            of: Whose variance: that of the ``"features"`` or of the ``"logits"``.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(
            featurizer, num_classes, penalty_weight, anneal_steps, optimizer=optimizer, task=task
        )
        if not penalty_weight >= 0:
            raise ValueError(f"`penalty_weight` must not be negative, got {penalty_weight}.")
        if of not in ("features", "logits"):
            raise ValueError(f"`of` must be 'features' or 'logits', got {of!r}.")
        self.of = of

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss and the weighted variance.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        require_domains(batch, type(self).__name__, domains=1, samples=2)
        targets = [own for _, own in batch.values()]
        sizes = [len(own) for own in targets]
        features = self.featurizer(pool(batch)[0])
        logits = self.classifier(features)
        pairs = zip(logits.split(sizes), targets, strict=True)
        loss = torch.stack([self.domain_objective(z, y) for z, y in pairs]).mean()
        if self.weight == 0:
            return loss
        penalized = features if self.of == "features" else logits
        variances = [own.var(0).mean() for own in penalized.split(sizes)]
        return loss + self.weight * torch.stack(variances).mean()

    def domain_objective(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Computes a domain's part of the objective without the variance.

        Args:
            logits: Shape ``(N, num_classes)``.
            targets: The classes, shape ``(N,)``.

        Returns:
            A scalar, the mean cross-entropy unless a subclass overrides it.
        """
        return self.task.loss(logits, targets)
