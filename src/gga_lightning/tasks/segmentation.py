"""One class for each pixel."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.classification import MulticlassJaccardIndex

from gga_lightning.tasks.predictions import MaskPrediction
from gga_lightning.tasks.task import Task

__all__ = ["PixelClassifier", "Segmentation"]


class PixelClassifier(nn.Linear):
    """Applies a linear layer to the features of each position, and enlarges the result.

    Attributes:
        stride: How many times as large as the feature maps the outputs are.

    Example:
        >>> import torch
        >>> PixelClassifier(16, 3, stride=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 3, 16, 16])
    """

    def __init__(self, in_features: int, out_features: int, *, stride: int) -> None:
        """Sets up the layer.

        Args:
            in_features: Channels of the feature maps.
            out_features: How many classes there are.
            stride: What their height and width are multiplied by, by bilinear interpolation.
        """
        super().__init__(in_features, out_features)
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        """Computes logits.

        Args:
            input: Feature maps, shape ``(N, in_features, h, w)``.

        Returns:
            Shape ``(N, out_features, stride * h, stride * w)``.
        """
        logits = functional.conv2d(input, self.weight[:, :, None, None], self.bias)
        if self.stride == 1:
            return logits
        return functional.interpolate(logits, scale_factor=float(self.stride), mode="bilinear")


class Segmentation(Task):
    """Predicts a class for each pixel: cross-entropy, and the mean intersection over union.

    Outputs are logits of shape ``(N, classes, H, W)``, and targets the classes' numbers, shape
    ``(N, H, W)``. A sample's loss is the mean over its pixels. The metric (``miou``) sums
    intersections and unions over all samples of a domain, and averages over the classes that
    occur in targets or predictions.

    The featurizer must give maps: an attribute ``out_stride`` says how many times smaller than
    the input they are. :class:`gga_lightning.backbones.SmallCNN` and
    :class:`gga_lightning.backbones.MNISTCNN` do so with ``dense=True``.

    Example:
        >>> import torch
        >>> from gga_lightning.algorithms import ERM
        >>> from gga_lightning.backbones import SmallCNN
        >>> model = ERM(SmallCNN((3, 32, 32), dense=True), 4, task=Segmentation())
        >>> model(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 4, 32, 32])
    """

    name = "segmentation"
    metric = "miou"
    metric_title = "mIoU"
    offers = frozenset({"logits"})

    def __init__(self, ignore: int | None = None) -> None:
        """Sets which pixels count.

        Args:
            ignore: Pixels with this target count neither in the loss nor in the metric, such as
                255 in many data sets; all pixels count if None.
        """
        self.ignore = ignore

    def make_classifier(self, featurizer: nn.Module, features: int, outputs: int) -> nn.Linear:
        """Makes a linear layer for each pixel; see :meth:`Task.make_classifier`."""
        stride = getattr(featurizer, "out_stride", None)
        if not isinstance(stride, int):
            raise ValueError(
                "`featurizer` must give feature maps for the task segmentation, and have an "
                "attribute `out_stride`, how many times smaller they are than the input; "
                f"{type(featurizer).__name__} has {stride!r}. Take a small convolutional network, "
                "`backbone=small_cnn`: in Python, `SmallCNN(input_shape, dense=True)`."
            )
        return PixelClassifier(features, outputs, stride=stride)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the mean cross-entropy of each sample's pixels; see :meth:`Task.losses`."""
        found, counts = self._by_sample(outputs, targets)
        return found / counts.clamp(min=1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the mean cross-entropy over all pixels that count; see :meth:`Task.loss`."""
        found, counts = self._by_sample(outputs, targets)
        return found.sum() / counts.sum().clamp(min=1)

    def make_metric(self, outputs: int) -> Metric:
        """Makes the mean intersection over union; see :meth:`Task.make_metric`."""
        return MulticlassJaccardIndex(outputs, ignore_index=self.ignore)

    def check(self, targets: Tensor, outputs: int, where: str) -> None:
        """Checks that there is a class for each pixel; see :meth:`Task.check`."""
        whole = not targets.is_floating_point() and not targets.is_complex()
        wrong = (targets < 0) | (targets >= outputs)
        if self.ignore is not None:
            wrong = wrong & (targets != self.ignore)
        if targets.ndim != 3 or not whole or bool(wrong.any()):
            also = "" if self.ignore is None else f" (or {self.ignore}, which is ignored)"
            self._refuse(
                targets, where, f"integers from 0 to {outputs - 1}{also} of shape (N, H, W)"
            )

    def predictions(
        self, outputs: Tensor, classes: Sequence[str], sources: Sequence[str | None]
    ) -> list[MaskPrediction]:
        """Finds each pixel's most probable class; see :meth:`Task.predictions`."""
        masks = outputs.argmax(1)
        shares = functional.one_hot(masks, len(classes)).double().mean((1, 2)).tolist()
        return [
            MaskPrediction(mask, dict(zip(classes, own, strict=True)), source)
            for mask, own, source in zip(masks, shares, sources, strict=True)
        ]

    def _by_sample(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the cross-entropies of a sample's pixels, and their number."""
        if targets.shape != (len(outputs), *outputs.shape[2:]):
            rule = f"of shape {(len(outputs), *outputs.shape[2:])}, like the outputs,"
            self._refuse(targets, "a batch", rule)
        ignored = -100 if self.ignore is None else self.ignore
        targets = targets.long()
        found = functional.cross_entropy(outputs, targets, reduction="none", ignore_index=ignored)
        return found.flatten(1).sum(1), (targets != ignored).flatten(1).sum(1)
