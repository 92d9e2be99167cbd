"""CausIRL with the distance of MMD."""

from gga_lightning.algorithms.causirl import CausIRL
from gga_lightning.algorithms.mmd import MMD

__all__ = ["CausIRLMMD"]


class CausIRLMMD(CausIRL, MMD):
    """Aligns the feature distributions of two random groups of samples from all domains.

    See :class:`gga_lightning.algorithms.causirl.CausIRL` for the groups and the source, and
    :class:`MMD` for the distance. It is the biased estimate, which is positive for two samples of
    one distribution.

    Example:
        >>> import torch
        >>> from gga_lightning.backbones import MLP
        >>> model = CausIRLMMD(MLP((2,)), num_classes=2)
        >>> model.penalty([torch.ones(4, 32), torch.ones(4, 32)])  # features that depend on nothing
        tensor(0.)
        >>> model.penalty([torch.randn(4, 32), torch.randn(4, 32)]).item() >= 0
        True
    """
