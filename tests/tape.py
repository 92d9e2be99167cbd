"""A recorder for tests without a GPU, which shares what matters with CUDA graphs.

It notes each tensor operation of a function. A replay runs the same operations on the same memory
and no Python of the function: what was read from attributes, counters and generators is fixed.
"""

import contextlib
import functools

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gga_lightning.alignment.graphs import Recorder


class Tape(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing.\nMore.")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if not isinstance(old, torch.Tensor):
                    continue
                if old.layout is not torch.strided or old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class TapeRecorder(Recorder):
    def __init__(self):
        super().__init__()
        self.recorded = self.released = self.replayed = 0

    @contextlib.contextmanager
    def watched(self):
        yield

    def record(self, body):
        self.recorded += 1
        tape = Tape()
        with tape:
            body()
        return functools.partial(self._replay, tape)

    def _replay(self, tape):
        self.replayed += 1
        tape.replay()

    def release(self):
        self.released += 1
