"""Inter-environmental gradient alignment (IGA)."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import (
    ADAM,
    Batch,
    DomainGeneralizer,
    OptimizerFactory,
    require_domains,
)
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["IGA"]


class IGA(DomainGeneralizer):
    """Minimizes the mean of the domains' losses and the spread of their gradients.

    The penalty is the sum over the domains of the squared distance of their gradient to the mean
    gradient, which is held constant. It is differentiated through the gradients. A step therefore
    needs a double backward pass over the whole network, and the memory for it.

    Source: Koyama & Yamaguchi, 2020, arXiv 2008.01883, in DomainBed's form.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = IGA(MLP((2,)), num_classes=2, penalty_weight=1000.0)
        >>> x, y = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
        >>> same, other = {"a": (x, y), "b": (x, y)}, {"a": (x, y), "b": (-x, y)}
        >>> model.objective(same).isclose(model.domain_losses(same).mean()).item()
        True
        >>> (model.objective(other) > model.domain_losses(other).mean()).item()
        True
    """

    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        penalty_weight: float = 1000.0,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            penalty_weight: The penalty's weight.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        self.penalty_weight = penalty_weight

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss and the penalty.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        require_domains(batch, "IGA")
        losses = torch.stack([self.domain_loss(part) for part in batch.values()])
        params = [param for param in self.parameters() if param.requires_grad]
        gradients = [
            torch.autograd.grad(
                loss, params, create_graph=True, allow_unused=True, materialize_grads=True
            )
            for loss in losses
        ]
        penalty = losses.new_zeros(())
        for own in zip(*gradients, strict=True):
            stacked = torch.stack(own)
            penalty = penalty + (stacked - stacked.mean(0).detach()).square().sum()
        return losses.mean() + self.penalty_weight * penalty
