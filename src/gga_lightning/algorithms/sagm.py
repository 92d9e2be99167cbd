"""Sharpness-aware gradient matching (SAGM)."""

from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, OptimizerFactory
from gga_lightning.algorithms.sharpness import SharpnessAware
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["SAGM"]


class SAGM(SharpnessAware):
    """Minimizes the plain risk and SAM's loss at once, and aligns their gradients.

    Let g be the gradient at the parameters theta. The optimizer steps by the mean of g and the
    gradient at theta + (rho / ||g|| - alpha) g.

    Source: Wang et al., CVPR 2023, arXiv 2303.10353. The paper adds the two gradients; its code and
    ours take their mean. In GGA's code it cannot be constructed, and rho is fixed at 0.05.

    Example:
        >>> import torch
        >>> from gga_lightning.backbones import MLP
        >>> model = SAGM(MLP((2,)), num_classes=2, rho=0.5, alpha=0.125)
        >>> model.displacement(torch.tensor(2.0))  # 0.5 / 2 - 0.125
        tensor(0.1250)
        >>> model.combine([torch.tensor([1.0])], [torch.tensor([3.0])])
        [tensor([2.])]
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        rho: float = 0.05,
        alpha: float = 0.001,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            rho: The displacement's length; positive.
            alpha: The weight of the gradients' alignment; not negative. The displacement is shorter
                by ``alpha`` times the gradient.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``alpha`` is negative.
        """
        super().__init__(featurizer, num_classes, rho=rho, optimizer=optimizer, task=task)
        if not alpha >= 0:
            raise ValueError(f"`alpha` must not be negative, got {alpha}.")
        self.alpha = alpha

    def displacement(self, norm: Tensor) -> Tensor:
        """Gives the displacement; see :class:`SharpnessAware`."""
        return super().displacement(norm) - self.alpha

    def combine(self, gradient: list[Tensor], displaced: list[Tensor]) -> list[Tensor]:
        """Makes the direction of the step; see :class:`SharpnessAware`."""
        return [(old + new) / 2 for old, new in zip(gradient, displaced, strict=True)]
