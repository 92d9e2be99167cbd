"""CutMix: pastes boxes between images."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from gga_lightning.algorithms.base import ADAM, Batch, DomainGeneralizer, OptimizerFactory, pool

__all__ = ["CutMix"]


class CutMix(DomainGeneralizer):
    """Trains on images into which a box of another image of any domain is pasted.

    The box covers a share 1 - l of the image, with l ~ Beta(alpha, alpha). The loss is the mean of
    the losses of both targets, weighted by the shares of the image that belong to them. All images
    of a batch get the same box, each from another image of the joined batch, drawn at random.

    Source: Yun et al., ICCV 2019, arXiv 1905.04899; by :class:`torchvision.transforms.v2.CutMix`.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> _ = torch.manual_seed(0)
        >>> model = CutMix(MLP((3, 8, 8)), num_classes=2, alpha=1.0)
        >>> y = torch.tensor([0, 1, 0, 1])
        >>> batch = {"photo": (torch.rand(4, 3, 8, 8), y), "sketch": (torch.rand(4, 3, 8, 8), y)}
        >>> model.objective(batch).equal(model.objective(batch))  # each call draws another box
        False
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        alpha: float = 1.0,
        optimizer: OptimizerFactory = ADAM,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`; takes images ``(N, C, H, W)``.
            num_classes: How many classes there are.
            alpha: Both parameters of the Beta distribution; positive.
            optimizer: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``alpha`` is not positive.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer)
        if not alpha > 0:
            raise ValueError(f"`alpha` must be positive, got {alpha}.")
        self._cutmix = v2.CutMix(alpha=alpha, num_classes=num_classes)

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss over the mixed samples.

        Args:
            batch: Domain name to (images, targets).

        Returns:
            The loss, a scalar.
        """
        images, targets = pool(batch)
        order = torch.randperm(len(targets)).to(targets.device)  # it pastes from a neighbour
        images, shares = self._cutmix(images[order], targets[order])
        return functional.cross_entropy(self(images), shares)
