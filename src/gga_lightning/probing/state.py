"""The kinds of state that objects have: how to see that it changed, and how to restore it."""

import pickle
import warnings
from collections.abc import Sequence
from types import CellType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gga_lightning.probing.kinds import CONTAINERS, has_hidden_state, slot_names

__all__ = [
    "Array",
    "Attributes",
    "Cell",
    "Content",
    "Node",
    "Opaque",
    "Path",
    "Slots",
    "TensorValue",
    "object_nodes",
    "text",
]

Path = tuple["Path | None", str, Any]
"""Where a value was found: the path of its holder, how it is reached from there, and its name."""

_ABSENT = object()


def text(path: Path) -> str:
    """Writes a path as Python would.

    Args:
        path: The path.

    Returns:
        A text such as ``self.meter.counts['art']``.
    """
    holder, how, name = path
    prefix = "" if holder is None else text(holder)
    return f"{prefix}[{name!r}]" if how == "[]" else f"{prefix}{how}{name}"


class Node:
    """One piece of mutable state.

    Attributes:
        path: Where it is.
        live: The object whose state it is.
        changing: Whether it is known to change; for the holder's use.
    """

    __slots__ = ("changing", "live", "path")

    def __init__(self, path: Path, live: Any) -> None:
        """Remembers the present state."""
        self.path, self.live, self.changing = path, live, False

    def changed(self) -> bool:
        """Tells whether the state differs from what it was."""
        raise TypeError

    def restore(self) -> None:
        """Restores the state."""
        raise TypeError


class Content(Node):
    """Which objects a list, dict, set or deque holds. Their insides are nodes of their own."""

    __slots__ = ("saved",)

    def __init__(self, path: Path, live: Any) -> None:
        """Remembers the present state."""
        self.path, self.live, self.changing = path, live, False
        self.saved = () if not live else dict(live) if isinstance(live, dict) else live.copy()

    def changed(self) -> bool:
        """Tells whether it holds other objects, or holds them in another order."""
        live, saved = self.live, self.saved
        if len(live) != len(saved):
            return True
        if not saved:
            return False
        if isinstance(live, dict):
            pairs = zip(live.items(), saved.items(), strict=True)
            return any(k is not key or v is not value for (k, v), (key, value) in pairs)
        if isinstance(live, set):
            return live != saved
        return any(new is not old for new, old in zip(live, saved, strict=True))

    def restore(self) -> None:
        """Fills it with the objects that it held."""
        self.live.clear()
        if isinstance(self.live, dict | set):
            self.live.update(self.saved)
        else:
            self.live.extend(self.saved)


class Attributes(Content):
    """Which objects the attributes of an object are: its ``__dict__``."""

    __slots__ = ()


class Slots(Node):
    """The values of an object's ``__slots__``."""

    __slots__ = ("_names", "_saved")

    def __init__(self, path: Path, live: Any, names: Sequence[str]) -> None:
        """Remembers the present state."""
        super().__init__(path, live)
        self._names = names
        self._saved = self._values()

    def _values(self) -> list[Any]:
        return [getattr(self.live, name, _ABSENT) for name in self._names]

    def changed(self) -> bool:
        """Tells whether a slot holds another object."""
        return any(new is not old for new, old in zip(self._values(), self._saved, strict=True))

    def restore(self) -> None:
        """Fills the slots with the objects that they held."""
        for name, value in zip(self._names, self._saved, strict=True):
            if value is not _ABSENT:
                object.__setattr__(self.live, name, value)
            elif hasattr(self.live, name):
                object.__delattr__(self.live, name)


class Cell(Node):
    """A variable that a closure captured."""

    __slots__ = ("_saved",)

    def __init__(self, path: Path, live: CellType) -> None:
        """Remembers the present state."""
        super().__init__(path, live)
        self._saved = live.cell_contents

    def changed(self) -> bool:
        """Tells whether the variable holds another object."""
        return self.live.cell_contents is not self._saved

    def restore(self) -> None:
        """Lets the variable hold what it held."""
        self.live.cell_contents = self._saved


