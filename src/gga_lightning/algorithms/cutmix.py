"""CutMix: boxes pasted between images."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from gga_lightning.algorithms.base import ADAM, Batch, DomainGeneralizer, OptimizerFactory, pool
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["CutMix"]


class CutMix(DomainGeneralizer):
    """Trains on images with a box from another sample pasted in, of any domain.

    The box covers a share 1 - l of the image, l ~ Beta(alpha, alpha), and the losses of both
    targets are weighted by what of the image is theirs. One box a batch, and other samples drawn
    at random from the joined batch.

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

    needs = ("classes",)

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        alpha: float = 1.0,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`; takes images ``(N, C, H, W)``.
            num_classes: How many classes there are.
            alpha: Both parameters of the Beta distribution; positive.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``alpha`` is not positive.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
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
