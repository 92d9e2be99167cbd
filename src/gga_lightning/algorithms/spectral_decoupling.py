"""Spectral decoupling (SD)."""

from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, Batch, DomainGeneralizer, OptimizerFactory, pool
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["SpectralDecoupling"]


class SpectralDecoupling(DomainGeneralizer):
    """Minimizes the mean loss and the mean square of the logits.

    Source: Pezeshki et al., NeurIPS 2021, arXiv 2011.09468, equation 25. As in DomainBed: the mean
    is over samples and classes.

    Example:
        >>> import torch
        >>> from gga_lightning.backbones import MLP
        >>> model = SpectralDecoupling(MLP((2,)), num_classes=2, penalty_weight=0.1)
        >>> x, y = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
        >>> expected = model.domain_loss((x, y)) + 0.1 * model(x).square().mean()
        >>> model.objective({"photo": (x, y)}).isclose(expected).item()
        True
    """

    needs = ("logits",)

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        penalty_weight: float = 0.1,
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
        inputs, targets = pool(batch)
        logits = self(inputs)
        penalty = logits.square().mean()
        return self.task.loss(logits, targets) + self.penalty_weight * penalty
