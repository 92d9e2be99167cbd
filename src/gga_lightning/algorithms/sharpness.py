"""Base of the algorithms that look for flat minima (the family of SAM)."""

from abc import abstractmethod

from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory
from gga_lightning.algorithms.manual import ManualGeneralizer
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["SharpnessAware"]


class SharpnessAware(ManualGeneralizer):
    """Finds flat minima by gradients here and at a nearby point where the loss is about highest.

    That point is at a displacement along the gradient. With several processes both gradients are
    means over the processes. They therefore do what one process does on the joined batch. (SAM's
    and GSAM's own code displaces each process by its own gradient.)

    Example:
        >>> import torch
        >>> from gga_lightning.backbones import MLP
        >>> class MeanGradient(SharpnessAware):  # steps along the mean of both gradients
        ...     def combine(self, gradient, displaced):
        ...         return [(here + there) / 2 for here, there in zip(gradient, displaced)]
        >>> model = MeanGradient(MLP((2,)), num_classes=2, rho=0.5)
        >>> model.combine([torch.tensor([1.0])], [torch.tensor([3.0])])
        [tensor([2.])]
        >>> round(model.displacement(torch.tensor(2.0)).item(), 6)  # rho / ||g||
        0.25
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        rho: float = 0.05,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            rho: The displacement's length; positive.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``rho`` is not positive.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not rho > 0:
            raise ValueError(f"`rho` must be positive, got {rho}.")
        self.rho = rho

    @abstractmethod
    def combine(self, gradient: list[Tensor], displaced: list[Tensor]) -> list[Tensor]:
        """Makes the direction of the step.

        Args:
            gradient: The gradient here, a tensor for each trained parameter.
            displaced: The gradient at the displaced parameters.

        Returns:
            The gradient that the optimizer gets.
        """

    def displacement(self, norm: Tensor) -> Tensor:
        """Gives the displacement, as a multiple of the gradient.

        Args:
            norm: The gradient's norm, a scalar.

        Returns:
            A scalar.
        """
        return self.rho / (norm + 1e-12)

    def update(self, batch: Batch) -> Tensor:
        """Makes a step.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, to be logged.
        """
        loss = self.objective(batch)
        gradient = self.gradient(loss)
        with self.displaced(gradient, self.displacement(get_total_norm(gradient))):
            displaced = self.gradient(self.objective(batch))
        self.step(self.combine(gradient, displaced))
        return loss
