"""Emoji as features of a frozen pretrained network, so that a step takes milliseconds.

PYTHONPATH=benchmarks gga-train --config-dir benchmarks/conf sweep=effect_features
"""

from functools import cache

import torch
from torch.utils.data import TensorDataset

from gga_lightning.backbones import EfficientNetLite0
from gga_lightning.data import Emoji
from gga_lightning.data.transforms import to_float


class EmojiFeatures:
    """Every emoji as EfficientNet-Lite0's 1,280 features of it, enlarged to 128 x 128 pixels."""

    name = "emoji features"
    input_shape = (1280,)

    def __init__(self):
        self.classes, self.domains = _features()
        self.num_classes = len(self.classes)


@cache  # once in a process, which has many jobs
def _features():
    """The classes, and style to features, targets and groups."""
    emoji = Emoji(image_size=128)
    network = EfficientNetLite0(emoji.input_shape).eval()
    domains = {}
    with torch.no_grad():
        for style, pictures in emoji.domains.items():
            images = torch.stack([emoji.eval_transform(image) for image in pictures.images])
            parts = to_float(images, *network.normalization).split(128)
            features = torch.cat([network(part) for part in parts])
            domains[style] = TensorDataset(features, pictures.targets)
            domains[style].groups = pictures.groups
    return emoji.classes, domains
