"""Handwritten digits, embedded in scikit-learn, under five kinds of domain shift."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import gaussian_blur, rotate

__all__ = ["Digits"]

Random = np.random.Generator
Shift = Callable[[Tensor, Tensor, Random], tuple[Tensor, Tensor]]


class Digits:
    """1,797 images of 8x8 pixels in [0, 1], divided among domains that each have their own shift.

    The images are permuted by the seed and cut into as many equal parts as there are domains,
    so that no image appears in two of them.

    ``rotation``
        Six domains: rotated by 0, 15, 30, 45, 60 and 75 degrees with bilinear interpolation, at
        the same size. This is the setting of RotatedMNIST.
    ``style``
        Five domains: plain, inverted, blurred (Gaussian of deviation 1), noisy (N(0, 0.4)),
        striped (every other column bright).
    ``shortcut``
        Three domains. Three slots of ten inputs follow the 64 pixels. ``first`` and ``second``
        each write a one-hot class into a slot of their own: the image's class with probability
        0.9, else a random one. Their other slots are zero. ``random`` writes random classes into
        all three slots. Each source therefore has its own cue, which is useless in the others.
    ``texture``
        Three domains: the digit plus half of one of ten smooth patterns. It is the pattern of
        the image's class with probability 0.9, 0.7 and 0.1, else a random one.
    ``colour``
        Three domains and two classes, after ColoredMNIST (Arjovsky et al., 2019): the label is
        whether the digit is 5 or more, flipped with probability 0.25. The image is written
        into the channel of the label, which is flipped again with probability 0.1, 0.2 or 0.9.

    Attributes:
        name: ``"digits-"`` and the shift.
        domains: Domain name to its images and integer targets. The last domain is the one to hold
            out by default.
        classes: ``"0"`` to ``"9"``; ``"0 to 4"`` and ``"5 to 9"`` for ``colour``.
        num_classes: 10, or 2 for ``colour``.
        input_shape: ``(1, 8, 8)``; ``(2, 8, 8)`` for ``colour``; ``(94,)`` for ``shortcut``.

    Example:
        >>> digits = Digits("rotation")
        >>> list(digits.domains)
        ['0', '15', '30', '45', '60', '75']
        >>> image, target = digits.domains["15"][0]
        >>> image.shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, shift: str = "rotation", *, seed: int = 0) -> None:
        """Makes the domains.

        Args:
            shift: ``"rotation"``, ``"style"``, ``"shortcut"``, ``"texture"`` or ``"colour"``.
            seed: Seed of the permutation and of the shift's random numbers.

        Raises:
            ValueError: If there is no such shift.
        """
        if shift not in _SHIFTS:
            raise ValueError(f"`shift` must be one of {list(_SHIFTS)}, got {shift!r}.")
        self.name = f"digits-{shift}"
        bunch: Any = load_digits()
        random = np.random.default_rng(seed)
        order = random.permutation(len(bunch.target))
        images = torch.tensor(bunch.images[order] / 16.0, dtype=torch.float32)[:, None]
        targets = torch.tensor(bunch.target[order])
        shifts = _SHIFTS[shift]
        parts = np.array_split(np.arange(len(order)), len(shifts))
        self.domains = {
            name: TensorDataset(*change(images[part], targets[part], random))
            for (name, change), part in zip(shifts.items(), parts, strict=True)
        }
        inputs = next(iter(self.domains.values())).tensors[0]
        self.input_shape = tuple(inputs.shape[1:])
        digits = [str(digit) for digit in range(10)]
        self.classes = ["0 to 4", "5 to 9"] if shift == "colour" else digits
        self.num_classes = len(self.classes)


def _rotation(degrees: int) -> Shift:
    def change(images: Tensor, targets: Tensor, random: Random) -> tuple[Tensor, Tensor]:
        return rotate(images, degrees, InterpolationMode.BILINEAR), targets

    return change


def _style(alter: Callable[[Tensor, Random], Tensor]) -> Shift:
    def change(images: Tensor, targets: Tensor, random: Random) -> tuple[Tensor, Tensor]:
        return alter(images, random), targets

    return change


def _noisy(images: Tensor, random: Random) -> Tensor:
    return images + torch.from_numpy(random.normal(0.0, 0.4, images.shape)).float()


def _striped(images: Tensor, random: Random) -> Tensor:
    striped = images.clone()
    striped[..., ::2] = 1.0 - 0.5 * striped[..., ::2]
    return striped


def _shortcut(own_slot: int | None) -> Shift:
    def change(images: Tensor, targets: Tensor, random: Random) -> tuple[Tensor, Tensor]:
        slots = torch.zeros(len(images), 3, 10)
        rows = torch.arange(len(images))
        if own_slot is None:
            for slot in range(3):
                slots[rows, slot, torch.from_numpy(random.integers(0, 10, len(images)))] = 1.0
        else:
            slots[rows, own_slot, _mostly(targets, 0.9, 10, random)] = 1.0
        return torch.cat([images.flatten(1), slots.flatten(1)], dim=1), targets

    return change


def _texture(strength: float) -> Shift:
    def change(images: Tensor, targets: Tensor, random: Random) -> tuple[Tensor, Tensor]:
        patterns = _patterns()
        return images + 0.5 * patterns[_mostly(targets, strength, 10, random)], targets

    return change


def _colour(flip: float) -> Shift:
    def change(images: Tensor, targets: Tensor, random: Random) -> tuple[Tensor, Tensor]:
        labels = (targets >= 5).long() ^ _coin(0.25, len(targets), random)
        channels = labels ^ _coin(flip, len(targets), random)
        coloured = torch.zeros(len(images), 2, *images.shape[2:])
        coloured[torch.arange(len(images)), channels] = images[:, 0]
        return coloured, labels

    return change


def _mostly(targets: Tensor, probability: float, classes: int, random: Random) -> Tensor:
    """Keeps each target with this probability, and replaces the others by random classes."""
    keep = torch.from_numpy(random.random(len(targets)) < probability)
    return torch.where(keep, targets, torch.from_numpy(random.integers(0, classes, len(targets))))


def _coin(probability: float, count: int, random: Random) -> Tensor:
    flips: NDArray[np.bool_] = random.random(count) < probability
    return torch.from_numpy(flips).long()


def _patterns() -> Tensor:
    """Ten smooth patterns in [0, 1], always the same, shape (10, 1, 8, 8)."""
    noise = np.random.default_rng(0).random((10, 1, 8, 8))
    smooth = gaussian_blur(torch.from_numpy(noise).float(), [5, 5], [1.5, 1.5])
    low, high = smooth.amin((1, 2, 3), keepdim=True), smooth.amax((1, 2, 3), keepdim=True)
    return (smooth - low) / (high - low)


_SHIFTS: dict[str, dict[str, Shift]] = {
    "rotation": {str(degrees): _rotation(degrees) for degrees in (0, 15, 30, 45, 60, 75)},
    "style": {
        "plain": _style(lambda images, _: images),
        "inverted": _style(lambda images, _: 1.0 - images),
        "blurred": _style(lambda images, _: gaussian_blur(images, [5, 5], [1.0, 1.0])),
        "noisy": _style(_noisy),
        "striped": _style(_striped),
    },
    "shortcut": {"first": _shortcut(0), "second": _shortcut(1), "random": _shortcut(None)},
    "texture": {f"agree_{share}": _texture(share / 100) for share in (90, 70, 10)},
    "colour": {f"flip_{share}": _colour(share / 100) for share in (10, 20, 90)},
}
