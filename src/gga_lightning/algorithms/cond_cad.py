"""Conditional contrastive adversarial domain bottleneck (CondCAD)."""

from torch import Tensor

from gga_lightning.algorithms.contrastive_bottleneck import ContrastiveBottleneck

__all__ = ["CondCAD"]


class CondCAD(ContrastiveBottleneck):
    """Mixes the domains' features within each class by a contrastive term.

    The candidates of a sample are the other samples of its class. The samples that take part are
    those whose class occurs in another domain of the batch. With many classes and small batches
    they are few. See
    :class:`gga_lightning.algorithms.contrastive_bottleneck.ContrastiveBottleneck` for the term and
    the source.

    Example:
        >>> import torch
        >>> from gga_lightning.backbones import MLP
        >>> model = CondCAD(MLP((2,)), num_classes=2)
        >>> domains = torch.tensor([0, 0, 1, 1])
        >>> model.mixing(torch.eye(4), torch.tensor([0, 0, 1, 1]), domains)
        tensor(0.)
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
        >>> model.mixing(features, torch.tensor([0, 1, 0, 1]), domains)  # one candidate each
        tensor(0.)
    """

    needs = ("classes", "vectors")

    def choose(self, same_class: Tensor, same_domain: Tensor) -> tuple[Tensor, Tensor]:
        """Chooses the candidates and the samples that take part."""
        return same_class, (same_class & ~same_domain).any(1)
