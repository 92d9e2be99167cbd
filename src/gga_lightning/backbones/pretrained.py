"""What featurizers made from the networks of a library share."""

import math
from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from gga_lightning.backbones.weights import LoadedWeights

__all__ = ["PretrainedFeaturizer", "check_settings"]


class PretrainedFeaturizer(nn.Module):
    """The base class of featurizers made from a library's network without its last layer.

    Attributes:
        out_features: Length of the feature vector.
        stages: Names of the submodules that end a stage; none for networks other than ResNets.
        normalization: Mean and deviation of each channel that the weights were trained with, for
            images in [0, 1]; None for another number of channels than 3.
        freeze_batchnorm: Whether BatchNorm layers keep their running statistics and use them in
            training too; their weights and biases are trained all the same.
        lr_factor: The factor of the learning rate for the parameters of this network, which may be
            pretrained, while the classifier is new.
        loaded_weights: What was loaded from a weights file; None without one.

    Example:
        >>> import torch
        >>> featurizer = PretrainedFeaturizer(
        ...     nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ...     out_features=3,
        ...     channels=3,
        ...     normalization=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ...     freeze_batchnorm=True,
        ...     dropout=0.0,
        ...     lr_factor=0.1,
        ...     loaded_weights=None,
        ... )
        >>> featurizer(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        network: nn.Module,
        out_features: int,
        channels: int,
        normalization: tuple[Sequence[float], Sequence[float]],
        *,
        freeze_batchnorm: bool,
        dropout: float,
        lr_factor: float,
        loaded_weights: LoadedWeights | None,
    ) -> None:
        """Wraps a network.

        Args:
            network: The network, from images to features.
            out_features: See the attribute.
            channels: The channels of an image.
            normalization: Mean and deviation of each of three channels.
            freeze_batchnorm: See the attribute.
            dropout: Probability of dropping a feature, in [0, 1).
            lr_factor: See the attribute; positive.
            loaded_weights: See the attribute.
        """
        super().__init__()
        self.network = network
        self.out_features = out_features
        self.normalization = normalization if channels == 3 else None
        self.dropout = nn.Dropout(dropout)
        self.freeze_batchnorm = freeze_batchnorm
        self.lr_factor = lr_factor
        self.loaded_weights = loaded_weights
        layers = [f"layer{number}" for number in range(1, 5)]
        found = all(hasattr(network, name) for name in layers)
        self.stages = tuple(f"network.{name}" for name in layers) if found else ()

    def forward(self, inputs: Tensor) -> Tensor:
        """Computes features.

        Args:
            inputs: Images, shape ``(N, channels, height, width)``.

        Returns:
            Features, shape ``(N, out_features)``.
        """
        return self.dropout(self.network(inputs))

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode, leaving frozen BatchNorm layers in evaluation mode.

        Args:
            mode: Whether to train.

        Returns:
            Itself.
        """
        super().train(mode)
        if self.freeze_batchnorm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
                    module.eval()
        return self


def check_settings(dropout: float, lr_factor: float) -> None:
    """Checks the settings of a featurizer, before its weights are fetched.

    Args:
        dropout: Probability of dropping a feature.
        lr_factor: What the learning rate is multiplied by.

    Raises:
        ValueError: If ``dropout`` is not in [0, 1), or ``lr_factor`` not positive and finite.
    """
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"`dropout` must be in [0, 1), got {dropout}.")
    if not 0.0 < lr_factor < math.inf:
        raise ValueError(f"`lr_factor` must be positive and finite, got {lr_factor}.")
