"""Decodes image files to tensors of bytes."""

import os
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext, suppress
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401  # pyright: ignore[reportUnusedImport]  # torch.ops.image
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

__all__ = ["MAX_PIXELS", "decode", "decode_image", "image_size", "inspect"]

PathLike = str | os.PathLike[str]

MAX_PIXELS = 178_956_970  # where PIL raises an error, too
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_AGAIN, _HEAD = "Delete it or fetch it again.", 2**20  # bytes that hold most JPEGs' headers
# orientation in EXIF: whether rows and columns are swapped, and which dimensions are then flipped
_TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (2,)),
    3: (False, (1, 2)),
    4: (False, (1,)),
    5: (True, ()),
    6: (True, (2,)),
    7: (True, (1, 2)),
    8: (True, (1,)),
}


def decode(source: PathLike | bytes, *, domainbed: bool = False) -> Tensor:
    """Decodes an image file of any format that PIL reads, to three channels of 8 bits.

    Pixels of more bits are scaled by their number of bits, or from [0, 1] if they are floats.
    Pixels of 8 bits are those of ``PIL.Image.open(source).convert("RGB")``.

    Args:
        source: Path of the file, or its content.
        domainbed: Whether to read the file as DomainBed does. The orientation in EXIF data is
            then ignored, and a truncated or damaged file is decoded as far as possible. By
            default the orientation is applied, and such a file is an error.

    Returns:
        The image, uint8 of shape ``(3, H, W)``, with the channels of a pixel side by side in
        memory, as the decoders leave them and as resizing is fastest.

    Raises:
        ValueError: If the file cannot be decoded, has more than ``MAX_PIXELS`` pixels, or has
            values that cannot be scaled; it is named.

    Example:
        >>> decode(b"P5 2 1 65535 " + bytes([0, 0, 255, 255]))[0]
        tensor([[  0, 255]], dtype=torch.uint8)
    """
    image, damage = inspect(source, domainbed=domainbed)
    if damage is not None and not domainbed:
        raise ValueError(damage)
    return image


def inspect(source: PathLike | bytes, *, domainbed: bool = False) -> tuple[Tensor, str | None]:
    """Decodes an image file, and tells if it is truncated or damaged.

    Args:
        source: Path of the file, or its content.
        domainbed: As in :func:`decode`.

    Returns:
        The image, decoded as far as possible, and a description of the damage, or None.

    Raises:
        ValueError: If nothing can be decoded, and as in :func:`decode`.
    """
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    name = _name(source, len(content))
    with _naming(name):
        if content.startswith(_JPEG):
            height, width, exif, start = _jpeg_header(content)
            _check_size(height, width)
            pixels, damage = _decode_jpeg(content)
            if content.rfind(_JPEG_END) < start:  # such as one whose rest is zeros
                damage = damage or "its data have no end"
        else:
            image = _open(content)
            _check_size(image.height, image.width)
            pixels, damage = _decode_other(image)
            exif = image.info.get("exif", b"")
    turn = None if domainbed else _TURNS.get(_orientation(exif))
    if damage is not None:
        damage = f"{name} is truncated or damaged: {damage.rstrip('.')}. {_AGAIN}"
    return pixels if turn is None else _turned(pixels, *turn), damage


def image_size(path: PathLike, *, domainbed: bool = False) -> tuple[int, int]:
    """Reads the size of an image from its file's header.

    Args:
        path: Path of the file.
        domainbed: As in :func:`decode`.

    Returns:
        Height and width of what :func:`decode` returns.

    Raises:
        ValueError: If the file is not an image or has more than ``MAX_PIXELS`` pixels.
    """
    with open(path, "rb") as file, _naming(_name(path, os.fstat(file.fileno()).st_size)):
        content = file.read(_HEAD)
        if content.startswith(_JPEG):
            try:
                height, width, exif, _ = _jpeg_header(content)
            except ValueError:  # a longer header, or none
                height, width, exif, _ = _jpeg_header(content + file.read())
        else:
            content += file.read()
            image = _open(content)
            height, width, exif = image.height, image.width, image.info.get("exif", b"")
            if image.format == "PNG" and not domainbed and not exif and b"eXIf" in content:
                _load(image)  # it comes after the pixels
                exif = image.info.get("exif", b"")
        _check_size(height, width)
    swapped, _ = _TURNS.get(1 if domainbed else _orientation(exif), (False, ()))
    return (width, height) if swapped else (height, width)


