"""Views of a picture: its edges, its gradient, or the picture without colours."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["VIEWS", "edges", "gradient_map", "gray"]

_SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
_SIGMA = 0.5  # of the smoothing before a gradient map, in pixels
_FLAT = 1e-6  # gray levels; a smaller magnitude is rounding
_BINS = 256
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
    """Removes the colours of a picture.

    Args:
        image: uint8 of shape ``(3, H, W)`` or ``(N, 3, H, W)``.

    Returns:
        uint8 of the same shape, with three equal channels of its brightness (ITU-R 601).
    """
    return _three_channels(_brightness(image), image)


def gradient_map(image: Tensor) -> Tensor:
    """Draws how steeply a picture's brightness changes: light where it does, black where not.

    With b the brightness after a Gaussian of 0.5 pixels, the magnitude at (x, y) is the length of
    (b(x + 1, y) - b(x - 1, y), b(x, y + 1) - b(x, y - 1)). A histogram of 256 bins over the
    magnitudes above 0 equalizes them: a pixel gets 255 times the share of these that are not above
    its own, interpolated between the middles of the bins. Faint changes are therefore as visible as
    strong ones, and the map hardly depends on the contrast. The border continues the outermost
    pixels.

    Source: the input of Li, Gao & He, ML4H 2023, arXiv 2311.09737, as in the authors' code, there
    of slices of magnetic resonance images. Here a magnitude below 1e-6 gray levels counts as 0.

    Args:
        image: uint8 of shape ``(3, H, W)`` or ``(N, 3, H, W)``.

    Returns:
        uint8 of the same shape, with three equal channels.

    Example:
        >>> step = torch.zeros(3, 3, 8, dtype=torch.uint8)
        >>> step[:, :, 4:] = 9  # a low step: as light as a high one
        >>> gradient_map(step)[0, 1].tolist()
        [0, 85, 170, 255, 255, 170, 85, 0]
    """
    smooth = torch.exp(torch.arange(-2.0, 3.0, dtype=torch.float64).square() / (-2 * _SIGMA**2))
    smooth = (smooth / smooth.sum()).to(image.device)
    padded = functional.pad(_brightness(image, torch.float64), (2, 2, 2, 2), mode="replicate")
    blurred = functional.conv2d(padded, torch.outer(smooth, smooth)[None, None])
    padded = functional.pad(blurred, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    magnitudes = (across.square() + down.square()).sqrt()
    return _three_channels(torch.stack([_equalized(own) for own in magnitudes]), image)


VIEWS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"edges": edges, "gray": gray, "gradient_map": gradient_map}
)


def _equalized(magnitudes: Tensor) -> Tensor:
    """A picture's magnitudes by their rank, from 0 to 255."""
    steep = magnitudes > _FLAT
    values = magnitudes[steep]
    if not len(values):
        return torch.zeros_like(magnitudes)
    width = ((values.max() - values.min()) / _BINS).clamp(min=1e-12)
    places = (values - values.min()) / width
    counts = torch.bincount(places.long().clamp(max=_BINS - 1), minlength=_BINS)
    shares = counts.cumsum(0).to(values) / len(values)
    below = (places - 0.5).clamp(0, _BINS - 1).long().clamp(max=_BINS - 2)
    part = (places - 0.5 - below).clamp(0, 1)
    levels = torch.zeros_like(magnitudes)
    levels[steep] = 255 * torch.lerp(shares[below], shares[below + 1], part)
    return levels


def _brightness(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Floats from 0 to 255, shape (N, 1, H, W)."""
    pixels = image.reshape(-1, *image.shape[-3:]).to(dtype)
    return torch.einsum("nchw,c->nhw", pixels, _LUMA.to(pixels))[:, None]


def _three_channels(pixels: Tensor, image: Tensor) -> Tensor:
    return pixels.round().to(torch.uint8).expand(-1, 3, -1, -1).reshape(image.shape).contiguous()
