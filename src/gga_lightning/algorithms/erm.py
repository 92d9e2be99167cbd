"""Empirical risk minimization."""

from gga_lightning.algorithms.base import DomainGeneralizer

__all__ = ["ERM"]


class ERM(DomainGeneralizer):
    """Minimizes the mean loss over all source domains' samples, taken together.

    Source: Vapnik, 1998.

    Example:
        >>> import torch
        >>> from gga_lightning.backbones import MLP
        >>> model = ERM(MLP((2,)), num_classes=2)
        >>> y = torch.tensor([0, 1, 0, 1])
        >>> batch = {"photo": (torch.randn(4, 2), y), "sketch": (torch.randn(4, 2), y)}
        >>> model.objective(batch).isclose(model.domain_losses(batch).mean()).item()
        True
    """
