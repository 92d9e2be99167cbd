"""Risk extrapolation (V-REx)."""

from torch import Tensor, nn

from gga_lightning.algorithms.annealed import AnnealedPenalty
from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["VREx"]


class VREx(AnnealedPenalty):
    """Minimizes the mean of the domains' losses and the variance of these losses.

    Source: Krueger et al., ICML 2021, arXiv 2003.00688, V-REx. As in DomainBed: the variance is
    that of the population.

    Example:
        >>> import torch
        >>> from gga_lightning.backbones import MLP
        >>> model = VREx(MLP((2,)), num_classes=2, penalty_weight=10.0, anneal_steps=0)
        >>> y = torch.tensor([0, 1, 0, 1])
        >>> batch = {"photo": (torch.randn(4, 2), y), "sketch": (torch.randn(4, 2), y)}
        >>> losses = model.domain_losses(batch)
        >>> model.objective(batch).isclose(losses.mean() + 10 * losses.var(correction=0)).item()
        True
    """

    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        penalty_weight: float = 10.0,
        anneal_steps: int = 500,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            penalty_weight: The variance's weight (beta) from ``anneal_steps`` on; 1 before.
            anneal_steps: Number of optimizer steps before that.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.
        """
        super().__init__(
            featurizer, num_classes, penalty_weight, anneal_steps, optimizer=optimizer, task=task
        )

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean and the weighted variance of the domains' losses.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        require_domains(batch, "VREx")
        losses = self.domain_losses(batch)
        return losses.mean() + self.weight * losses.var(correction=0)
