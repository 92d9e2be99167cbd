"""Small networks that start from random weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["MLP", "MNISTCNN", "SmallCNN", "image_channels"]


class MLP(nn.Sequential):
    """A multilayer perceptron on flattened inputs, ReLU after every layer.

    Attributes:
        out_features: Length of the feature vector: the last entry of ``widths``, or the number of
            inputs if there is none.
        stages: Names of the submodules after which features may be changed: the layers' ReLUs.

    Example:
        >>> MLP((1, 8, 8), widths=(64, 32))(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 32])
    """

    def __init__(self, input_shape: Sequence[int], widths: Sequence[int] = (32,)) -> None:
        """Builds the layers.

        Args:
            input_shape: Shape of one input, of any number of dimensions.
            widths: Width of each layer. Without any, features are the inputs, and a classifier on
                them is a linear model.

        Raises:
            ValueError: If a width is less than 1.
        """
        if any(width < 1 for width in widths):
            raise ValueError(f"`widths` must be at least 1, got {list(widths)}.")
        layers: list[nn.Module] = [nn.Flatten()]
        size = int(torch.Size(input_shape).numel())
        for width in widths:
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        super().__init__(*layers)
        self.out_features = size
        self.stages = tuple(str(2 * place) for place in range(1, len(widths) + 1))

    def forward(self, input: Tensor) -> Tensor:
        """Computes the features.

        Args:
            input: Floats of shape ``(N, *input_shape)``.

        Returns:
            Shape ``(N, out_features)``.

        Raises:
            ValueError: If the inputs are integers, such as the tokens of a text.
        """
        if not input.is_floating_point():
            raise ValueError(
                "MLP needs inputs that are floats, got "
                f"{str(input.dtype).removeprefix('torch.')}. For texts choose "
                "`data.dataset.inputs=tfidf` or `backbone=text_transformer`."
            )
        return super().forward(input)


class MNISTCNN(nn.Sequential):
    """DomainBed's small convolutional network for MNIST-sized images, its ``MNIST_CNN``.

    Four 3x3 convolutions (64, 128 with stride 2, 128, 128), each with ReLU and then GroupNorm
    of 8 groups, and the mean over positions.

    Attributes:
        out_features: 128.
        out_stride: How many times smaller than the image the feature maps are, 2; None if the
            features are vectors.
        stages: Names of the submodules that end a block.

    Example:
        >>> MNISTCNN((1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 128])
    """

    out_features = 128
    stages = ("2", "5", "8", "11")

    def __init__(self, input_shape: Sequence[int], *, dense: bool = False) -> None:
        """Builds the layers.

        Args:
            input_shape: Shape of one image, ``(channels, height, width)``.
            dense: Whether to leave out the mean over positions, for a class for each pixel.

        Raises:
            ValueError: If the shape is not that of an image, or ``dense`` needs an even height
                and width.
        """
        channels = image_channels(input_shape)
        stride_of_maps = _stride(input_shape, 2, dense)
        layers: list[nn.Module] = []
        for width, stride in ((64, 1), (128, 2), (128, 1), (128, 1)):
            layers += [
                nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1),
                nn.ReLU(),
                nn.GroupNorm(8, width),
            ]
            channels = width
        super().__init__(*layers, *([] if dense else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]))
        self.out_stride = stride_of_maps


class SmallCNN(nn.Sequential):
    """A small convolutional network for small images, of a few thousand weights.

    A 3x3 convolution with stride 2 and further ones with dilation 1, 2, 4, ..., each with
    GroupNorm of 8 groups and ReLU, and the mean over positions. With the default widths, an
    output sees 31 x 31 pixels.

    Attributes:
        out_features: The last entry of ``widths``.
        out_stride: How many times smaller than the image the feature maps are, 2; None if the
            features are vectors.
        stages: Names of the submodules that end a block.

    Example:
        >>> SmallCNN((3, 32, 32), dense=True)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 32, 16, 16])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        widths: Sequence[int] = (16, 32, 32, 32),
        *,
        dense: bool = False,
    ) -> None:
        """Builds the layers.

        Args:
            input_shape: Shape of one image, ``(channels, height, width)``.
            widths: Channels of each convolution, multiples of 8; at least one.
            dense: Whether to leave out the mean over positions, for a class for each pixel.

        Raises:
            ValueError: If the shape is not that of an image, ``widths`` is empty or has an entry
                that is not a multiple of 8, or ``dense`` needs an even height and width.
        """
        channels = image_channels(input_shape)
        if not widths or any(width < 8 or width % 8 for width in widths):
            raise ValueError(f"`widths` must be positive multiples of 8, got {list(widths)}.")
        stride = _stride(input_shape, 2, dense)
        layers: list[nn.Module] = []
        for place, width in enumerate(widths):
            dilation = 2 ** max(place - 1, 0)
            layers += [
                nn.Conv2d(
                    channels,
                    width,
                    kernel_size=3,
                    stride=1 if place else 2,
                    padding=dilation,
                    dilation=dilation,
                ),
                nn.GroupNorm(8, width),
                nn.ReLU(),
            ]
            channels = width
        super().__init__(*layers, *([] if dense else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]))
        self.out_features = channels
        self.out_stride = stride
        self.stages = tuple(str(3 * place + 2) for place in range(len(widths)))


def _stride(input_shape: Sequence[int], stride: int, dense: bool) -> int | None:
    """The stride of feature maps, which must divide the image; None for vectors."""
    if not dense:
        return None
    if any(size % stride for size in input_shape[1:]):
        raise ValueError(
            f"`input_shape` must have a height and width that {stride} divides with `dense=True`, "
            f"got {tuple(input_shape)}."
        )
    return stride


def image_channels(input_shape: Sequence[int]) -> int:
    """Reads the number of channels off the shape of an image.

    Args:
        input_shape: Shape of one image, ``(channels, height, width)``.

    Returns:
        The number of channels.

    Raises:
        ValueError: If there are not three dimensions.
    """
    if len(input_shape) != 3:
        raise ValueError(
            "`input_shape` must be that of an image, (channels, height, width), got "
            f"{tuple(input_shape)}. For other inputs take MLP."
        )
    return input_shape[0]
