"""Small networks that start from random weights."""

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["MLP", "MNISTCNN", "image_channels"]


class MLP(nn.Sequential):
    """A multilayer perceptron on flattened inputs, ReLU after every layer.

    Attributes:
        out_features: Length of the feature vector, the last entry of ``widths``.
        stages: Names of the submodules after which features may be changed: the layers' ReLUs.

    Example:
        >>> MLP((1, 8, 8), widths=(64, 32))(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 32])
    """

    def __init__(self, input_shape: Sequence[int], widths: Sequence[int] = (32,)) -> None:
        """Builds the layers.

        Args:
            input_shape: Shape of one input, of any number of dimensions.
            widths: Width of each layer; at least one.

        Raises:
            ValueError: If ``widths`` is empty.
        """
        if not widths:
            raise ValueError("`widths` must hold at least one layer's width, got none.")
        layers: list[nn.Module] = [nn.Flatten()]
        size = int(torch.Size(input_shape).numel())
        for width in widths:
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        super().__init__(*layers)
        self.out_features = size
        self.stages = tuple(str(2 * place) for place in range(1, len(widths) + 1))


class MNISTCNN(nn.Sequential):
    """DomainBed's small convolutional network for MNIST-sized images, its ``MNIST_CNN``.

    Four 3x3 convolutions (64, 128 with stride 2, 128, 128), each with ReLU and then GroupNorm
    of 8 groups, and the mean over positions.

    Attributes:
        out_features: 128.
        stages: Names of the submodules that end a block.

    Example:
        >>> MNISTCNN((1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 128])
    """

    out_features = 128
    stages = ("2", "5", "8", "11")

    def __init__(self, input_shape: Sequence[int]) -> None:
        """Builds the layers.

        Args:
            input_shape: Shape of one image, ``(channels, height, width)``.
        """
        channels = image_channels(input_shape)
        layers: list[nn.Module] = []
        for width, stride in ((64, 1), (128, 2), (128, 1), (128, 1)):
            layers += [
                nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1),
                nn.ReLU(),
                nn.GroupNorm(8, width),
            ]
            channels = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


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
