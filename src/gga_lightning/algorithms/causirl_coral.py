"""CausIRL with the distance of CORAL."""

from gga_lightning.algorithms.causirl import CausIRL
from gga_lightning.algorithms.coral import CORAL

__all__ = ["CausIRLCORAL"]


class CausIRLCORAL(CausIRL, CORAL):
    """Aligns the means and covariances of two random groups of samples from all domains.

    See :class:`gga_lightning.algorithms.causirl.CausIRL` for the groups and the source, and
    :class:`CORAL` for the distance.

    Example:
        >>> import torch
        >>> from gga_lightning.backbones import MLP
        >>> model = CausIRLCORAL(MLP((2,)), num_classes=2)
        >>> model.penalty([torch.ones(4, 32), torch.ones(4, 32)])  # features that depend on nothing
        tensor(0.)
        >>> batch = {"photo": (torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))}
        >>> model.objective(batch).item() > 0  # of one domain
        True
    """