def decode_image(image: Image.Image, *, domainbed: bool = False) -> Tensor:
    """Converts an open PIL image as :func:`decode` converts a file.

    An image of mode I or F that is not from a file is scaled by its largest value: from
    [0, 1] (mode F only) or [0, 255] or, for mode I, from 16 or 31 bits, whichever holds it first.

    Args:
        image: The image, of any mode.
        domainbed: As in :func:`decode`.

    Returns:
        As :func:`decode`.

    Raises:
        ValueError: If the image has no pixels, cannot be read, or has values that cannot be scaled.
    """
    with _naming(f"A PIL image of mode {image.mode!r} and size {image.size}"):
        _check_size(image.height, image.width)
        upright = domainbed or image.getexif().get(0x0112, 1) == 1
        turned = image if upright else ImageOps.exif_transpose(image)  # which forgets the format
        if turned.mode in ("La", "RGBa"):  # premultiplied; PIL converts them only to these
            turned = turned.convert({"La": "LA", "RGBa": "RGBA"}[turned.mode])
        return _to_bytes(turned)


class _Refused(ValueError):
    """An image is intact but cannot be used. The message says why, and what to do."""


def _name(source: PathLike | bytes, size: int) -> str:
    what = "The content" if isinstance(source, bytes) else f"The file {os.fspath(source)!r}"
    return f"{what} ({size} bytes)"


@contextmanager
def _naming(name: str) -> Generator[None]:
    """Names what is decoded in errors."""
    try:
        yield
    except _Refused as error:
        raise ValueError(f"{name} {error}") from None
    except Exception as error:  # PIL's readers raise all kinds on damaged files
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known format" if unknown else str(error) or type(error).__name__
        raise ValueError(
            f"{name} cannot be decoded as an image: {reason.rstrip('.')}. {_AGAIN}"
        ) from error


# Headers


def _jpeg_header(content: bytes) -> tuple[int, int, bytes, int]:
    """Height, width, EXIF data and where the pixels begin, in a tenth of PIL's time."""
    height, width, exif, place = 0, 0, b"", 2
    try:
        while True:
            place = content.index(b"\xff", place) + 1
            marker = content[place]
            if marker == 0xFF or marker <= 0x01 or 0xD0 <= marker <= 0xD9:  # without content
                continue
            if marker == 0xDA:  # the pixels
                return height, width, exif, place
            (length,) = struct.unpack_from(">H", content, place + 1)
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                height, width = struct.unpack_from(">HH", content, place + 4)
            elif marker == 0xE1 and not exif and content.startswith(b"Exif\0\0", place + 3):
                exif = content[place + 3 : place + 1 + length]
            place += 1 + length
    except (ValueError, IndexError, struct.error):
        raise ValueError("its header is incomplete") from None


def _open(content: bytes) -> ImageFile.ImageFile:
    """Reads a header, without the warnings that PIL has for large images."""
    if content.startswith(_JPEG):  # PIL warns of broken EXIF data
        return JpegImageFile(BytesIO(content.replace(b"Exif\0\0", bytes(6))))
    with _without_limit():
        return Image.open(BytesIO(content))


def _check_size(height: int, width: int) -> None:
    if not 0 < height * width <= MAX_PIXELS:
        raise _Refused(
            f"has {height:,} x {width:,} pixels; an image must have at least one and at most "
            f"{MAX_PIXELS:,} in all. Resize it or leave it out."
        )


