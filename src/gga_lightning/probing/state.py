"""Detects changes in the state of Python objects, and restores it."""

import collections
import inspect
import itertools
import operator
import pickle
import warnings
from collections.abc import Iterable, Sequence
from types import CellType
from typing import Any

from gga_lightning.probing.kinds import CONTAINERS, has_hidden_state, slot_names

__all__ = [
    "Attributes",
    "Cell",
    "Content",
    "Contents",
    "Node",
    "Opaque",
    "Path",
    "Slots",
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
        path: The path to it.
        live: The object that has the state.
    """

    __slots__ = ("live", "path")

    def __init__(self, path: Path, live: Any) -> None:
        """Remembers the present state."""
        self.path, self.live = path, live

    def changed(self) -> bool:
        """Tells whether the state differs from what it was."""
        raise TypeError

    def restore(self) -> None:
        """Restores the state."""
        raise TypeError


class Content(Node):
    """The objects that a list, dict, set or deque holds. Their content has nodes of its own."""

    # The methods of Python's own classes are called, since a subclass may refuse changes.
    __slots__ = ("saved",)

    def __init__(self, path: Path, live: Any) -> None:
        """Remembers the present state."""
        self.path, self.live = path, live
        self.saved: Any = () if not live else _entries(live)

    def changed(self) -> bool:
        """Determines whether it holds other objects, or another order of them."""
        live, saved = self.live, self.saved
        if len(live) != len(saved):
            return True
        if not saved:
            return False
        if isinstance(live, set):
            return live != saved
        if any(map(operator.is_not, live, saved)):
            return True
        if not isinstance(live, dict):
            return False
        return any(map(operator.is_not, dict.values(live), saved.values()))

    def restore(self) -> None:
        """Fills it with the objects that it held."""
        live = self.live
        kind = next(kind for kind in _KINDS if isinstance(live, kind))
        kind.clear(live)
        if isinstance(live, dict):
            for key, value in dict(self.saved).items():
                kind.__setitem__(live, key, value)
        elif isinstance(live, set):
            set.update(live, self.saved)
        else:
            kind.extend(live, self.saved)


_KINDS: tuple[Any, ...] = (collections.OrderedDict, dict, list, set, collections.deque)


def _entries(live: Any) -> Any:
    if isinstance(live, dict):
        ordered = isinstance(live, collections.OrderedDict)
        kind: Any = collections.OrderedDict if ordered else dict
        return dict(kind.items(live))
    return set(live) if isinstance(live, set) else list(live)


class Contents:
    """State that rarely changes. The entries of all its containers are compared at once."""

    def __init__(self) -> None:
        """Has no state yet."""
        self._ordered: list[Content] = []
        self._others: list[Node] = []
        self._entries: list[Iterable[Any]] = []
        self._saved: list[Any] = []

    def add(self, node: Node) -> None:
        """Adds a piece of state.

        Args:
            node: The state.
        """
        if not isinstance(node, Content) or isinstance(node.live, set):
            self._others.append(node)
            return
        self._ordered.append(node)
        live, saved = node.live, node.saved
        if isinstance(live, dict):
            self._compare(dict.values(live), dict(saved).values())
        if not isinstance(node, Attributes):  # their names say less than their values
            self._compare(dict.keys(live) if isinstance(live, dict) else live, saved)

    def _compare(self, live: Iterable[Any], saved: Iterable[Any]) -> None:
        self._entries += live, _ENDS
        self._saved += *saved, *_ENDS

    def restore(self) -> None:
        """Restores what has changed."""
        entries = itertools.chain.from_iterable(self._entries)
        if any(map(operator.is_not, entries, self._saved)):
            for node in self._ordered:
                if node.changed():
                    node.restore()
        for node in self._others:
            if node.changed():
                node.restore()


_ENDS = (object(),)  # a mark after the entries of a container


class Attributes(Content):
    """The attributes of an object: the content of its ``__dict__``."""

    __slots__ = ("_kind",)

    def __init__(self, path: Path, live: Any, kind: type = object) -> None:
        """Remembers the present state, of an object of a class."""
        super().__init__(path, live)
        self._kind = kind

    def drop_caches(self) -> None:
        """Removes values that were cached since, as by :func:`functools.cached_property`."""
        for name in list(self.live):
            if name not in self.saved:
                method = inspect.getattr_static(self._kind, name, None)
                is_cached = hasattr(method, "__get__") and not hasattr(method, "__set__")
                if is_cached and not callable(method):
                    del self.live[name]
            elif name == _FLAGS:
                self.live[name] = self.saved[name]


_FLAGS = "_flags_cache"  # where OmegaConf keeps what it has looked up


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
    """Records an object: its attributes, slots and content, and state that C code may hide.

    Args:
        value: Any object.
        path: Where it is.

    Returns:
        Its state, without the content of the objects that it refers to.
    """
    found: list[Node] = []
    if isinstance(getattr(value, "__dict__", None), dict):
        found.append(Attributes(path, vars(value), type(value)))
    slots = slot_names(type(value))
    if slots:
        found.append(Slots(path, value, slots))
    if isinstance(value, CONTAINERS):
        found.append(Content(path, value))
    if has_hidden_state(type(value)):
        found.append(Opaque(path, value))
    return found
