"""Copies an object with everything that can be reached from it, and notes its mutable state.

:func:`copy.deepcopy` comes close. It is not used because it leaves closures and compiled functions
bound to the original, fails on tensors with a graph, copies frozen weights of any size, takes
several times as long, and does not name the attribute that it fails on.
"""

import collections
import copy
import functools
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gga_lightning.probing.closures import unfilled
from gga_lightning.probing.kinds import (
    RANDOM,
    is_atomic,
    is_external,
    is_plain_module,
    pickle_recipe,
)
from gga_lightning.probing.memory import Memory
from gga_lightning.probing.randomness import Access, object_random_state
from gga_lightning.probing.state import (
    Array,
    Attributes,
    Cell,
    Content,
    Node,
    Path,
    TensorValue,
    object_nodes,
)

__all__ = ["Copier"]

_COMMON = {type(None), bool, int, float, str}  # the atomic kinds met most often
_LARGE = 2**20  # bytes
_MANY = 10_000  # entries


class Copier:
    """Copies objects, each of them once: what is one object in the original is one in the copy.

    Subclasses decide which large values are shared with the original, and what stands in for
    values that cannot be copied. External objects (:func:`is_external`) are always shared.

    Attributes:
        nodes: The mutable state of all copies.
        random_states: Access to the random generators among the copies.
    """

    def __init__(self, copied: Mapping[int, Any], shared: Sequence[Tensor]) -> None:
        """Sets what need not be copied.

        Args:
            copied: What to take as the copies of certain objects, by the objects' ids.
            shared: Tensors that stay shared, together with all others on the same memory.
        """
        self.nodes: list[Node] = []
        self.random_states: list[Access] = []
        self._memo: dict[int, Any] = dict(copied)
        self._temporary: list[Any] = []  # objects whose ids the memo holds
        self._memory = Memory(shared)
        self._memo.update((id(tensor), tensor) for tensor in shared)

    def lends(self, value: Any, path: Path) -> bool:
        """Whether a large tensor, array or container is shared with the original."""
        return False

    def stand_in(self, value: Any, path: Path) -> Any:
        """What takes the place of a value that cannot be copied."""
        return value

    def prepare(self, module: nn.Module) -> None:
        """Called with the copy of each module, when its attributes are complete."""

    def copy(self, value: Any, path: Path) -> Any:
        """Copies any object, which was found at a path."""
        kind = type(value)
        if kind in _COMMON:
            return value
        found = self._memo.get(id(value), self)
        if found is not self:
            return found
        new = self._method(kind)(self, value, path)
        if new is not value:
            self._memo[id(value)] = new
        return new

    def _begin(self, value: Any, new: Any) -> Any:
        """Makes a copy known before its insides, which may refer to it, are copied."""
        self._memo[id(value)] = new
        return new

    def _same(self, value: Any, path: Path) -> Any:
        return value

    def _list(self, value: Any, path: Path) -> Any:
        if len(value) > _MANY and self.lends(value, path):
            return value
        is_deque = isinstance(value, collections.deque)
        new = self._begin(value, collections.deque(maxlen=value.maxlen) if is_deque else [])
        new.extend([self.copy(entry, (path, "[]", place)) for place, entry in enumerate(value)])
        self.nodes.append(Content(path, new))
        return new

    def _dict(self, value: Any, path: Path) -> Any:
        if len(value) > _MANY and self.lends(value, path):
            return value
        new = self._memo[id(value)] = type(value)()
        if value:
            for key, entry in value.items():
                new[self.copy(key, path)] = self.copy(entry, (path, "[]", key))
        if isinstance(new, collections.defaultdict):
            new.default_factory = self.copy(value.default_factory, path)
        self.nodes.append(Content(path, new))
        return new

    def _set(self, value: Any, path: Path) -> Any:
        if len(value) > _MANY and self.lends(value, path):
            return value
        new = type(value)(self.copy(entry, path) for entry in value)
        if isinstance(new, set):
            self.nodes.append(Content(path, new))
        return new

    def _tuple(self, value: Any, path: Path) -> Any:
        entries = [self.copy(entry, (path, "[]", place)) for place, entry in enumerate(value)]
        if all(new is old for new, old in zip(entries, value, strict=True)):
            return value
        return tuple.__new__(type(value), entries)

    def _tensor(self, value: Tensor, path: Path) -> Tensor:
        usual = type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided
        if not usual or value.is_quantized or value.is_inference():
            return self._unusual_tensor(value, path)
        if value.nbytes > _LARGE and self.lends(value, path):
            new = value.detach()  # the same memory, and the same count of changes
        else:
            new = self._memory.copy(value)
        if isinstance(value, nn.Parameter):
            new = nn.Parameter(new, requires_grad=value.requires_grad)
        elif value.requires_grad and value.is_leaf:
            new.requires_grad_()
        for name, entry in vars(value).items():
            setattr(new, name, self.copy(entry, (path, ".", name)))
        if new.data_ptr() != value.data_ptr():
            self.nodes.append(TensorValue(path, new, value))
        return new

    def _unusual_tensor(self, value: Tensor, path: Path) -> Any:
        """Copies a tensor of a subclass or of another layout."""
        if value.numel() * value.element_size() > _LARGE and self.lends(value, path):
            return value
        try:
            if type(value) is not Tensor and value.is_leaf:
                return self._deep_copy(value, path)
            new = value.detach().clone()
        except Exception:  # a subclass may raise anything
            return self.stand_in(value, path)
        self._note(value, new, path)
        return new

    def _array(self, value: Any, path: Path) -> Any:
        if isinstance(value, np.memmap) or (value.nbytes > _LARGE and self.lends(value, path)):
            return value
        if value.dtype.hasobject:
            return self._deep_copy(value, path)
        new = np.array(value, copy=True, subok=True)
        self._note(value, new, path)
        return new

    def _random(self, value: Any, path: Path) -> Any:
        if isinstance(value, torch.Generator):
            new = torch.Generator(value.device)
            new.set_state(value.get_state())
        else:
            new = copy.deepcopy(value, self._memo)
        access = object_random_state(new)
        assert access is not None
        self.random_states.append(access)
        return new

    def _function(self, value: Any, path: Path) -> Any:
        compiled = vars(value).get("_torchdynamo_orig_callable")
        if compiled is not None:  # it may be bound to the original
            return self.copy(compiled, path)
        if not (value.__closure__ or value.__defaults__ or value.__kwdefaults__):
            return value
        new, cells = unfilled(value)
        self._begin(value, new)  # a function may refer to itself
        new.__defaults__ = self.copy(value.__defaults__, (path, ".", "__defaults__"))
        new.__kwdefaults__ = self.copy(value.__kwdefaults__, (path, ".", "__kwdefaults__"))
        vars(new).update(self._attributes(vars(value), path))
        for name, content, cell in cells:
            place = (path, ".", f"<locals>.{name}")
            cell.cell_contents = self.copy(content, place)
            self.nodes.append(Cell(place, cell))
        return new

    def _bound_method(self, value: Any, path: Path) -> Any:
        holder = value.__self__
        own = self.copy(holder, path)
        if own is holder:
            return value
        if isinstance(value, types.MethodType):
            return types.MethodType(self.copy(value.__func__, path), own)
        return getattr(own, value.__name__)

    def _reference(self, value: "weakref.ref[Any]", path: Path) -> Any:
        target = value()
        own = self.copy(target, path)
        return value if own is target else weakref.ref(own)

    def _module(self, value: Any, path: Path) -> Any:
        if "_orig_mod" in value._modules:  # compiled by torch.compile, and bound to the original
            return self.copy(value._orig_mod, path)
        kind: Any = type(value)
        new = self._begin(value, kind.__new__(kind))
        space, compiled = vars(new), vars(value).get("_compiler_ctx") or {}
        for name, entry in vars(value).items():
            if name in ("_parameters", "_buffers", "_modules"):
                space[name] = self._registered(entry, path)
            elif name == "_compiler_ctx":
                space[name] = None
            elif name != "_compiled_call_impl":
                plain = compiled.get(f"original_{name}", entry)
                space[name] = self.copy(plain, (path, ".", name))
        self.prepare(new)
        self.nodes.append(Attributes(path, space))
        return new

    def _registered(self, value: Any, path: Path) -> Any:
        """Copies a module's dict of parameters, buffers or submodules."""
        new = self._begin(value, type(value)())
        for name, entry in value.items():
            new[name] = self.copy(entry, (path, ".", name))
        self.nodes.append(Content(path, new))
        return new

    def _object(self, value: Any, path: Path) -> Any:
        try:
            if hasattr(type(value), "__deepcopy__"):
                return self._deep_copy(value, path)
            recipe = pickle_recipe(value)
            new = value if recipe is None else self._rebuilt(value, recipe, path)
        except Exception:  # a class may raise anything to say that it cannot be copied
            return self.stand_in(value, path)
        if new is not value:
            self._note(value, new, path)
        return new

    def _deep_copy(self, value: Any, path: Path) -> Any:
        """Copies a value by its class's own ``__deepcopy__``, with all that this copies."""
        known = len(self._memo.get(id(self._memo), ()))
        new = copy.deepcopy(value, self._memo)
        # Python's memo keeps the objects that were copied in a list, which it holds by its own id
        for old in self._memo.get(id(self._memo), [])[known:]:
            own = self._memo.get(id(old), old)
            if own is not old and not isinstance(old, torch.UntypedStorage):
                self._note(old, own, path)
        return new

    def _rebuilt(self, value: Any, recipe: list[Any], path: Path) -> Any:
        """Makes an object anew by :func:`pickle_recipe`, of copies."""
        make, args, state, entries, pairs, put = recipe
        self._temporary += [args, state]
        new = self._begin(value, make(*(self.copy(part, path) for part in args)))
        if put is not None:
            put(new, self._attributes(state, path))
        elif hasattr(new, "__setstate__") and state is not None:
            new.__setstate__(self._attributes(state, path))
        elif state is not None:
            in_slots = isinstance(state, tuple)
            attributes, slots = state if in_slots else (state, None)
            if attributes:
                vars(new).update(self._attributes(attributes, path))
            for name, entry in (slots or {}).items():
                object.__setattr__(new, name, self.copy(entry, (path, ".", name)))
        for entry in entries or ():
            new.append(self.copy(entry, path))
        for key, entry in pairs or ():
            new[self.copy(key, path)] = self.copy(entry, (path, "[]", key))
        return new

    def _attributes(self, state: Any, path: Path) -> Any:
        if type(state) is not dict:
            return self.copy(state, path)
        return {name: self.copy(entry, (path, ".", name)) for name, entry in state.items()}

    def _note(self, value: Any, new: Any, path: Path) -> None:
        """Notes the state of a copy that was made by other code."""
        if isinstance(new, Tensor):
            if new.layout is torch.strided and not new.is_quantized:
                self.nodes.append(TensorValue(path, new, value))
            return
        if isinstance(new, np.ndarray):
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
            types.FunctionType: Copier._function,
            types.MethodType: Copier._bound_method,
            types.BuiltinMethodType: Copier._bound_method,
            weakref.ref: Copier._reference,
        }
        if kind in exactly:
            return exactly[kind]
        if is_atomic(kind) or is_external(kind):
            return Copier._same
        if issubclass(kind, Tensor):
            return Copier._tensor
        if issubclass(kind, np.ndarray):
            return Copier._array
        if issubclass(kind, RANDOM):
            return Copier._random
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return Copier._tuple
        if issubclass(kind, nn.Module) and is_plain_module(kind):
            return Copier._module
        return Copier._object
