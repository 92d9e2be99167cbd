"""CutMix: boxes pasted between images."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from gga_lightning.algorithms.base import ADAM, Batch, DomainGeneralizer, OptimizerFactory, pool
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["CutMix"]


class CutMix(DomainGeneralizer):
    """Trains on images into which a box from another sample is pasted, whatever its domain.

    The box covers a share 1 - l of the image, l ~ Beta(alpha, alpha). The losses of both targets
    are weighted by their shares of the image. There is one box per batch. The other samples are
    drawn at random from the joined batch.

    Source: Yun et al., ICCV 2019, arXiv 1905.04899; by :class:`torchvision.transforms.v2.CutMix`.

    Example:
        Among equal images the box changes nothing, and the loss is that of ERM:

        >>> from gga_lightning.backbones import MLP
        >>> model = CutMix(MLP((3, 8, 8)), num_classes=2, alpha=1.0)
        >>> x, y = torch.ones(2, 3, 8, 8), torch.tensor([0, 0])
        >>> bool(model.objective({"a": (x, y), "b": (x, y)}).isclose(model.domain_loss((x, y))))
        True
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
