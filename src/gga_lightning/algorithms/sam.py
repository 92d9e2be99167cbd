"""Sharpness-aware minimization (SAM)."""

from torch import Tensor

from gga_lightning.algorithms.sharpness import SharpnessAware

__all__ = ["SAM"]


class SAM(SharpnessAware):
    """Minimizes the loss at the worst point nearby, which leads to flat minima.

    The step uses the gradient at the displaced parameters theta + rho * g / ||g||, where theta are
    the parameters and g is the gradient of the loss on the joined batch at theta.

    Source: Foret et al., ICLR 2021, arXiv 2010.01412, Algorithm 1. The code of the GGA paper does
    not guard the division against ||g|| = 0, and updates running statistics in both passes.

    Example:
        >>> import torch
        >>> from gga_lightning.backbones import MLP
        >>> model = SAM(MLP((2,)), num_classes=2, rho=0.5)
        >>> model.displacement(torch.tensor(2.0))  # 0.5 / 2
        tensor(0.2500)
        >>> model.combine([torch.tensor([1.0])], [torch.tensor([3.0])])
        [tensor([3.])]
    """

    def combine(self, gradient: list[Tensor], displaced: list[Tensor]) -> list[Tensor]:
        """Combines the two gradients; see :class:`SharpnessAware`."""
        return displaced
