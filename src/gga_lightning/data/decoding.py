"""Image files to bytes."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401  # pyright: ignore[reportUnusedImport]  # torch.ops.image
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

__all__ = ["decode"]


def decode(source: str | os.PathLike[str] | bytes) -> Tensor:
    """Decodes an image file, to what ``PIL.Image.open(source).convert("RGB")`` holds.

    Any format that PIL reads. An orientation in the file's metadata is not applied. A JPEG that
    breaks off is decoded as far as it goes, the rest grey, as in the reference suite, which sets
    PIL's ``LOAD_TRUNCATED_IMAGES``.

    Args:
        source: Path of the file, or its content.

    Returns:
        The image, uint8 of shape ``(3, H, W)``, with the channels of a pixel side by side in
        memory, as the decoders leave them and as resizing is fastest.

    Raises:
        ValueError: If the file is not an image that can be decoded; it is named.
    """
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        image = _decode_jpeg(content)
        return _decode_any(content) if image is None else image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        name = "The content" if isinstance(source, bytes) else f"The file {os.fspath(source)!r}"
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known format" if unknown else str(error).rstrip(".")
        raise ValueError(
            f"{name} ({len(content)} bytes) cannot be decoded as an image: {reason}. "
            "Delete it or fetch it anew."
        ) from error


def _decode_jpeg(content: bytes) -> Tensor | None:
    """By torchvision, twice as fast as PIL and equal; None for what is better left to PIL."""
    # the operator itself, since torchvision.io warns of its end from 0.29 on; if it goes, PIL stays
    operator: Callable[..., Tensor] | None = getattr(torch.ops.image, "decode_jpeg", None)
    if operator is None or not content.startswith(b"\xff\xd8"):
        return None
    # frombuffer warns of memory that cannot be written to, such as that of bytes
    data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    try:
        image = operator(data, 0, False)  # 0: the file's own channels
    except RuntimeError:  # broken off, or beyond the decoder
        return None
    if len(image) == 1:
        return image.expand(3, -1, -1).contiguous()
    return image if len(image) == 3 else None  # four are CMYK


_truncated = Lock()


def _decode_any(content: bytes) -> Tensor:
    try:
        pixels = _decode_pil(content)
    except OSError:
        with _truncated:  # the switch is PIL's own and global, so it is on for as short as can be
            before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
            try:
                pixels = _decode_pil(content)
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = before
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _decode_pil(content: bytes) -> Any:
    with Image.open(BytesIO(content)) as image:
        return np.array(image.convert("RGB"))
