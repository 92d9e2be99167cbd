"""Restores the numbers of copied tensors and arrays from the originals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gga_lightning.probing.state import Node, Path

__all__ = [
    "Array",
    "ObjectArray",
    "SparseValue",
    "TensorValue",
    "count_changes",
    "is_strided",
    "same_numbers",
    "sparse_parts",
]


class TensorValue(Node):
    """The numbers of a strided tensor that is a copy of another one.

    Attributes:
        uncounted: Whether it is known to change in a way that PyTorch does not count.
    """

    __slots__ = ("_first", "_home", "_source", "_version", "uncounted")

    def __init__(self, path: Path, live: Tensor, source: Tensor) -> None:
        """Remembers the present state."""
        super().__init__(path, live)
        self._first = _plain(live)  # its memory now, in case the tensor gets other memory
        self._home, self._source = _once_each(self._first, _plain(source))
        self._version, self.uncounted = live._version, False

    def changed(self) -> bool:
        """Compares its bits with those of the source, which reads both."""
        return not _same_bits(_plain(self.live), self._source)

    def may_have_changed(self) -> bool:
        """Determines from PyTorch's counters whether it was changed since it was restored."""
        live = self.live
        if self.uncounted or live._version != self._version:
            return True
        return live.data_ptr() != self._first.data_ptr()

    def restore(self) -> None:
        """Takes the numbers from the source."""
        self.restore_all([self])

    @staticmethod
    def restore_all(nodes: Sequence["TensorValue"]) -> None:
        """Takes the numbers of several tensors from their sources, in few calls.

        Args:
            nodes: The tensors.
        """
        if not nodes:
            return
        for node in nodes:
            live, first = node.live, node._first
            if live.data_ptr() != first.data_ptr() or live.shape != first.shape:
                live.data = first
        with torch.no_grad():  # in few calls, as PyTorch's own optimizers do it
            torch._foreach_copy_(  # pyright: ignore[reportPrivateUsage]
                [node._home for node in nodes], [node._source for node in nodes]
            )
        for node in nodes:
            node._version = node.live._version


class SparseValue(Node):
    """The numbers of a tensor of another layout, or of another class, that is a copy."""

    __slots__ = ("_source",)

    def __init__(self, path: Path, live: Tensor, source: Tensor) -> None:
        """Remembers the present state."""
        super().__init__(path, live)
        self._source = source

    def changed(self) -> bool:
        """Tells whether its bits differ from those of the source, or it cannot be told."""
        return not same_numbers(self.live, self._source)

    def restore(self) -> None:
        """Takes a new copy of the source."""
        self.live.data = self._source.detach().clone()


class Array(Node):
    """The numbers of a NumPy array that is a copy of another one."""

    __slots__ = ("_source",)

    def __init__(self, path: Path, live: "np.ndarray[Any, Any]", source: Any) -> None:
        """Remembers the present state."""
        super().__init__(path, live)
        self._source = source.view(np.ndarray)

    def changed(self) -> bool:
        """Tells whether its bytes differ from those of the source."""
        live, source = self.live.view(np.ndarray), self._source
        if live.shape != source.shape or live.dtype != source.dtype:
            return True
        return live.tobytes() != source.tobytes()

    def restore(self) -> None:
        """Takes the numbers from the source."""
        if self.live.shape != self._source.shape:
            if self.live.size == self._source.size:
                self.live.shape = self._source.shape
            else:
                self.live.resize(self._source.shape, refcheck=False)
        self.live.view(np.ndarray)[...] = self._source


class ObjectArray(Node):
    """The objects that a NumPy array of objects holds. Their content has nodes of its own."""

    __slots__ = ("_saved",)

    def __init__(self, path: Path, live: "np.ndarray[Any, Any]") -> None:
        """Remembers the present state."""
        super().__init__(path, live)
        self._saved: list[Any] = list(live.flat)

    def changed(self) -> bool:
        """Tells whether it holds other objects."""
        return any(new is not old for new, old in zip(self.live.flat, self._saved, strict=True))

    def restore(self) -> None:
        """Fills it with the objects that it held."""
        for place, value in zip(np.ndindex(self.live.shape), self._saved, strict=True):
            self.live[place] = value


def is_strided(tensor: Tensor) -> bool:
    """Determines whether a tensor has its own memory with regular strides.

    Args:
        tensor: Any tensor.

    Returns:
        Whether that holds; not for sparse, nested, quantized and meta tensors.
    """
    regular = tensor.layout is torch.strided and not tensor.is_nested
    return regular and not tensor.is_quantized and not tensor.is_meta


def count_changes(tensor: Tensor) -> int:
    """Asks PyTorch how often a tensor was changed in place.

    Args:
        tensor: Any tensor.

    Returns:
        The count, which leaves out changes through ``.data``; 0 where PyTorch does not count.
    """
    return 0 if tensor.is_inference() else tensor._version


def same_numbers(left: Tensor, right: Tensor) -> bool:
    """Compares two tensors, where a NaN equals itself.

    Args:
        left: A tensor.
        right: Another of the same layout.

    Returns:
        Whether they have the same shape, type and bits. False for layouts that PyTorch cannot
        compare.
    """
    if left.is_nested != right.is_nested or left.layout != right.layout:
        return False
    if left.is_nested:
        inner = list(left.unbind()), list(right.unbind())
        return len(inner[0]) == len(inner[1]) and all(map(same_numbers, *inner))
    if left.shape != right.shape:
        return False
    if is_strided(left) and is_strided(right):
        return _same_bits(_plain(left), _plain(right))
    pairs = list(zip(sparse_parts(left), sparse_parts(right), strict=True))
    if pairs:
        return all(same_numbers(*pair) for pair in pairs)
    try:
        return torch.equal(left, right)
    except Exception:  # a class or layout may not know equality
        return False


def sparse_parts(tensor: Tensor) -> list[Tensor]:
    """Finds the strided tensors that a sparse tensor is made of.

    Args:
        tensor: Any tensor.

    Returns:
        Its indices and values; an empty list for a tensor that is not sparse.
    """
    layout = str(tensor.layout)
    if layout == "torch.sparse_coo":
        return [tensor._indices(), tensor._values()]
    if layout in ("torch.sparse_csr", "torch.sparse_bsr"):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if layout in ("torch.sparse_csc", "torch.sparse_bsc"):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return []


def _same_bits(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if not left.is_contiguous() or not right.is_contiguous():
        return torch.equal(left, right)
    pair = [
        each.resolve_conj().resolve_neg().reshape(-1).view(torch.uint8) for each in (left, right)
    ]
    return torch.equal(*pair)


def _plain(tensor: Tensor) -> Tensor:
    plain = tensor.detach()
    return plain if type(plain) is Tensor else plain.as_subclass(Tensor)


def _once_each(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Leaves out the repetitions of an expanded tensor, which cannot be written to."""
    strides = tensors[0].stride()
    if 0 not in strides:
        return tensors
    for dim, stride in enumerate(strides):
        if stride == 0 and tensors[0].shape[dim] > 1:
            tensors = tuple(tensor.narrow(dim, 0, 1) for tensor in tensors)
    return tensors