def _orientation(exif: bytes) -> int:
    """The orientation in EXIF data, 1 if there is none or it is broken. PIL turns TIFFs itself."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    with suppress(struct.error):
        (start,) = struct.unpack_from(f"{order}4xI", exif)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == 0x0112:
                size = {1: "B", 4: "I"}.get(kind, "H")
                return struct.unpack_from(order + size, exif, entry + 8)[0]
    return 1


def _turned(image: Tensor, swapped: bool, flipped: tuple[int, ...]) -> Tensor:
    image = (image.transpose(1, 2) if swapped else image).flip(flipped)
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


# Pixels


def _decode_jpeg(content: bytes) -> tuple[Tensor, str | None]:
    """By torchvision, twice as fast as PIL and equal; what it cannot decode is left to PIL."""
    # the operator itself, since torchvision.io warns of its end from 0.29 on; if it goes, PIL stays
    operator: Callable[..., Tensor] | None = getattr(torch.ops.image, "decode_jpeg", None)
    if operator is not None:
        # frombuffer warns of memory that cannot be written to, such as that of bytes
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        with suppress(RuntimeError):  # truncated, or beyond the decoder
            image = operator(data, 0, False)  # 0: the file's own channels
            if len(image) == 1:
                return image.expand(3, -1, -1).contiguous(), None
            if len(image) == 3:  # four are CMYK
                return image, None
    image = _open(content)
    try:
        return _to_bytes(image), None
    except OSError as error:
        image = _open(content + _JPEG_END)  # as PIL ends a truncated one for DomainBed
        return _to_bytes(image), str(error)


def _decode_other(image: ImageFile.ImageFile) -> tuple[Tensor, str | None]:
    try:
        _load(image)
    except Exception as error:  # PIL's readers raise all kinds
        damage = str(error) or type(error).__name__
        image.tile = []  # what is decoded so far stays, as with PIL's LOAD_TRUNCATED_IMAGES
        with suppress(Exception):
            image.load_end()
            return _to_bytes(image), damage
        raise
    return _to_bytes(image), None


_limit = Lock()
if hasattr(os, "register_at_fork"):  # a child must not begin with it locked
    os.register_at_fork(
        before=_limit.acquire, after_in_parent=_limit.release, after_in_child=_limit.release
    )


@contextmanager
def _without_limit() -> Generator[None]:
    """Turns off PIL's limits, which are global, the lower one a warning; ours is in their place."""
    with _limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _load(image: ImageFile.ImageFile) -> None:
    large = image.width * image.height > MAX_PIXELS // 2  # where PIL begins to warn
    with _without_limit() if large else nullcontext():
        image.load()


def _to_bytes(image: Image.Image) -> Tensor:
    """The pixels, shape (3, H, W). PIL would clip those of more than 8 bits, mostly to white."""
    if image.mode == "F" or image.mode.startswith("I"):
        pixels = np.repeat(_scaled(image)[..., None], 3, axis=2)
    else:
        if "transparency" in image.info:  # PIL may warn that it is lost
            image = image.copy()
            del image.info["transparency"]
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _scaled(image: Image.Image) -> NDArray[np.uint8]:
    """Grey levels of integers by their number of bits, and of floats in [0, 1]."""
    values: NDArray[Any] = np.array(image)
    largest = 1
    if image.format is None and image.mode in ("I", "F"):
        # not from a file, so nothing says the depth; PIL's conversions keep 0 to 255
        scales = (1, 255) if image.mode == "F" else (255, 2**16 - 1, 2**31 - 1)
        largest = next((scale for scale in scales if values.max() <= scale), scales[-1])
    elif image.mode != "F":
        bits, signed = _depth(image)
        largest = 2 ** (bits - signed) - 1
        values = values.view(np.uint32) if bits == 32 and not signed else values
    low, high = values.min(), values.max()
    scale = np.float32(255 / largest)
    if not (low >= 0 and high <= largest):  # NaN is neither
        problem = "they must be in"
    elif low < high and int(low * scale + 0.5) == int(high * scale + 0.5):
        problem = "which are a single grey level in"
    else:
        return (values.astype(np.float32) * scale + 0.5).astype(np.uint8)
    raise _Refused(
        f"has values from {low} to {high}, {problem} [0, {largest}]. Scale its values and save it "
        "again, with 8 or 16 bits."
    )


def _depth(image: Image.Image) -> tuple[int, bool]:
    """Bits of an integer, and whether one of them is its sign."""
    tags: Any = getattr(image, "tag_v2", None)
    if tags is not None:
        return tags.get(258, (32,))[0], tags.get(339, (1,))[0] == 2
    wide = image.mode == "I" and image.format not in ("PNG", "PPM", "JPEG2000")
    return (32, True) if wide else (16, False)
