"""Domain-adversarial neural networks (DANN)."""

from gga_lightning.algorithms.adversarial import Adversarial

__all__ = ["DANN"]


class DANN(Adversarial):
    """Learns features of which a discriminator cannot tell the domain.

    See :class:`gga_lightning.algorithms.adversarial.Adversarial` for the two schemes.

    Source: Ganin et al., JMLR 2016, arXiv 1505.07818; with several source domains, and no target,
    as DomainBed, whose form is ``scheme="alternating"``. SWAD's and GGA's code has the gradient
    penalty wrong (of a sum over classes).
    """
