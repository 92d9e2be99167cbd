"""Decoded images on disk, mapped into memory: workers share them and decode nothing."""

import contextlib
import glob
import hashlib
import mmap
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gga_lightning.data.decoding import decode, image_size
from gga_lightning.data.locks import alone
from gga_lightning.data.threads import in_chunks

__all__ = ["DecodedCache", "estimate"]

PathLike = str | os.PathLike[str]

_MAGIC = b"gga_lightning decoded cache 1\n\0\0"  # 32 bytes; the number changes with the format


class DecodedCache:
    """The decoded images of a list of files, in one file that is mapped and never read whole.

    ``cache[i]`` is a copy of the image that :func:`~gga_lightning.data.decoding.decode` returns for
    the i-th path. Processes that open the same cache share its memory, and the operating system
    can free this memory at any time. A cache is pickled as its file's path and identity, and can
    therefore be sent to workers, whichever way they are started.

    The cache is written under another name in the same folder, flushed to the disk, and renamed.
    A file with the final name is therefore always complete. It holds the identity of its images
    (paths relative to their common folder, sizes, times of change, ``max_side``). If the identity
    has changed, :meth:`build` writes a new file. If several processes build the same file, one of
    them works and the others wait for it.

    Attributes:
        file: The path of the cache file.
    """

    def __init__(self, file: PathLike) -> None:
        """Opens a cache that was built.

        Args:
            file: The path of the cache file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a complete cache of this version.
        """
        self.file = Path(file)
        self.identity, self._shapes = _read_head(self.file)
        self._starts = _starts(self._shapes)
        # read-only: a writable map counts as memory of the process, and the system refuses one
        # that is larger than the machine's memory
        with self.file.open("rb") as opened:
            self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)

    @classmethod
    def build(
        cls,
        paths: Sequence[PathLike],
        file: PathLike,
        *,
        progress: bool = True,
        max_side: int | None = None,
        domainbed: bool = False,
    ) -> "DecodedCache":
        """Opens the cache of these files. Builds it first if it is missing or out of date.

        A pool of threads decodes the images into a new file beside the old one.

        Args:
            paths: The image files, in the order of the cache's indices.
            file: The path of the cache file. Its folder is created if it does not exist.
            progress: Whether to print the size of the cache and the progress on standard error.
            max_side: Largest number of pixels of the shorter side of a stored image, for large
                photographs. Larger images are resized and keep their aspect ratio. If None, all
                images are stored unchanged.
            domainbed: As in :func:`gga_lightning.data.decoding.decode`.

        Returns:
            The cache, open.

        Raises:
            ValueError: If there are no paths, ``max_side`` is less than 1, or a file is not an
                image. The message names the file.
            OSError: If a file cannot be read, or the disk has too little space.
        """
        if max_side is not None and max_side < 1:
            raise ValueError(f"`max_side` must be at least 1 or None, got {max_side}.")
        file, names = Path(file), [os.fspath(path) for path in paths]
        identity = _identity(names, max_side, domainbed)
        if (cache := cls._current(file, identity)) is not None:
            return cache
        file.parent.mkdir(parents=True, exist_ok=True)

        def waits() -> None:
            if progress:
                print(f"Waiting for another process that builds {file}.", file=sys.stderr)

        with alone(Path(f"{file}.lock"), waits) as held:
            if held:
                _delete_unfinished(file)
            cache = cls._current(file, identity)  # another process may just have built it
            if cache is None:
                _make(names, file, identity, max_side, domainbed, progress)
                cache = cls(file)
        return cache

    @classmethod
    def _current(cls, file: Path, identity: bytes) -> "DecodedCache | None":
        with contextlib.suppress(FileNotFoundError, ValueError):
            cache = cls(file)
            if cache.identity == identity:
                return cache
        return None

    @classmethod
    def _reopen(cls, file: Path, identity: bytes) -> "DecodedCache":
        cache = cls(file)
        if cache.identity != identity:
            raise ValueError(
                f"The cache {os.fspath(file)!r} was rebuilt from other images while a process "
                "that uses it was starting. Start again."
            )
        return cache

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reopen, (self.file, self.identity)

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> Tensor:
        """Reads an image.

        Args:
            index: Its index in the list of paths. A negative index counts from the end.

        Returns:
            uint8 of shape ``(3, H, W)``, with the channels of a pixel side by side in memory.

        Raises:
            IndexError: If the index is out of range.
        """
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"`index` must be from {-count} to {count - 1}, got {index}.")
        height, width = self._shapes[index].tolist()
        pixels = np.ndarray((height, width, 3), np.uint8, self._map, int(self._starts[index]))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def estimate(
    paths: Iterable[PathLike], *, max_side: int | None = None, domainbed: bool = False
) -> int:
    """Computes the size of a cache of these files from their headers, without decoding them.

    Args:
        paths: The image files.
        max_side: As in :meth:`DecodedCache.build`.
        domainbed: As in :meth:`DecodedCache.build`.

    Returns:
        The cache file's size in bytes.

    Raises:
        ValueError: If a file is not an image. The message names it.
        OSError: If a file cannot be read.
    """
    names = [os.fspath(path) for path in paths]
    return _size(_header_shapes(names, max_side, domainbed, progress=False))


