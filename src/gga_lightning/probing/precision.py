"""Computes in full float32, whatever the trainer, the backends or the module ask for."""

import contextlib
import functools
import warnings
from collections.abc import Generator
from typing import Any

import torch

__all__ = ["full_precision"]


@contextlib.contextmanager
def full_precision(device: torch.device) -> Generator[None, None, None]:
    """Turns off autocast, TF32 and other reduced precision of float32 products.

    ``torch.autocast`` inside the body has no effect, even in the module's own code. Both ways to
    ask PyTorch for its settings work inside: ``fp32_precision``, and ``allow_tf32`` from before
    PyTorch 2.9.

    Args:
        device: The device that computes.

    Yields:
        Nothing.
    """
    set_enabled: Any = torch.set_autocast_enabled

    def disable(*arguments: Any) -> None:
        set_enabled(*arguments[:-1], False)  # arguments are (device type, enabled)

    with _float32_products(), torch.autocast(device.type, enabled=False):
        setattr(torch, "set_autocast_enabled", disable)  # noqa: B010, what autocast calls
        try:
            yield
        finally:
            setattr(torch, "set_autocast_enabled", set_enabled)  # noqa: B010


@contextlib.contextmanager
def _float32_products() -> Generator[None, None, None]:
    backends: Any = torch.backends
    operations: list[Any] = [
        *(backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn),
        *(backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn),
    ]
    precisions = [operation.fp32_precision for operation in operations]
    _skip_deprecation_warning()
    matmul, cudnn = _earlier_settings()
    # first the earlier settings, which PyTorch compares with the others when it is asked for them
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = False
    for operation in operations:
        if operation.fp32_precision in ("tf32", "bf16"):
            operation.fp32_precision = "ieee"
    try:
        yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if cudnn is not None:
            backends.cudnn.allow_tf32 = cudnn
        for operation, precision in zip(operations, precisions, strict=True):
            if operation.fp32_precision != precision:
                operation.fp32_precision = precision


@functools.cache
def _skip_deprecation_warning() -> None:
    """Reads an earlier setting silently: PyTorch 2.9.0 warns once in a process that it is old."""
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
        warnings.simplefilter("ignore")
        torch.get_float32_matmul_precision()


def _earlier_settings() -> tuple[str | None, bool | None]:
    """The settings from before PyTorch 2.9; None where `fp32_precision` has overruled one."""
    found: list[Any] = []
    for get in (torch.get_float32_matmul_precision, lambda: torch.backends.cudnn.allow_tf32):
        try:
            found.append(get())
        except RuntimeError:
            found.append(None)
    return found[0], found[1]
