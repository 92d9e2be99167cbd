"""Empirical risk minimization."""

from gga_lightning.algorithms.base import DomainGeneralizer

__all__ = ["ERM"]


class ERM(DomainGeneralizer):
    """Minimizes the mean loss over all source domains' samples, taken together.

    Source: Vapnik, 1998.
    """
