"""SAND-mask: a smooth form of the AND-mask."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.and_mask import ANDMask
from gga_lightning.algorithms.base import ADAM, OptimizerFactory
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["SANDMask"]


class SANDMask(ANDMask):
    """Weighs each coordinate of the mean gradient by how far the domains' gradients agree.

    For one coordinate, let a be the absolute mean of the domains' signs, and v the variance of
    the domains' gradients (divided by D - 1 for D domains). The weight is

        m = max(0, tanh(k (a - tau) / v)),

    and the gradient is m times the mean gradient, divided by the mean of m over the parameter
    tensor. Coordinates with weight 0 still move by Adam's momentum and by weight decay, as in
    :class:`ANDMask`.

    The variances of a network's gradients are so small that nearly every weight is 0 or 1. The
    result is then that of :class:`ANDMask` with the same ``tau``, except where a equals ``tau``.

    Source: Shahtalebi et al., 2021, arXiv 2106.02266, as in DomainBed. DomainBed's default
    ``tau=1`` trains nothing, because a is at most 1; here ``tau`` must be less than 1, and the
    default is 0.5.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = SANDMask(MLP((2,)), num_classes=2, tau=0.5, k=10.0)
        >>> gradients = [[torch.tensor([1.0, 2.0])], [torch.tensor([3.0, -1.0])]]
        >>> model.domain_gradients = lambda batch: (torch.tensor(0.7), gradients)  # of two domains
        >>> model.step = lambda gradient: print(*gradient)  # instead of the optimizer's step
        >>> loss = model.update({name: (torch.eye(2), torch.tensor([0, 1])) for name in ("a", "b")})
        tensor([4., 0.])
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        tau: float = 0.5,
        k: float = 10.0,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            tau: The absolute mean of the signs above which the weight is positive, in [0, 1).
            k: How steeply the weight rises with the agreement; positive.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        if not 0 <= tau < 1:
            raise ValueError(f"`tau` must be in [0, 1), got {tau}: with 1 nothing is trained.")
        if not k > 0:
            raise ValueError(f"`k` must be positive, got {k}.")
        super().__init__(featurizer, num_classes, tau=tau, optimizer=optimizer, task=task)
        self.k = k

    def _masked(self, gradients: Tensor) -> Tensor:
        """The mean of a parameter's gradients, shape (D, ...), where they agree."""
        agreement = gradients.sign().mean(0).abs()
        # 0 / 0 is NaN; far above this bound tanh is 1 to the last digit
        variance = gradients.var(0).clamp(min=1e-30)
        kept = torch.tanh(self.k * (agreement - self.tau) / variance).clamp(min=0)
        return kept * gradients.mean(0) / (1e-10 + kept.mean())
