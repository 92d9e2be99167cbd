"""Agr-Sum: the sum of the domains' gradients where all signs agree."""

import torch
from torch import Tensor

from gga_lightning.algorithms.base import Batch, require_domains
from gga_lightning.algorithms.manual import ManualGeneralizer

__all__ = ["AgrSum"]


class AgrSum(ManualGeneralizer):
    """Sums the domains' gradients in each coordinate where all of them have the same sign.

    A coordinate in which the gradients have different signs, or one is 0, gets the gradient 0. It
    still moves by Adam's momentum and by weight decay; see
    :class:`gga_lightning.GradientAgreementVoting` for a mask on the update itself. With D domains
    the gradient is D times that of :class:`gga_lightning.algorithms.ANDMask` with ``tau=1`` before
    ANDMask's division by the share of kept coordinates. Adam does not depend on such a factor;
    gradient descent and weight decay do.

    Source: Mansilla, Echeveste, Milone & Ferrante, ICCV 2021, arXiv 2108.01621, and its code.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = AgrSum(MLP((2,)), num_classes=2)
        >>> gradients = [[torch.tensor([1.0, 2.0])], [torch.tensor([3.0, -1.0])]]
        >>> model.domain_gradients = lambda batch: (torch.tensor(0.7), gradients)  # of two domains
        >>> model.step = lambda gradient: print(*gradient)  # instead of the optimizer's step
        >>> loss = model.update({name: (torch.eye(2), torch.tensor([0, 1])) for name in ("a", "b")})
        tensor([4., 0.])
    """

    min_domains = 2

    def update(self, batch: Batch) -> Tensor:
        """Makes a step.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, to be logged.
        """
        require_domains(batch, type(self).__name__)
        loss, gradients = self.domain_gradients(batch)
        stacked = [torch.stack(parts) for parts in zip(*gradients, strict=True)]
        agreeing = [parts.sign().sum(0).abs() == len(batch) for parts in stacked]
        sums = [parts.sum(0) * kept for parts, kept in zip(stacked, agreeing, strict=True)]
        self.step(self.fill(sums, agreeing))
        return loss

    def fill(self, sums: list[Tensor], agreeing: list[Tensor]) -> list[Tensor]:
        """Fills the coordinates in which the domains disagree.

        Args:
            sums: The sum of the gradients, 0 where they disagree, a tensor for each parameter.
            agreeing: Where they agree, a boolean tensor for each parameter.

        Returns:
            The gradient of the step, which is ``sums`` itself unless a subclass overrides it.
        """
        return sums
