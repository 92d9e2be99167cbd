"""CausIRL with the distance of CORAL."""

from gga_lightning.algorithms.causirl import CausIRL
from gga_lightning.algorithms.coral import CORAL

__all__ = ["CausIRLCORAL"]


class CausIRLCORAL(CausIRL, CORAL):
    """Aligns the means and covariances of two random groups of samples from all domains.

    See :class:`gga_lightning.algorithms.causirl.CausIRL` for the groups and the source, and
    :class:`CORAL` for the distance.
    """
