"""The field's image transforms for uint8 images, which are normalized at the end.

Images are uint8 tensors of shape ``(3, H, W)`` in [0, 255] from the decoder to the device, a
quarter of the memory of floats, and are normalized a batch at a time by :func:`to_float`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision  # noqa: F401  # pyright: ignore[reportUnusedImport]  # for torch.ops.image
from torch import Tensor
from torch.nn import functional

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ColourTransform",
    "CropTransform",
    "EvalTransform",
    "TrainTransform",
    "to_float",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_AREA = (0.7, 1.0)
_RATIO = (3 / 4, 4 / 3)
_FLIP = 0.5
_JITTER = 0.3
_GREY = 0.1


class TrainTransform:
    """The field's augmentation: a random crop, a random flip, colour jitter and random greyscale.

    A :class:`CropTransform` and a :class:`ColourTransform`, one after the other. They draw
    the same random numbers as torchvision's classes, in the order of DomainBed, and return the
    same images up to a few grey levels.

    Source: DomainBed, ``MultipleEnvironmentImageFolder``.

    Example:
        >>> TrainTransform(32)(torch.zeros(3, 40, 60, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
    """

    def __init__(self, size: int = 224) -> None:
        """Sets the size.

        Args:
            size: Height and width of the result, in pixels.

        Raises:
            ValueError: If the size is less than 1.
        """
        self._crop = CropTransform(size)
        self._colour = ColourTransform()

    def __call__(self, image: Tensor) -> Tensor:
        """Augments an image.

        Args:
            image: uint8 of shape ``(3, H, W)``.

        Returns:
            A new image, uint8 of shape ``(3, size, size)``, contiguous.
        """
        return self._colour(self._crop(image))


class _Resizing:
    """A transform to images of one size."""

    def __init__(self, size: int = 224) -> None:
        """Sets the size.

        Args:
            size: Height and width of the result, in pixels.

        Raises:
            ValueError: If the size is less than 1.
        """
        if size < 1:
            raise ValueError(f"`size` must be at least 1, got {size}.")
        self._size = size


class CropTransform(_Resizing):
    """The geometry of :class:`TrainTransform`, for workers that leave the colours to the device.

    RandomResizedCrop (area 0.7 to 1, aspect ratio 3/4 to 4/3, bilinear with antialiasing), then
    RandomHorizontalFlip (probability 0.5).
    """

    def __call__(self, image: Tensor) -> Tensor:
        """Crops, resizes and perhaps flips an image.

        Args:
            image: uint8 of shape ``(3, H, W)``.

        Returns:
            A new image, uint8 of shape ``(3, size, size)``, contiguous.
        """
        top, left, height, width = _draw_box(*image.shape[-2:])
        image = _resize(image[:, top : top + height, left : left + width], self._size)
        return image.flip(-1) if _coin(_FLIP) else image


class ColourTransform:
    """The colours of :class:`TrainTransform`, for one image or for a batch on any device.

    ColorJitter (brightness, contrast and saturation by a factor in 0.7 to 1.3, hue by up to 0.3
    of a turn, in random order), then RandomGrayscale (probability 0.1). Each image of a batch
    has its own random numbers, the same as without the others.

    Values stay floats between the steps and are rounded to bytes at the end, whereas torchvision
    and PIL round after each step. The results differ by up to one grey level for each step.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Changes the colours.

        Args:
            images: uint8 of shape ``(3, H, W)`` or ``(N, 3, H, W)``.

        Returns:
            New images of the same shape and type, contiguous.
        """
        if images.ndim == 3:
            return _colour_one(images, _draw_colours())
        draws = [_draw_colours() for _ in images]
        if images.device.type == "cpu":  # one by one: only one image fits into a core's cache
            return torch.stack(list(map(_colour_one, images, draws)))
        return _colour_batch(images, draws)


class EvalTransform(_Resizing):
    """Resizes to a square, bilinear with antialiasing, without a crop or the aspect ratio.

    Example:
        >>> EvalTransform(32)(torch.zeros(3, 40, 60, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
    """

    def __call__(self, image: Tensor) -> Tensor:
        """Resizes an image.

        Args:
            image: uint8 of shape ``(3, H, W)``.

        Returns:
            A new image, uint8 of shape ``(3, size, size)``, contiguous.
        """
        return _resize(image, self._size)


def to_float(
    images: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Normalizes images: divides by 255, subtracts the mean and divides by the deviation.

    Args:
        images: uint8 of shape ``(3, H, W)`` or ``(N, 3, H, W)``, on any device.
        mean: Mean of each channel, in [0, 1]; ImageNet's by default.
        std: Standard deviation of each channel; ImageNet's by default.

    Returns:
        float32 of the same shape, on the same device.
    """
    scale = 1 / (255 * torch.tensor(std).view(3, 1, 1))
    offset = -255 * torch.tensor(mean).view(3, 1, 1) * scale
    if images.device.type == "cpu":
        # by NumPy, which uses one thread: where workers keep all cores busy, torch's threads
        # would wait for one another
        floats = np.multiply(images.numpy(), scale.numpy())
        floats += offset.numpy()
        return torch.from_numpy(floats)
    scale, offset = scale.to(images.device), offset.to(images.device)
    return images.to(torch.float32).mul_(scale).add_(offset)


# Geometry


def _resize(image: Tensor, size: int) -> Tensor:
    resized = functional.interpolate(
        image[None], size=(size, size), mode="bilinear", antialias=True
    )
    return resized[0].contiguous()


def _draw_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop; torchvision's RandomResizedCrop, draw for draw."""
    for _ in range(10):
        area = height * width * _uniform(*_AREA)
        ratio = math.exp(_uniform(*map(math.log, _RATIO)))
        cut_width, cut_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < cut_width <= width and 0 < cut_height <= height:
            top = int(torch.randint(height - cut_height + 1, (1,)))
            left = int(torch.randint(width - cut_width + 1, (1,)))
            return top, left, cut_height, cut_width
    # Too long or too tall: the largest box in the middle within the ratios
    low, high = _RATIO
    cut_height = min(height, round(width / low))
    cut_width = min(width, round(height * high))
    return (height - cut_height) // 2, (width - cut_width) // 2, cut_height, cut_width


# Colours: steps that change float images of shape (..., 3, H, W) in place, by a number or by one
# for each image, of shape (N, 1, 1, 1)


class _Colours(NamedTuple):
    order: list[int]
    factors: list[float]  # one a step of _STEPS
    grey: bool


def _draw_colours() -> _Colours:
    order = torch.randperm(4).tolist()
    factors = [_uniform(1 - _JITTER, 1 + _JITTER) for _ in range(3)]
    return _Colours(order, [*factors, _uniform(-_JITTER, _JITTER)], _coin(_GREY))


def _colour_one(image: Tensor, draw: _Colours) -> Tensor:
    pixels = image.to(torch.float32, memory_format=torch.contiguous_format)
    for step in draw.order:
        _STEPS[step](pixels, draw.factors[step])
    if draw.grey:
        pixels.copy_(_grey(pixels))
    return _to_bytes(pixels)


def _colour_batch(images: Tensor, draws: list[_Colours]) -> Tensor:
    """Lists the steps in their order, with the images that take each step at this position."""
    pixels = images.to(torch.float32, memory_format=torch.contiguous_format)
    factors = torch.tensor([draw.factors for draw in draws]).to(images.device)[..., None, None]
    for place in range(len(_STEPS)):
        for step, change in enumerate(_STEPS):
            chosen = [i for i, draw in enumerate(draws) if draw.order[place] == step]
            if chosen:
                index = torch.tensor(chosen).to(images.device)
                part = pixels[index]
                change(part, factors[index, step, None])
                pixels[index] = part
    grey = [i for i, draw in enumerate(draws) if draw.grey]
    if grey:
        index = torch.tensor(grey).to(images.device)
        pixels[index] = _grey(pixels[index]).expand(-1, 3, -1, -1)
    return _to_bytes(pixels)


def _brighten(pixels: Tensor, factor: float | Tensor) -> None:
    pixels.mul_(factor).clamp_(0, 255)


def _contrast(pixels: Tensor, factor: float | Tensor) -> None:
    mean = _grey(pixels).mean((-2, -1), keepdim=True)
    pixels.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 255)


def _saturate(pixels: Tensor, factor: float | Tensor) -> None:
    grey = _grey(pixels).mul_(1 - factor)
    pixels.mul_(factor).add_(grey).clamp_(0, 255)


def _turn_hue(pixels: Tensor, turn: float | Tensor) -> None:
    """Turns the hue of HSV by a share of the circle, |turn| <= 0.5, without going to HSV.

    With M, m and C the largest channel, the smallest and their difference, the hue times C, seen
    from red and in sixths of the circle, is Theta = sign(G - B) (M - 2m + G + B - R), in
    [-3C, 3C]. A channel at hue p (red 0, green 2, blue -2) that is y = Theta - pC away is
    m + clamp(||y| - 3C| - C, 0, C), for |y| up to 9C. No quotient, so no grey to take care of,
    and no table: a seventh of PIL's time and a tenth of torchvision's.
    """
    red, green, blue = pixels.split(1, dim=-3)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    theta = (high - red).add_(green).add_(blue).sub_(low, alpha=2).copysign_(green - blue)
    theta.add_(chroma * (6 * turn))
    base = low - chroma
    for channel, hue in ((red, 0), (green, 2), (blue, -2)):
        torch.sub(theta, chroma, alpha=hue, out=channel)
        channel.abs_().sub_(chroma, alpha=3).abs_().add_(base)
        torch.clamp(channel, low, high, out=channel)


_STEPS: tuple[Callable[[Tensor, Any], None], ...] = (_brighten, _contrast, _saturate, _turn_hue)


def _grey(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.split(1, dim=-3)
    return red.mul(0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _to_bytes(pixels: Tensor) -> Tensor:
    """Cuts off what is behind the point, by way of int16: four times as fast as straight."""
    return pixels.to(torch.int16).to(torch.uint8)


# Draws from torch's global generator


def _uniform(low: float, high: float) -> float:
    return torch.empty(1).uniform_(low, high).item()


def _coin(probability: float) -> bool:
    return bool(torch.rand(1) < probability)