# Layout of the file: 32 bytes of magic, 32 of identity, 8 of the count, the shapes (for each image
# its height and width, int32), then the images, row by row with three bytes per pixel

_Shapes = NDArray[np.int32]


def _head(identity: bytes, shapes: _Shapes) -> bytes:
    return _MAGIC + identity + len(shapes).to_bytes(8, "little") + shapes.tobytes()


def _starts(shapes: _Shapes) -> NDArray[np.int64]:
    """Finds the offset of each image in the file."""
    sizes = 3 * shapes.astype(np.int64).prod(1)
    return len(_head(bytes(32), shapes)) + np.cumsum(sizes) - sizes


def _size(shapes: _Shapes) -> int:
    return len(_head(bytes(32), shapes)) + 3 * int(shapes.astype(np.int64).prod(1).sum())


def _read_head(file: Path) -> tuple[bytes, _Shapes]:
    with file.open("rb") as opened:
        magic, identity = opened.read(32), opened.read(32)
        count = int.from_bytes(opened.read(8), "little")
        total = os.fstat(opened.fileno()).st_size
        if magic == _MAGIC and count <= total // 8:
            shapes = np.frombuffer(opened.read(8 * count), "<i4").reshape(-1, 2)
            if len(shapes) == count and _size(shapes) == total:
                return identity, shapes
    raise ValueError(
        f"The file {os.fspath(file)!r} ({total} bytes) is not a complete cache of decoded images "
        "of this version. Make it with DecodedCache.build."
    )


# Building


def _identity(paths: Sequence[str], max_side: int | None, domainbed: bool) -> bytes:
    """Computes a digest of the files' names and states, independent of the folder's location."""
    if not paths:
        raise ValueError("`paths` must name at least one image file, got none.")
    absolute = [os.path.abspath(path) for path in paths]
    folder = os.path.commonpath({os.path.dirname(path) for path in absolute})
    digest = hashlib.sha256(repr((max_side, domainbed)).encode())
    for path in absolute:
        state = os.stat(path)
        name = path[len(folder) :]
        digest.update(repr((name, state.st_size, state.st_mtime_ns)).encode())
    return digest.digest()


def _delete_unfinished(file: Path) -> None:
    """Deletes the partial files of killed processes. The caller holds the cache file's lock."""
    for unfinished in file.parent.glob(f"{glob.escape(file.name)}.*.part"):
        unfinished.unlink()


def _make(
    paths: Sequence[str],
    file: Path,
    identity: bytes,
    max_side: int | None,
    domainbed: bool,
    progress: bool,
) -> None:
    shapes = _header_shapes(paths, max_side, domainbed, progress)
    needed, free = _size(shapes), shutil.disk_usage(file.parent).free
    size = f"{needed:,} bytes ({needed / 2**30:.1f} GiB)"
    if needed > free:
        raise OSError(
            f"The cache {os.fspath(file)!r} of {len(paths)} images needs {size}, and its disk has "
            f"{free:,} free. Choose another folder, or store smaller images (`max_side`)."
        )
    part = f"{file}.{uuid.uuid4().hex}.part"  # tempfile's files cannot be read by other users
    try:
        with open(part, "xb") as opened:
            if progress:
                print(f"Decoding {len(paths)} images into {file}, {size}.", file=sys.stderr)
            fill = _filler(part, paths, shapes, max_side, domainbed)
            in_chunks(fill, len(paths), "Decoding", progress)
            opened.write(_head(identity, shapes))  # written last: a file with a head is complete
            opened.flush()
            os.fsync(opened.fileno())
        _publish(part, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise


def _filler(
    part: str, paths: Sequence[str], shapes: _Shapes, max_side: int | None, domainbed: bool
) -> Callable[[range], None]:
    """Makes the function that decodes some of the images into the file, each at its offset."""
    starts = _starts(shapes)
    read = partial(decode, domainbed=True) if domainbed else decode

    def fill(chunk: range) -> None:
        with open(part, "r+b") as opened:  # one for each thread, since each needs its own position
            for index in chunk:
                height, width = shapes[index].tolist()
                image = read(paths[index])
                if max_side is None and image.shape[1:] != (height, width):
                    raise ValueError(
                        f"The file {paths[index]!r} is {height} x {width} by its header and "
                        f"{image.shape[1]} x {image.shape[2]} decoded. Delete it or fetch it again."
                    )
                opened.seek(int(starts[index]))
                opened.write(_resized(image, height, width).numpy().data)

    return fill


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """The image at that size, shape (height, width, 3), contiguous."""
    if image.shape[1:] != (height, width):
        size = (height, width)
        image = functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
    return image.permute(1, 2, 0).contiguous()


def _publish(part: str, file: Path) -> None:
    """Renames the file, and syncs the folder so that the name survives a crash of the machine."""
    os.replace(part, file)
    if os.name == "posix":
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _header_shapes(
    paths: Sequence[str], max_side: int | None, domainbed: bool, progress: bool
) -> _Shapes:
    shapes = np.empty((len(paths), 2), "<i4")

    def read(chunk: range) -> None:
        for index in chunk:
            size = image_size(paths[index], domainbed=domainbed)
            scale = 1.0 if max_side is None else min(1.0, max_side / min(size))
            shapes[index] = [round(scale * side) for side in size]

    in_chunks(read, len(paths), "Reading sizes", progress)
    return shapes
