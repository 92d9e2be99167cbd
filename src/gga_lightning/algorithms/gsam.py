"""Surrogate gap guided sharpness-aware minimization (GSAM)."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, OptimizerFactory
from gga_lightning.algorithms.sharpness import SharpnessAware
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["GSAM"]


class GSAM(SharpnessAware):
    """Minimizes the loss like SAM, and the gap between the loss and its highest value nearby.

    Let g be the gradient at the parameters theta, and g' that at theta + rho g / ||g||. The
    optimizer steps by g' - alpha * (g minus the projection of g onto g').

    Source: Zhuang et al., ICLR 2022, arXiv 2203.08065, Algorithm 1, with a constant rho. GGA's
    code fixes rho at 0.05 and ignores the setting.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = GSAM(MLP((2,)), num_classes=2, alpha=0.5)
        >>> here, displaced = [torch.tensor([1.0, 1.0])], [torch.tensor([1.0, 0.0])]
        >>> model.combine(here, displaced)
        [tensor([ 1.0000, -0.5000])]
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
            alpha: The weight of the orthogonal part; not negative.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``alpha`` is negative.
        """
        super().__init__(featurizer, num_classes, rho=rho, optimizer=optimizer, task=task)
        if not alpha >= 0:
            raise ValueError(f"`alpha` must not be negative, got {alpha}.")
        self.alpha = alpha

    def combine(self, gradient: list[Tensor], displaced: list[Tensor]) -> list[Tensor]:
        """Makes the direction of the step; see :class:`SharpnessAware`."""
        along = _inner(gradient, displaced) / (_inner(displaced, displaced) + 1e-12)
        return [
            new - self.alpha * (old - along * new)
            for old, new in zip(gradient, displaced, strict=True)
        ]


def _inner(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """The inner product of two gradients."""
    return torch.stack([(a * b).sum() for a, b in zip(left, right, strict=True)]).sum()
