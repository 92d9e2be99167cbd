"""Conditional domain-adversarial neural networks (CDANN)."""

from torch import Tensor, nn
from torch.nn import functional

from gga_lightning.algorithms.adversarial import Adversarial

__all__ = ["CDANN"]


class CDANN(Adversarial):
    """Learns features from which a discriminator that knows the class cannot tell the domain.

    An embedding of the class is added to the features that the discriminator sees, and each class
    of the batch has the same weight in its loss.

    See :class:`gga_lightning.algorithms.adversarial.Adversarial` for the two schemes.

    Source: Li et al., ECCV 2018, in DomainBed's form, with the embedding in place of one
    discriminator per class. DomainBed divides the loss by the highest label in the batch plus one.
    We divide by the number of classes in the batch.

    Example:
        >>> import torch
        >>> from gga_lightning.backbones import MLP
        >>> model = CDANN(MLP((2,)), num_classes=2, num_domains=3)
        >>> seen = model.condition(torch.ones(2, 32), torch.tensor([0, 1]))
        >>> seen[0].equal(seen[1])  # with the class
        False
    """

    needs = ("classes", "vectors")

    def add_parts(self) -> None:
        """Adds the classes' embedding; see :class:`Adversarial`."""
        self.class_embedding = nn.Embedding(self.num_classes, self.classifier.in_features)

    def condition(self, features: Tensor, targets: Tensor) -> Tensor:
        """Makes the discriminator's input; see :class:`Adversarial`."""
        return features + self.class_embedding(targets)

    def discriminator_loss(self, logits: Tensor, domains: Tensor, targets: Tensor) -> Tensor:
        """Computes the discriminator's loss; see :class:`Adversarial`."""
        counts = functional.one_hot(targets, self.num_classes).sum(0)
        losses = functional.cross_entropy(logits, domains, reduction="none")
        return (losses / (counts[targets] * (counts > 0).sum())).sum()

    def _discriminating(self) -> list[nn.Parameter]:
        return [*super()._discriminating(), *self.class_embedding.parameters()]
