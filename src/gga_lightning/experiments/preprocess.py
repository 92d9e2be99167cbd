"""How an image, a row of a table or a text becomes the input of a trained model."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gga_lightning.data.decoding import decode, decode_image
from gga_lightning.data.features import RowScaling
from gga_lightning.data.text_encoding import TextEncoding
from gga_lightning.data.transforms import EvalTransform, to_float

__all__ = ["Preprocess", "make_preprocess"]


@dataclass(frozen=True)
class Preprocess:
    """Turns images into inputs, as the evaluation of a run did.

    An image is decoded to three channels, resized to a square without keeping its aspect ratio
    (bilinear with antialiasing), and normalized. Worker processes can use it, since it can be
    pickled. ``result.json`` of a run holds the attributes under ``preprocess``.

    Attributes:
        size: Height and width of the input, in pixels.
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel, in [0, 1].
        domainbed: Whether files are read as DomainBed reads them, see
            :func:`gga_lightning.data.decoding.decode`. If not, an image is turned as its EXIF
            data say, and a truncated file is an error.

    Example:
        >>> from PIL import Image
        >>> prepare = Preprocess(32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> prepare(Image.new("L", (50, 20))).shape
        torch.Size([3, 32, 32])
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    domainbed: bool = False

    def __call__(self, image: str | os.PathLike[str] | bytes | Image.Image | Tensor) -> Tensor:
        """Makes an input.

        Args:
            image: A file's path, a file's content, a PIL image of any mode, or a uint8 tensor of
                shape ``(3, H, W)`` with values from 0 to 255.

        Returns:
            float32 of shape ``(3, size, size)``, on the CPU.

        Raises:
            ValueError: If the image is none of these, or cannot be decoded.
            OSError: If the file cannot be read.
        """
        return to_float(EvalTransform(self.size)(self._pixels(image)), self.mean, self.std)

    def _pixels(self, image: object) -> Tensor:
        """The image's bytes, uint8 of shape (3, H, W)."""
        if isinstance(image, str | os.PathLike):
            return decode(image, domainbed=self.domainbed)
        if isinstance(image, bytes | bytearray | memoryview):
            return decode(bytes(image), domainbed=self.domainbed)
        if isinstance(image, Image.Image):
            return decode_image(image, domainbed=self.domainbed)
        if isinstance(image, Tensor):
            found = f"a tensor of type {image.dtype} and shape {tuple(image.shape)}"
            if image.dtype == torch.uint8 and image.ndim == 3 and len(image) == 3 and image.numel():
                return image.cpu()
        else:
            found = f"an object of type {type(image).__module__}.{type(image).__qualname__}"
        raise ValueError(
            "an image must be a path, a file's content as bytes, a PIL image, or a uint8 tensor of "
            f"shape (3, H, W), got {found}. A NumPy array of shape (H, W, 3) becomes a PIL image "
            "by `PIL.Image.fromarray(array)`."
        )

    def dataset_settings(self) -> dict[str, Any]:
        """Says with which settings another data set makes the same inputs.

        Returns:
            Those of :class:`gga_lightning.data.ImageFolders`.
        """
        return {"image_size": self.size}


_KINDS: dict[str, Callable[..., Callable[[Any], Tensor]]] = {
    "image": Preprocess,
    "row": RowScaling,
    "text": TextEncoding,
}


def make_preprocess(settings: Mapping[str, Any] | None) -> Callable[[Any], Tensor] | None:
    """Makes what turns an image, a row or a text into an input.

    Args:
        settings: What ``result.json`` has under ``preprocess``: the attributes of a
            :class:`Preprocess`; or a ``kind``, ``"row"`` or ``"text"``, and the attributes of a
            :class:`~gga_lightning.data.features.RowScaling` or a
            :class:`~gga_lightning.data.text_encoding.TextEncoding`.

    Returns:
        The object; None if the inputs are something else.

    Example:
        >>> settings = {"kind": "row", "columns": ["height"], "mean": [2.0], "std": [0.5]}
        >>> make_preprocess(settings)({"height": 3})
        tensor([2.])
    """
    if settings is None:
        return None
    settings = dict(settings)
    return _KINDS[settings.pop("kind", "image")](**settings)
