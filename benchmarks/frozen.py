"""Emoji as features of a frozen pretrained network, so that a step takes milliseconds.

    PYTHONPATH=benchmarks gga-train --config-dir benchmarks/conf sweep=effect_features

docs/effect_emoji.md has what came of it.
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
        emoji = Emoji()
        self.classes, self.num_classes = emoji.classes, emoji.num_classes
        self.domains = {}
        for style, pictures in emoji.domains.items():
            self.domains[style] = TensorDataset(_features()[style], pictures.targets)
            self.domains[style].groups = pictures.groups


@cache  # once in a process, which has many jobs
def _features():
    emoji, size = Emoji(image_size=128), 128
    network = EfficientNetLite0((3, size, size)).eval()
    found = {}
    with torch.no_grad():
        for style, pictures in emoji.domains.items():
            images = torch.stack([emoji.eval_transform(image) for image in pictures.images])
            parts = to_float(images, *network.normalization).split(128)
            found[style] = torch.cat([network(part) for part in parts])
    return found
