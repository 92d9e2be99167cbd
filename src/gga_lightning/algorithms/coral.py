"""Deep CORAL: alignment of the features' first two moments."""

import torch
from torch import Tensor

from gga_lightning.algorithms.alignment import FeatureAlignment

__all__ = ["CORAL"]


class CORAL(FeatureAlignment):
    """Aligns the means and covariances of the domains' features.

    The distance of two domains is the mean squared difference of their mean features plus that
    of their (unbiased) covariance matrices. It is computed in float32, also under autocast.

    Source: Sun & Saenko, ECCV 2016 workshops, arXiv 1607.01719, in DomainBed's form: the paper
    has the covariances alone, with a factor 1 / (4 F^2) on the summed squares.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = CORAL(MLP((2,)), num_classes=2, gamma=1.0)
        >>> features = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
        >>> model.distance(features, features), model.distance(features, features + 1)
        (tensor(0.), tensor(1.))
    """

    def distance(self, left: Tensor, right: Tensor) -> Tensor:
        """Computes the distance between two domains' features.

        Args:
            left: Shape ``(N, F)``, N at least 2.
            right: Shape ``(M, F)``, M at least 2.

        Returns:
            A scalar.
        """
        with torch.autocast(left.device.type, enabled=False):  # small differences of large numbers
            wide = torch.promote_types(left.dtype, torch.float32)
            left, right = left.to(wide), right.to(wide)
            means = (left.mean(0) - right.mean(0)).square().mean()
            covariances = (torch.cov(left.T) - torch.cov(right.T)).square().mean()
            return means + covariances
