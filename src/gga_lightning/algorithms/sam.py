"""Sharpness-aware minimization (SAM)."""

from torch import Tensor

from gga_lightning.algorithms.sharpness import SharpnessAware

__all__ = ["SAM"]


class SAM(SharpnessAware):
    """Steps by the gradient at the point nearby where the loss is about highest.

    Let g be the gradient at the parameters theta. The optimizer steps from theta by the gradient at
    theta + rho g / ||g||.

    Source: Foret et al., ICLR 2021, arXiv 2010.01412, Algorithm 1, on the joined batch. GGA's code
    divides by ||g|| even where it is 0, and updates running statistics in both passes.

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
        """Makes the direction of the step; see :class:`SharpnessAware`."""
        return displaced
