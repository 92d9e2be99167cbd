"""Copies of tensors that overlap in memory as their originals do."""

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["Memory"]

_LARGE = 2**20  # bytes


class Memory:
    """Copies tensors. Those that share memory, such as views of one buffer, share the copy's."""

    def __init__(self, shared: Iterable[Tensor]) -> None:
        """Sets which memory is not copied.

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
        if address in self._shared:
            return tensor.detach()
        own = self._copies.get(address)
        if own is None and tensor.nbytes == memory.nbytes():
            new = tensor.detach().clone()
            if new.stride() == tensor.stride():
                self._copies[address] = new.untyped_storage()
            return new
        if own is None and memory.nbytes() < max(_LARGE, 4 * tensor.nbytes):
            own = self._copies[address] = memory.clone()
        if own is None or tensor.is_conj() or tensor.is_neg():
            return tensor.detach().clone()
        new = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return new.set_(own, tensor.storage_offset(), tensor.shape, tensor.stride())