class TensorValue(Node):
    """The numbers of a tensor that is a copy of another one."""

    __slots__ = ("_place", "_source", "_version")

    def __init__(self, path: Path, live: Tensor, source: Tensor) -> None:
        """Remembers the present state."""
        super().__init__(path, live)
        self._source = source
        self._note()

    def _note(self) -> None:
        self._version, self._place = self.live._version, self.live.data_ptr()

    def changed(self) -> bool:
        """Tells whether it was changed, but for changes in place through ``.data``."""
        return self._version != self.live._version or self._place != self.live.data_ptr()

    def differs(self) -> bool:
        """Tells whether its bits differ from those of the source, at the cost of reading both."""
        live, source = _plain(self.live), _plain(self._source)
        if live.shape != source.shape or live.dtype != source.dtype:
            return True
        return not torch.equal(_bits(live), _bits(source))

    def restore(self) -> None:
        """Takes the numbers from the source."""
        self.restore_all([self])

    @staticmethod
    @torch.no_grad()
    def restore_all(nodes: Sequence["TensorValue"]) -> None:
        """Takes the numbers of several tensors from their sources, in few calls.

        Args:
            nodes: The tensors.
        """
        if not nodes:
            return
        for node in nodes:
            if node.live.shape != node._source.shape or node.live.dtype != node._source.dtype:
                node.live.data = torch.empty_like(node._source)
        sources = [_plain(node._source) for node in nodes]
        # in few calls, as PyTorch's own optimizers do it
        torch._foreach_copy_(  # pyright: ignore[reportPrivateUsage]
            [_plain(node.live) for node in nodes], sources
        )
        for node in nodes:
            node._note()


class Array(Node):
    """The numbers of a NumPy array that is a copy of another one."""

    __slots__ = ("_source",)

    def __init__(self, path: Path, live: "np.ndarray[Any, Any]", source: Any) -> None:
        """Remembers the present state."""
        super().__init__(path, live)
        self._source = source

    def changed(self) -> bool:
        """Tells whether its bytes differ from those of the source."""
        same_kind = self.live.shape == self._source.shape and self.live.dtype == self._source.dtype
        return not same_kind or self.live.tobytes() != self._source.tobytes()

    def restore(self) -> None:
        """Takes the numbers from the source."""
        if self.live.shape != self._source.shape:  # resized in place
            self.live.resize(self._source.shape, refcheck=False)
        self.live[...] = self._source


class Opaque(Node):
    """An object whose state can be read only by pickling it, and cannot be set."""

    __slots__ = ("saved",)

    def __init__(self, path: Path, live: Any) -> None:
        """Remembers the present state."""
        super().__init__(path, live)
        self.saved = self._pickled()

    def _pickled(self) -> bytes | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickling itertools, from Python 3.12
                return pickle.dumps(self.live)
        except Exception:  # what cannot be read counts as unchanged
            return None

    def changed(self) -> bool:
        """Tells whether its pickled state differs."""
        return self._pickled() != self.saved


def object_nodes(value: Any, path: Path) -> list[Node]:
    """Takes note of an object: its attributes, slots, contents, and what C code may hide.

    Args:
        value: Any object.
        path: Where it is.

    Returns:
        Its state. The insides of what it refers to are left out.
    """
    found: list[Node] = []
    if isinstance(getattr(value, "__dict__", None), dict):
        found.append(Attributes(path, vars(value)))
    slots = slot_names(type(value))
    if slots:
        found.append(Slots(path, value, slots))
    if isinstance(value, CONTAINERS):
        found.append(Content(path, value))
    if has_hidden_state(type(value)):
        found.append(Opaque(path, value))
    return found


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().as_subclass(Tensor)


def _bits(tensor: Tensor) -> Tensor:
    """The tensor's bytes where they can be had: a NaN does not equal itself."""
    if tensor.layout is not torch.strided or not tensor.is_contiguous():
        return tensor
    return tensor.reshape(-1).view(torch.uint8)
