"""Views of a picture: the same thing shown by its edges or without colours."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["VIEWS", "edges", "gray"]

_SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
_LUMA = torch.tensor([0.299, 0.587, 0.114])


def edges(image: Tensor) -> Tensor:
    """Draws a picture's edges: dark lines on white where its brightness changes.

    The length of the Sobel gradient of the brightness, scaled so that a step from black to white
    is black, and turned to dark on light. The border continues the outermost pixels.

    Args:
        image: uint8 of shape ``(3, H, W)`` or ``(N, 3, H, W)``.

    Returns:
        uint8 of the same shape, with three equal channels.

    Example:
        >>> step = torch.zeros(3, 3, 6, dtype=torch.uint8)
        >>> step[:, :, 3:] = 255
        >>> edges(step)[0, 1].tolist()
        [255, 255, 0, 0, 255, 255]
    """
    padded = functional.pad(_brightness(image), (1, 1, 1, 1), mode="replicate")
    kernels = torch.stack([_SOBEL, _SOBEL.T])[:, None].to(padded)
    across, down = functional.conv2d(padded, kernels).split(1, dim=1)
    lines = 255.0 - (across.square() + down.square()).sqrt().div(4.0).clamp(0.0, 255.0)
    return _three_channels(lines, image)


def gray(image: Tensor) -> Tensor:
    """Takes the colours off a picture.

    Args:
        image: uint8 of shape ``(3, H, W)`` or ``(N, 3, H, W)``.

    Returns:
        uint8 of the same shape, with three equal channels of its brightness (ITU-R 601).
    """
    return _three_channels(_brightness(image), image)


VIEWS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({"edges": edges, "gray": gray})


def _brightness(image: Tensor) -> Tensor:
    """Floats from 0 to 255, shape (N, 1, H, W)."""
    pixels = image.reshape(-1, *image.shape[-3:]).float()
    return torch.einsum("nchw,c->nhw", pixels, _LUMA.to(pixels))[:, None]


def _three_channels(pixels: Tensor, image: Tensor) -> Tensor:
    return pixels.round().to(torch.uint8).expand(-1, 3, -1, -1).reshape(image.shape).contiguous()
