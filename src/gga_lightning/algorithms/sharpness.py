"""What SAM, GSAM and SAGM share: gradients at two points, to find flat minima."""

from abc import abstractmethod

from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory
from gga_lightning.algorithms.manual import ManualGeneralizer

__all__ = ["SharpnessAware"]


class SharpnessAware(ManualGeneralizer):
    """Combines the gradient at the parameters with the gradient at displaced parameters.

    The parameters are displaced along their gradient, to a point nearby where the loss is about
    highest. A subclass decides in :meth:`combine` how the two gradients make a step. Both gradients
    are averaged over the processes, so that several processes do what one does on the joined
    batch. The authors' code of SAM and GSAM displaces each process by its own gradient.

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
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            rho: The displacement's length; positive.
            optimizer: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``rho`` is not positive.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer)
        if not rho > 0:
            raise ValueError(f"`rho` must be positive, got {rho}.")
        self.rho = rho

    @abstractmethod
    def combine(self, gradient: list[Tensor], displaced: list[Tensor]) -> list[Tensor]:
        """Combines the two gradients into that of the step.

        Args:
            gradient: The gradient at the parameters, a tensor for each trained one.
            displaced: The gradient at the displaced parameters.

        Returns:
            The gradient that the optimizer uses.
        """

    def displacement(self, norm: Tensor) -> Tensor:
        """Computes the displacement, as a multiple of the gradient.

        Args:
            norm: The gradient's norm, a scalar.

        Returns:
            A scalar.
        """
        return self.rho / (norm + 1e-12)

    def update(self, batch: Batch) -> Tensor:
        """Makes one step from two gradients.

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
