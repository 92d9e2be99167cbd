"""Agr-Rand: random gradients where the domains disagree."""

import torch
from torch import Tensor

from gga_lightning.algorithms.agr_sum import AgrSum

__all__ = ["AgrRand"]


class AgrRand(AgrSum):
    """Sums the domains' gradients where all signs agree, and draws random gradients elsewhere.

    A coordinate in which the signs differ, or one gradient is 0, gets s times a number drawn from
    N(0, 1). Here s is the mean absolute value of the sum over the agreeing coordinates of the whole
    network. If no coordinate agrees, s is 0 (the authors' code makes all weights NaN then).

    The seed of the draw comes from PyTorch's CPU generator, and is the same on all processes.

    Source: Mansilla, Echeveste, Milone & Ferrante, ICCV 2021, arXiv 2108.01621, and its code.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from gga_lightning.backbones import MLP
        >>> model = AgrRand(MLP((2,)), num_classes=2)
        >>> model.trainer = Trainer(fast_dev_run=True, accelerator="cpu")
        >>> agreeing = torch.tensor([True, False])
        >>> [filled] = model.fill([torch.tensor([4.0, 0.0])], [agreeing])
        >>> filled[0], filled[1].item() != 0  # the second is drawn at random
        (tensor(4.), True)
    """

    def fill(self, sums: list[Tensor], agreeing: list[Tensor]) -> list[Tensor]:
        """Draws gradients where the domains disagree; see :meth:`AgrSum.fill`."""
        total = torch.stack([part.abs().sum() for part in sums]).sum()
        number = torch.stack([kept.sum() for kept in agreeing]).sum()
        scale = total / number.clamp(min=1)
        seed = self.from_first_process(torch.randint(2**62, ()))
        generator = torch.Generator(total.device).manual_seed(int(seed))
        filled: list[Tensor] = []
        for part, kept in zip(sums, agreeing, strict=True):
            noise = torch.empty_like(part).normal_(generator=generator)
            filled.append(torch.where(kept, part, scale * noise))
        return filled
