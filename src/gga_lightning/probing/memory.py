"""Copies of tensors and arrays that overlap in memory as their originals do."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["LARGE", "Memory", "Sample"]

LARGE = 2**20
"""How many bytes make a tensor or an array large."""

_TAKEN = 1024  # numbers of each tensor


class Memory:
    """Copies tensors and arrays. Copies share memory if their originals do, such as views."""

    def __init__(self, shared: Iterable[Tensor]) -> None:
        """Sets the memory that is not copied.

        Args:
            shared: Tensors whose memory the copies use too.
        """
        self._shared = {tensor.untyped_storage().data_ptr() for tensor in shared}
        self._copies: dict[int, torch.UntypedStorage] = {}

    def copy(self, tensor: Tensor) -> Tensor:
        """Copies a tensor.

        Args:
            tensor: A plain, strided tensor.

        Returns:
            Its copy, without a graph. A small view of large memory that no other tensor has been
            copied with is copied alone.
        """
        memory = tensor.untyped_storage()
        address = memory.data_ptr()
        if address == 0:  # it has no numbers
            return tensor.detach().clone()
        if address in self._shared:
            return tensor.detach()
        own = self._copies.get(address)
        if own is None and tensor.nbytes == memory.nbytes():
            new = tensor.detach().clone()
            if new.stride() == tensor.stride():
                self._copies[address] = new.untyped_storage()
            return new
        if own is None and memory.nbytes() < max(LARGE, 4 * tensor.nbytes):
            own = self._copies[address] = memory.clone()
        if own is None or tensor.is_conj() or tensor.is_neg():
            return tensor.detach().clone()
        new = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return new.set_(own, tensor.storage_offset(), tensor.shape, tensor.stride())

    def copy_array(self, array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """Copies an array, with the memory that it shares with tensors and other arrays.

        Args:
            array: An array of numbers or texts.

        Returns:
            Its copy, of the same class.
        """
        root = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        # arrays of another class may have a memory of their own, such as a file
        regular = type(root) is np.ndarray and (root.flags.c_contiguous or root.flags.f_contiguous)
        if not regular or not root.nbytes or root.nbytes > max(LARGE, 4 * array.nbytes):
            return np.array(array, copy=True, subok=True)
        address = _address(root)
        if address not in self._copies:
            content = np.frombuffer(root.tobytes("A"), np.uint8).copy()
            self._copies[address] = torch.from_numpy(content).untyped_storage()
        if self._copies[address].nbytes() < root.nbytes:  # a tensor made from a part of it
            return np.array(array, copy=True, subok=True)
        own = torch.empty(0, dtype=torch.uint8).set_(self._copies[address]).numpy()
        offset = _address(array) - address
        new = np.ndarray(array.shape, array.dtype, own.data, offset, array.strides)
        new.flags.writeable = array.flags.writeable
        return new.view(type(array))


class Sample:
    """A sample of the numbers of tensors, which shows changes at little cost."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Takes the sample.

        Args:
            tensors: Strided tensors.
        """
        self._views: dict[Any, list[Tensor]] = {}
        for tensor in tensors:
            numbers = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            numbers = numbers.set_(tensor.detach().untyped_storage())
            view = numbers[:: max(1, len(numbers) // _TAKEN)]
            self._views.setdefault((tensor.dtype, tensor.device), []).append(view)
        self._saved = {kind: torch.cat(views) for kind, views in self._views.items()}

    def changed(self) -> bool:
        """Compares the sample with the present numbers.

        Returns:
            Whether it differs. A change of all numbers is detected, a change of a few may not be.
        """
        return any(
            not torch.equal(torch.cat(views).view(torch.uint8), self._saved[kind].view(torch.uint8))
            for kind, views in self._views.items()
        )


def _address(array: "np.ndarray[Any, Any]") -> int:
    return array.__array_interface__["data"][0]
