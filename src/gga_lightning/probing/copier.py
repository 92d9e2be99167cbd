"""Copies an object with everything that can be reached from it, and notes its mutable state.

:func:`copy.deepcopy` comes close. It is not used because it leaves closures and compiled functions
bound to the original, fails on tensors with a graph, copies frozen weights of any size, takes
several times as long, and does not name the attribute that it fails on.
"""

import collections
import copy
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from gga_lightning.probing.kinds import (
    RANDOM,
    is_atomic,
    is_external,
    is_plain_module,
    is_sentinel,
    pickle_recipe,
    slot_names,
    without_finalizer,
)
from gga_lightning.probing.memory import Memory
from gga_lightning.probing.python_copies import PYTHON_COPIES
from gga_lightning.probing.randomness import Access
from gga_lightning.probing.state import (
    Attributes,
    Content,
    Node,
    Path,
    Slots,
    object_nodes,
)
from gga_lightning.probing.value_copies import copy_array, copy_random, copy_tensor
from gga_lightning.probing.values import Array, TensorValue, is_strided

__all__ = ["Copier"]

_COMMON = {type(None), bool, int, float, str}  # the atomic kinds met most often
_INTERNAL = vars(LightningModule()).keys() - {"training", "_buffers"}  # hooks, and the like


class Copier:
    """Copies objects, each of them once: references to one object lead to one copy of it.

    Subclasses decide which large tensors and arrays are shared with the original, and what
    replaces values that cannot be copied. External objects (:func:`is_external`) are always shared.

    Attributes:
        nodes: The mutable state of all copies.
        internal: The ids of the dictionaries in which PyTorch keeps its own modules' state, and
            hooks. The step of a user rarely changes them.
        spaces: The attributes of the copies of modules.
        read_only: Where arrays are shared in a form that cannot be written to.
        random_states: Access to the random generators among the copies.
    """

    def __init__(self, copied: Mapping[int, Any], shared: Sequence[Tensor]) -> None:
        """Sets the objects that need not be copied.

        Args:
            copied: The copies to use for certain objects, by the objects' ids.
            shared: Tensors that stay shared, together with all others on the same memory.
        """
        self.nodes: list[Node] = []
        self.internal: set[int] = set()
        self.spaces: list[dict[str, Any]] = []
        self.read_only: list[Path] = []
        self.random_states: list[Access] = []
        self.memo: dict[int, Any] = dict(copied)
        self._temporary: list[Any] = []  # objects whose ids the memo holds
        self.memory = Memory(shared)
        self.memo.update((id(tensor), tensor) for tensor in shared)

    def lends(self, value: Any, path: Path) -> bool:
        """Whether a large tensor or array is shared with the original."""
        return False

    def stand_in(self, value: Any, path: Path) -> Any:
        """Makes the replacement of a value that cannot be copied."""
        return value

    def prepare(self, module: nn.Module) -> None:
        """Called with the copy of each module, when its attributes are complete."""

    def copy(self, value: Any, path: Path) -> Any:
        """Copies any object, which was found at a path."""
        kind = type(value)
        if kind in _COMMON:
            return value
        found = self.memo.get(id(value), self)
        if found is not self:
            return found
        new = self._method(kind)(self, value, path)
        if new is not value:
            self.memo[id(value)] = new
        return new

    def begin(self, value: Any, new: Any) -> Any:
        """Registers a copy before its content, which may refer to it, is copied."""
        self.memo[id(value)] = new
        return new

    def _same(self, value: Any, path: Path) -> Any:
        return value

    def _list(self, value: Any, path: Path) -> Any:
        is_deque = isinstance(value, collections.deque)
        new = self.begin(value, collections.deque(maxlen=value.maxlen) if is_deque else [])
        if _COMMON.issuperset(map(type, value)):
            new.extend(value)
        else:
            new.extend([self.copy(entry, (path, "[]", place)) for place, entry in enumerate(value)])
        self.nodes.append(Content(path, new))
        return new

    def _dict(self, value: Any, path: Path) -> Any:
        new = self.memo[id(value)] = type(value)()
        if not value:
            pass  # as most of a module's are
        elif _COMMON.issuperset(map(type, value)) and _COMMON.issuperset(map(type, value.values())):
            new.update(value)
        else:
            for key, entry in value.items():
                new[self.copy(key, path)] = self.copy(entry, (path, "[]", key))
        if isinstance(new, collections.defaultdict):
            new.default_factory = self.copy(value.default_factory, path)
        self.nodes.append(Content(path, new))
        return new

    def _set(self, value: Any, path: Path) -> Any:
        new = type(value)(self.copy(entry, path) for entry in value)
        if isinstance(new, set):
            self.nodes.append(Content(path, new))
        return new

    def _tuple(self, value: Any, path: Path) -> Any:
        entries = [self.copy(entry, (path, "[]", place)) for place, entry in enumerate(value)]
        if all(new is old for new, old in zip(entries, value, strict=True)):
            return value
        return tuple.__new__(type(value), entries)

    def _module(self, value: Any, path: Path) -> Any:
        if "_orig_mod" in value._modules:  # compiled by torch.compile, and bound to the original
            return self.copy(value._orig_mod, path)
        kind: Any = type(value)
        new = self.begin(value, object.__new__(without_finalizer(kind)))
        space, compiled = vars(new), vars(value).get("_compiler_ctx") or {}
        for name, entry in vars(value).items():
            if name in ("_parameters", "_buffers", "_modules"):
                space[name] = self._registered(entry, path)
            elif name == "_compiler_ctx":
                space[name] = None
            elif name != "_compiled_call_impl":
                plain = compiled.get(f"original_{name}", entry)
                space[name] = self.copy(plain, (path, ".", name))
        for name in slot_names(kind):
            if hasattr(value, name):
                object.__setattr__(new, name, self.copy(getattr(value, name), (path, ".", name)))
        self.prepare(new)
        self.nodes.append(Attributes(path, space, kind))
        if slot_names(kind):
            self.nodes.append(Slots(path, new, slot_names(kind)))
        self.spaces.append(space)
        if kind.__module__.startswith("torch."):
            self.internal.update(map(id, (space, *space.values())))
        else:
            self.internal.update(id(space[name]) for name in space.keys() & _INTERNAL)
            if not space["_buffers"]:
                self.internal.add(id(space["_buffers"]))
        return new

    def _registered(self, value: Any, path: Path) -> Any:
        """Copies a module's dict of parameters, buffers or submodules."""
        new = self.begin(value, type(value)())
        for name, entry in value.items():
            new[name] = self.copy(entry, (path, ".", name))
        self.nodes.append(Content(path, new))
        return new

    def _object(self, value: Any, path: Path) -> Any:
        if is_sentinel(value):
            return value
        try:
            if hasattr(type(value), "__deepcopy__"):
                return self.deep_copy(value, path)
            recipe = pickle_recipe(value)
            new = value if recipe is None else self._rebuilt(value, recipe, path)
        except Exception:  # a class may raise anything to say that it cannot be copied
            return self.stand_in(value, path)
        if new is not value:
            self._note(value, new, path)
        return new

    def deep_copy(self, value: Any, path: Path) -> Any:
        """Copies a value by its class's own ``__deepcopy__``, with all that this copies."""
        known = len(self.memo.get(id(self.memo), ()))
        new = _without_finalizer(copy.deepcopy(value, self.memo))
        # Python's memo keeps the objects that were copied in a list, which it holds by its own id
        copied = self.memo.get(id(self.memo), [])[known:]
        for old in copied:
            own = self.memo.get(id(old), old)
            if own is not old and not isinstance(old, torch.UntypedStorage):
                self._note(old, own, path)
        if len(copied) < 2:  # it may have copied its content without the memo
            for name, entry in getattr(new, "__dict__", {}).items():
                self.nodes += object_nodes(entry, (path, ".", name))
        return new

    def _rebuilt(self, value: Any, recipe: list[Any], path: Path) -> Any:
        """Rebuilds an object from copies by :func:`pickle_recipe`."""
        make, args, state, entries, pairs, put = recipe
        self._temporary += [args, state]
        new = make(*(self.copy(part, path) for part in args))
        if new is value:  # the only object of its class
            return value
        self.begin(value, _without_finalizer(new))
        # by the methods of Python's own classes, since a subclass may refuse or count changes
        append: Any = list.append if isinstance(new, list) else _append
        ordered = isinstance(new, collections.OrderedDict)
        set_item: Any = collections.OrderedDict.__setitem__ if ordered else dict.__setitem__
        set_item = set_item if isinstance(new, dict) else operator.setitem
        for entry in entries or ():
            append(new, self.copy(entry, path))
        for key, entry in pairs or ():
            set_item(new, self.copy(key, path), self.copy(entry, (path, "[]", key)))
        if getattr(value, "__dict__", None) is value:  # its entries are its attributes
            vars(type(new))["__dict__"].__set__(new, new)
        elif put is not None:
            put(new, self.copy_attributes(state, path))
        elif state is not None:
            self._set_state(new, state, path)
        return new

    def _set_state(self, new: Any, state: Any, path: Path) -> None:
        if hasattr(type(new), "__setstate__"):
            new.__setstate__(self.copy_attributes(state, path))
            return
        attributes, slots = state if isinstance(state, tuple) else (state, None)
        if attributes:
            vars(new).update(self.copy_attributes(attributes, path))
        for name, entry in (slots or {}).items():
            object.__setattr__(new, name, self.copy(entry, (path, ".", name)))

    def copy_attributes(self, state: Any, path: Path) -> Any:
        """Copies an object's dictionary of attributes, or the state that it is restored from."""
        if type(state) is not dict:
            return self.copy(state, path)
        return {name: self.copy(entry, (path, ".", name)) for name, entry in state.items()}

    def _note(self, value: Any, new: Any, path: Path) -> None:
        """Notes the state of a copy that was made by other code."""
        if isinstance(new, Tensor):
            if is_strided(new):
                self.nodes.append(TensorValue(path, new, value))
            return
        if isinstance(new, np.ndarray):
            if not new.dtype.hasobject:
                self.nodes.append(Array(path, new, value))
            return
        if isinstance(new, nn.Module):
            self.prepare(new)
            self.nodes.append(Content(path, vars(new)["_buffers"]))
        self.nodes += object_nodes(new, path)

    @staticmethod
    @functools.cache
    def _method(kind: type) -> Callable[[Any, Any, Path], Any]:
        """Finds how objects of a class are copied."""
        exactly: dict[type, Callable[[Any, Any, Path], Any]] = {
            list: Copier._list,
            dict: Copier._dict,
            collections.OrderedDict: Copier._dict,
            collections.defaultdict: Copier._dict,
            set: Copier._set,
            frozenset: Copier._set,
            tuple: Copier._tuple,
            collections.deque: Copier._list,
            object: Copier._same,
            **PYTHON_COPIES,
        }
        if kind in exactly:
            return exactly[kind]
        if is_atomic(kind) or is_external(kind):
            return Copier._same
        if issubclass(kind, Tensor):
            return copy_tensor
        if issubclass(kind, np.ndarray):
            return copy_array
        if issubclass(kind, RANDOM):
            return copy_random
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return Copier._tuple
        if issubclass(kind, nn.Module) and is_plain_module(kind):
            return Copier._module
        return Copier._object


def _without_finalizer(new: Any) -> Any:
    if hasattr(type(new), "__del__"):
        new.__class__ = without_finalizer(type(new))
    return new


def _append(new: Any, entry: Any) -> None:
    new.append(entry)
