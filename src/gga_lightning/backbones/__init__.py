"""Featurizers: modules that turn inputs into feature vectors of length ``out_features``.

Each is made from the shape of one input, so that a configuration only names the backbone.
"""

from gga_lightning.backbones.efficientnet_lite0 import EfficientNetLite0
from gga_lightning.backbones.small import MLP, MNISTCNN, SmallCNN
from gga_lightning.backbones.text_transformer import TextTransformer
from gga_lightning.backbones.timm import TimmFeaturizer
from gga_lightning.backbones.torchvision import TorchvisionFeaturizer
from gga_lightning.backbones.weights import LoadedWeights

__all__ = [
    "MLP",
    "MNISTCNN",
    "EfficientNetLite0",
    "LoadedWeights",
    "SmallCNN",
    "TextTransformer",
    "TimmFeaturizer",
    "TorchvisionFeaturizer",
]
