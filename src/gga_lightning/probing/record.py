"""Records everything that can be reached from some objects, and names what has changed."""

import collections
import functools
import inspect
import pathlib
import sys
import types
import weakref
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gga_lightning.probing.closures import captured
from gga_lightning.probing.kinds import CONTAINERS, RANDOM, is_atomic, is_external, slot_names
from gga_lightning.probing.memory import LARGE
from gga_lightning.probing.randomness import object_random_state
from gga_lightning.probing.state import (
    Attributes,
    Cell,
    Content,
    Node,
    Opaque,
    Path,
    Slots,
    object_nodes,
    text,
)
from gga_lightning.probing.values import is_strided, sparse_parts

__all__ = ["Record", "digest"]

_CHUNK = 2**20  # numbers that are digested at once
_MANY = 10_000  # entries above which only some of a container's are looked into
_SOME = 100
_NOT_USERS = {*sys.stdlib_module_names, "gga_lightning"} - {"__main__"}


class Record:
    """A record of some objects and of everything that can be reached from them.

    Beside attributes and contents that includes what code refers to: the variables of closures,
    and the class attributes and global variables of the user's own modules. External objects
    (:func:`~gga_lightning.probing.kinds.is_external`) are left out.
    """

    def __init__(self, roots: Mapping[str, Any]) -> None:
        """Records the present state.

        Args:
            roots: Objects by the names to use for them.
        """
        self._nodes: list[Node] = []
        self._seen: set[int] = set()
        self._kept: list[Any] = []  # whose ids are in `_seen`
        for name, root in roots.items():
            to_visit = collections.deque[tuple[Path, Any]]([((None, "", name), root)])
            while to_visit:
                path, value = to_visit.popleft()
                if id(value) not in self._seen and not is_atomic(type(value)):
                    self._seen.add(id(value))
                    self._kept.append(value)
                    to_visit += self._visit(path, value)

    def changes(self) -> list[str]:
        """Names what has changed. Values that objects have cached since the record are dropped.

        Returns:
            The names, such as ``"self.meter.count"``.
        """
        found: list[str] = []
        for node in self._nodes:
            if isinstance(node, Attributes) and node.changed():
                node.drop_caches()
            if node.changed():
                found += _details(node)
        return list(dict.fromkeys(found))

    def _visit(self, path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
        """Records a value, and yields the objects that it refers to."""
        if isinstance(value, Tensor):
            self._nodes.append(_Fingerprint(path, value))
            self._nodes.append(Attributes(path, vars(value)))
            yield from _attributes(path, vars(value))
            if value.is_leaf:
                self._nodes.append(Slots((path, ".", "grad"), value, ["grad"]))
                yield (path, ".", "grad"), value.grad
        elif isinstance(value, (np.ndarray, *RANDOM)):
            self._nodes.append(_Fingerprint(path, value))
        elif isinstance(value, weakref.ref):
            yield path, value()
        elif isinstance(value, types.FunctionType):
            yield from self._visit_function(path, value)
        elif isinstance(value, types.MethodType | types.BuiltinMethodType):
            yield path, value.__self__
            yield path, getattr(value, "__func__", None)
        elif isinstance(value, types.GeneratorType):
            self._nodes.append(_Fingerprint(path, value))
            for name, entry in inspect.getgeneratorlocals(value).items():
                yield (path, ".", f"<locals>.{name}"), entry
        elif isinstance(value, torch.jit.ScriptModule):
            for name, entry in [*value.named_parameters(), *value.named_buffers()]:
                yield (path, ".", name), entry
        elif isinstance(value, Dataset):  # its samples are left out
            self._nodes.append(Attributes(path, vars(value)))
            yield from (pair for pair in _attributes(path, vars(value)) if _is_small(pair[1]))
        elif not is_external(type(value)):
            yield from self._visit_object(path, value)

    def _visit_object(self, path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
        nodes = object_nodes(value, path)
        self._nodes += nodes
        for node in nodes:
            if isinstance(node, Attributes):
                yield from _attributes(path, node.live)
            elif isinstance(node, Opaque):
                self._nodes.append(_Fingerprint(path, value))
        for name in slot_names(type(value)):
            yield (path, ".", name), getattr(value, name, None)
        if isinstance(value, (*CONTAINERS, tuple, frozenset)):
            yield from _entries(path, value)
        for kind in type(value).__mro__:
            if _is_users(kind.__module__):
                yield from self._visit_class(kind)

    def _visit_class(self, kind: type) -> Iterator[tuple[Path, Any]]:
        """Looks into the attributes of a class of the user's, and what its methods refer to."""
        if id(kind) in self._seen:
            return
        self._seen.add(id(kind))
        for name, value in vars(kind).items():
            if name.startswith("__") and not callable(value):
                continue
            path = (None, "", f"{kind.__name__}.{name}")
            if isinstance(value, property):
                yield path, value.fget
            elif isinstance(value, classmethod | staticmethod):
                yield path, value.__func__
            elif not isinstance(value, type):
                self._nodes.append(_Entry(path, vars(kind), name))
                yield path, value

    def _visit_function(self, path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
        """Looks into what a function captured, and the global variables that it uses."""
        yield path, value.__defaults__
        yield path, value.__kwdefaults__
        self._nodes.append(Attributes(path, vars(value)))
        yield from _attributes(path, vars(value))
        for name, cell in captured(value):
            place = (path, ".", f"<locals>.{name}")
            self._nodes.append(Cell(place, cell))
            yield place, cell.cell_contents
        if not _is_users(value.__module__):
            return
        names = dict.fromkeys(_names(value.__code__))
        for name in names:
            if name in value.__globals__:
                yield from self._visit_global(value.__module__, value.__globals__, name, names)

    def _visit_global(
        self, module: str, space: Mapping[str, Any], name: str, used: Collection[str]
    ) -> Iterator[tuple[Path, Any]]:
        """Looks into a global variable, and what code of the user's own is found there."""
        found, place = space[name], (None, "", f"{module}.{name}")
        if isinstance(found, type):
            if _is_users(found.__module__):
                yield from self._visit_class(found)
        elif isinstance(found, types.ModuleType):
            if _is_users(found.__name__):
                for inner in used:
                    if inner in vars(found):
                        yield from self._visit_global(found.__name__, vars(found), inner, ())
        elif isinstance(found, types.FunctionType):
            if _is_users(found.__module__):
                yield place, found
        elif not isinstance(found, types.BuiltinFunctionType):
            self._nodes.append(_Entry(place, space, name))
            yield place, found


class _Entry(Node):
    """A class attribute or a global variable."""

    __slots__ = ("_key", "_saved")

    def __init__(self, path: Path, space: Mapping[str, Any], key: str) -> None:
        super().__init__(path, space)
        self._key, self._saved = key, space.get(key)

    def changed(self) -> bool:
        return self.live.get(self._key) is not self._saved


class _Fingerprint(Node):
    """A value whose state can be read, or a part of it."""

    __slots__ = ("_saved",)

    def __init__(self, path: Path, live: Any) -> None:
        super().__init__(path, live)
        self._saved = _fingerprint(live)

    def changed(self) -> bool:
        return _fingerprint(self.live) != self._saved


def _fingerprint(value: Any) -> Any:
    if isinstance(value, Tensor):
        counted = isinstance(value, nn.Parameter) and value.requires_grad
        version = value._version if counted else None  # a change to equal numbers counts too
        return digest(value), version, value.requires_grad, len(value._backward_hooks or ())
    if isinstance(value, np.ndarray):
        if isinstance(value, np.memmap) or value.dtype.hasobject:
            return None
        return value.shape, value.dtype, hash(value.tobytes())
    access = object_random_state(value)
    if access is not None:
        state = access[0]()
        return state.tolist() if isinstance(state, Tensor) else repr(state)
    if isinstance(value, types.GeneratorType):
        return value.gi_frame and value.gi_frame.f_lasti
    for probe in ("tell", "qsize", "__length_hint__"):  # files, queues, iterators
        try:
            return getattr(value, probe)()
        except Exception:  # it has no such method, or it is closed
            continue
    return None


def digest(tensor: Tensor) -> Any:
    """Computes a number that almost certainly differs if a bit of a tensor differs.

    Args:
        tensor: Any tensor.

    Returns:
        Its shape, type and number; for tensors without numbers in memory their text.
    """
    data = tensor.detach()
    if not is_strided(data):
        return [digest(part) for part in sparse_parts(data)] or repr(data)
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32}.get(data.element_size(), torch.int64)
    data = data.resolve_conj().resolve_neg().contiguous().reshape(-1).view(kind)
    total = 0
    for chunk in data.split(_CHUNK):
        number = (chunk.long() * _weights(chunk.device)[: len(chunk)]).sum().item()
        total = (total * 1_000_003 + int(number)) % 2**64
    return tuple(tensor.shape), tensor.dtype, total


@functools.cache
def _weights(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-(2**62), 2**62, (_CHUNK,), generator=generator).to(device)


def _entries(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """The entries of a container; of a very long one some."""
    pairs = list(value.items() if isinstance(value, Mapping) else enumerate(value))
    if len(pairs) > _MANY:
        pairs = pairs[:_SOME] + pairs[-_SOME:]
    for key, entry in pairs:
        yield (path, "[]", key), entry
        yield path, key


def _attributes(path: Path, space: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    """An object's attributes; the parameters, buffers and submodules of a module by their names."""
    for name, entry in space.items():
        if name in ("_parameters", "_buffers", "_modules") and isinstance(entry, dict):
            for inner, child in entry.items():
                yield (path, ".", inner), child
            yield (path, ".", name), entry
        else:
            yield (path, ".", name), entry


def _is_small(value: Any) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return value.nbytes <= LARGE
    return not isinstance(value, (*CONTAINERS, tuple)) or len(value) <= _SOME


def _details(node: Node) -> list[str]:
    """The names of the attributes or entries that differ."""
    if not (isinstance(node, Content) and isinstance(node.live, dict)):
        return [text(node.path)]
    how = "." if isinstance(node, Attributes) else "[]"
    old, new = dict(node.saved), node.live
    keys = [key for key in {**old, **new} if key not in old or new.get(key, node) is not old[key]]
    return [text((node.path, how, key)) for key in keys] or [text(node.path)]


def _names(code: types.CodeType) -> Iterator[str]:
    """The global names that a function and the functions inside it use."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


@functools.cache
def _is_users(module: str | None) -> bool:
    """Whether a module is the user's own, rather than Python's or an installed package's."""
    if module is None or module.partition(".")[0] in _NOT_USERS:
        return False
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return not {"site-packages", "dist-packages"} & set(pathlib.Path(file).parts)
