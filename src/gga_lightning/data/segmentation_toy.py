"""Generated pictures of shapes in four styles, with targets for every task."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from gga_lightning.data.transforms import EvalTransform

__all__ = ["SegmentationToy"]

_SIZE = 32
_KINDS = ("circle", "square", "triangle")
_CLASSES = {
    "segmentation": ["background", *_KINDS],
    "multi_label": list(_KINDS),
    "regression": ["foreground"],
    "classification": list(_KINDS),
}

Random = np.random.Generator
Array = NDArray[np.float64]
Mask = NDArray[np.int64]
Pixels = NDArray[np.uint8]


class SegmentationToy:
    """Circles, squares and triangles on pictures of 32 x 32 pixels, in four styles.

    Each picture has one to three of the shapes, of random size, place and colour, each kind at
    most once. Later ones cover earlier ones. The domains are styles:

    - ``plain``: bright shapes on a dark background of one colour;
    - ``dim``: the same with a fifth of the contrast, on medium grey;
    - ``inverted``: dark shapes on a bright background;
    - ``textured``: bright shapes on dark stripes of any direction; held out by default.

    The targets depend on the task, and the pictures do not:

    ================== ================================================ =============
    task               target                                           shape
    ================== ================================================ =============
    ``segmentation``   each pixel's class                               ``(32, 32)``
    ``multi_label``    for each kind, whether it can be seen            ``(3,)``
    ``regression``     the share of pixels that are not background      ``()``
    ``classification`` the kind with the most pixels                    ``()``
    ================== ================================================ =============

    Attributes:
        name: ``"segmentation_toy"``.
        domains: Style to its pictures, uint8 of shape ``(3, 32, 32)``, and their targets.
        classes: The names of the task's classes, labels or values.
        num_classes: How many there are.
        input_shape: ``(3, 32, 32)``.
        as_uint8: True: pictures are normalized on the device.
        eval_transform: Resizes any image to 32 x 32 pixels, for predictions.

    Example:
        >>> data = SegmentationToy(pictures=10)
        >>> picture, mask = data.domains["plain"][0]
        >>> tuple(picture.shape), tuple(mask.shape)
        ((3, 32, 32), (32, 32))
        >>> data.classes
        ['background', 'circle', 'square', 'triangle']
    """

    name = "segmentation_toy"
    input_shape = (3, _SIZE, _SIZE)
    as_uint8 = True

    def __init__(self, task: str = "segmentation", *, pictures: int = 200, seed: int = 0) -> None:
        """Draws the pictures.

        Args:
            task: The targets, see above: ``"segmentation"``, ``"multi_label"``,
                ``"regression"`` or ``"classification"``.
            pictures: How many pictures each domain has; at least 1.
            seed: Seed of the draws.

        Raises:
            ValueError: If there are no targets for such a task, or ``pictures`` is less than 1.
        """
        if task not in _CLASSES:
            raise ValueError(f"`task` must be one of {list(_CLASSES)}, got {task!r}.")
        if pictures < 1:
            raise ValueError(f"`pictures` must be at least 1, got {pictures}.")
        self.classes = list(_CLASSES[task])
        self.num_classes = len(self.classes)
        self.eval_transform = EvalTransform(_SIZE)
        self.domains: dict[str, TensorDataset] = {}
        for index, (style, change) in enumerate(_STYLES.items()):
            random = np.random.default_rng([seed, index])
            masks = np.stack([_draw_mask(random) for _ in range(pictures)])
            images = np.stack([_paint(mask, change, random) for mask in masks])
            targets = _targets(torch.from_numpy(masks), task)
            self.domains[style] = TensorDataset(torch.from_numpy(images), targets)


def _draw_mask(random: Random) -> Mask:
    """The class of each pixel, 0 for the background, shape (32, 32)."""
    across, down = np.meshgrid(np.arange(_SIZE), np.arange(_SIZE))
    mask = np.zeros((_SIZE, _SIZE), dtype=np.int64)
    kinds = random.permutation(len(_KINDS))[: random.integers(1, len(_KINDS) + 1)]
    for kind in kinds:
        x, y = random.uniform(6, _SIZE - 6, 2)
        mask[_INSIDE[kind](across - x, down - y, random.uniform(5, 9))] = kind + 1
    return mask


def _paint(mask: Mask, change: Callable[[Mask, Array, Random], Array], random: Random) -> Pixels:
    """A picture of a mask, uint8 of shape (3, 32, 32)."""
    colours = random.uniform(0.6, 1.0, (len(_KINDS) + 1, 3))
    colours[0] = random.uniform(0.1, 0.35, 3)
    picture = change(mask, colours[mask].transpose(2, 0, 1), random)
    noisy = picture + random.normal(0.0, 0.02, picture.shape)
    return (255 * noisy.clip(0.0, 1.0)).round().astype(np.uint8)


def _targets(masks: Tensor, task: str) -> Tensor:
    """Computes a task's targets from masks of shape (N, 32, 32)."""
    if task == "segmentation":
        return masks
    if task == "regression":
        return (masks > 0).float().mean((1, 2))
    counts = torch.stack([(masks == kind + 1).sum((1, 2)) for kind in range(len(_KINDS))], 1)
    return (counts > 0).long() if task == "multi_label" else counts.argmax(1)


def _circle(x: Array, y: Array, radius: float) -> NDArray[np.bool_]:
    return x**2 + y**2 <= radius**2


def _square(x: Array, y: Array, radius: float) -> NDArray[np.bool_]:
    return np.maximum(abs(x), abs(y)) <= 0.8 * radius


def _triangle(x: Array, y: Array, radius: float) -> NDArray[np.bool_]:
    return (y <= 0.8 * radius) & (2 * abs(x) <= y + radius)


def _dim(mask: Mask, picture: Array, random: Random) -> Array:
    return 0.5 + (picture - 0.5) / 5


def _textured(mask: Mask, picture: Array, random: Random) -> Array:
    """Stripes of a random direction and width behind the shapes."""
    angle, width, phase = random.uniform(0, np.pi), random.uniform(2, 4), random.uniform(0, 6)
    down, across = np.mgrid[:_SIZE, :_SIZE]
    waves = np.sin((np.cos(angle) * across + np.sin(angle) * down) * np.pi / width + phase)
    return np.where(mask > 0, picture, picture + 0.15 * waves)


_INSIDE = (_circle, _square, _triangle)
_STYLES: dict[str, Callable[[Mask, Array, Random], Array]] = {
    "plain": lambda mask, picture, random: picture,
    "dim": _dim,
    "inverted": lambda mask, picture, random: 1.0 - picture,
    "textured": _textured,
}
