"""Adaptive risk minimization (ARM): images with a context from their own domain."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, Batch, DomainGeneralizer, OptimizerFactory, pool
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["ARM"]


class ARM(DomainGeneralizer):
    """Adds to each image a channel with context that a network computes from other images.

    The images of a domain in a batch are divided into support sets. A context network makes one map
    from each image, and the mean of the maps over the set is added to every image of the set as a
    channel. Predictions therefore depend on the other images of the batch. A batch whose size is
    not a multiple of ``support_size`` has one smaller set.

    Source: Zhang et al., NeurIPS 2021, arXiv 2007.02931, ARM-CML, with DomainBed's context network.
    DomainBed uses the batch size as the support size, and the whole batch as one set where that
    does not divide it. It never trains the context network, because its optimizer is created before
    it.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> ARM.featurizer_shape((3, 8, 8))  # one channel more, for the context
        (4, 8, 8)
        >>> model = ARM(MLP((4, 8, 8)), num_classes=2, input_shape=(3, 8, 8)).eval()
        >>> images = torch.rand(4, 3, 8, 8)
        >>> model(images)[0].allclose(model(images[:1])[0])  # the others matter
        False
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        input_shape: Sequence[int],
        support_size: int = 32,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`; for images with one channel more, see
                :meth:`featurizer_shape`.
            num_classes: How many classes there are.
            input_shape: Shape of one image, ``(channels, height, width)``.
            support_size: Images in a support set; at least 1.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if len(input_shape) != 3:
            raise ValueError(
                "`input_shape` must be that of an image, (channels, height, width), got "
                f"{tuple(input_shape)}."
            )
        if support_size < 1:
            raise ValueError(f"`support_size` must be at least 1, got {support_size}.")
        self.support_size = support_size
        layers: list[nn.Module] = []
        for width in (input_shape[0], 64):
            convolution = nn.Conv2d(width, 64, kernel_size=5, padding=2)
            layers += [convolution, nn.BatchNorm2d(64), nn.ReLU()]
        self.context = nn.Sequential(*layers, nn.Conv2d(64, 1, kernel_size=5, padding=2))

    @classmethod
    def featurizer_shape(cls, input_shape: Sequence[int]) -> tuple[int, ...]:
        """Gives the shape of the featurizer's inputs, which have one more channel.

        Args:
            input_shape: Shape of one image, ``(channels, height, width)``.

        Returns:
            Shape of one image of the featurizer.
        """
        channels, *size = input_shape
        return (channels + 1, *size)

    def forward(self, inputs: Tensor) -> Tensor:
        """Computes the logits of a batch of one domain.

        Args:
            inputs: Shape ``(N, channels, height, width)``.

        Returns:
            Shape ``(N, num_classes)``.
        """
        return self._logits(inputs, [len(inputs)])

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss over all images.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        inputs, targets = pool(batch)
        sizes = [len(own) for _, own in batch.values()]
        return self.task.loss(self._logits(inputs, sizes), targets)

    def _logits(self, inputs: Tensor, sizes: Sequence[int]) -> Tensor:
        """The logits of images of several domains, so many of each."""
        contexts = [
            support.mean(0, keepdim=True).expand_as(support)
            for own in self.context(inputs).split(sizes)
            for support in own.split(self.support_size)
        ]
        return super().forward(torch.cat([inputs, torch.cat(contexts).to(inputs)], 1))
