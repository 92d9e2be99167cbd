"""Domain-adversarial neural networks (DANN)."""

from gga_lightning.algorithms.adversarial import Adversarial

__all__ = ["DANN"]


class DANN(Adversarial):
    """Learns features from which a discriminator cannot tell the domain.

    See :class:`gga_lightning.algorithms.adversarial.Adversarial` for the two schemes.

    Source: Ganin et al., JMLR 2016, arXiv 1505.07818; with several source domains, and no target,
    as in DomainBed, whose form is ``scheme="alternating"``. SWAD's and GGA's code has the gradient
    penalty wrong (of a sum over classes).

    Example:
        >>> import torch
        >>> from gga_lightning.algorithms import pool
        >>> from gga_lightning.backbones import MLP
        >>> model = DANN(MLP((2,)), num_classes=2, num_domains=2, ramp_steps=0)
        >>> y = torch.tensor([0, 1, 0, 1])
        >>> batch = {"photo": (torch.randn(4, 2), y), "sketch": (torch.randn(4, 2), y)}
        >>> (model.objective(batch) > model.domain_loss(pool(batch))).item()
        True
    """
