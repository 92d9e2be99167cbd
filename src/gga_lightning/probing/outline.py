"""Outlines of batches, for messages."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["describe"]


def describe(batch: Any) -> str:
    """Outlines a batch for a message, one level deep.

    Args:
        batch: A tree.

    Returns:
        Such as ``a tuple (float32[6, 2], int64[6])``.
    """
    if isinstance(batch, Mapping):
        inside = ", ".join(f"{key!r}: {_outline(value)}" for key, value in batch.items())
        return f"a {type(batch).__name__} {{{inside}}}"
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} ({', '.join(_outline(value) for value in batch)})"
    return f"a {_outline(batch)}"


def _outline(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
