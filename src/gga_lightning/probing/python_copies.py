"""Copies Python's functions, weak references, locks, and views of dictionaries."""

import functools
import gc
import operator
import threading
import types
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gga_lightning.probing.closures import unfilled
from gga_lightning.probing.state import Attributes, Cell, Content, Path

if TYPE_CHECKING:
    from gga_lightning.probing.copier import Copier

__all__ = ["PYTHON_COPIES"]


def _function(copier: "Copier", value: Any, path: Path) -> Any:
    compiled = vars(value).get("_torchdynamo_orig_callable")
    if compiled is not None:  # it may be bound to the original
        return copier.copy(compiled, path)
    if not value.__closure__ and _is_constant(copier, value, path):
        return value
    new, cells = unfilled(value, copier.memo)
    copier.begin(value, new)  # a function may refer to itself
    new.__defaults__ = copier.copy(value.__defaults__, (path, ".", "__defaults__"))
    new.__kwdefaults__ = copier.copy(value.__kwdefaults__, (path, ".", "__kwdefaults__"))
    vars(new).update(copier.copy_attributes(vars(value), path))
    for name, content, cell in cells:
        place = (path, ".", f"<locals>.{name}")
        cell.cell_contents = copier.copy(content, place)
        copier.nodes.append(Cell(place, cell))
    return new


def _partial(copier: "Copier", value: Any, path: Path) -> Any:
    func, args = copier.copy(value.func, path), copier.copy(value.args, path)
    keywords = {name: copier.copy(entry, path) for name, entry in value.keywords.items()}
    given = keywords.values(), value.keywords.values()
    same = func is value.func and args is value.args and not vars(value)
    if same and all(map(operator.is_, *given)):
        return value
    new = functools.partial(func, *args, **keywords)
    vars(new).update(copier.copy_attributes(vars(value), path))
    return new


def _is_constant(copier: "Copier", function: Any, path: Path) -> bool:
    """Whether a function refers to nothing that can change, so that it is its own copy."""
    defaults = *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()
    entries = *defaults, *vars(function).values()
    return all(copier.copy(entry, path) is entry for entry in entries)


def _bound_method(copier: "Copier", value: Any, path: Path) -> Any:
    holder = value.__self__
    own = copier.copy(holder, path)
    if own is holder:
        return value
    if isinstance(value, types.MethodType):
        return types.MethodType(copier.copy(value.__func__, path), own)
    return getattr(own, value.__name__)


def _reference(copier: "Copier", value: Any, path: Path) -> Any:
    is_proxy = isinstance(value, weakref.ProxyTypes)
    target = value.__repr__.__self__ if is_proxy else value()
    own = copier.copy(target, path)
    if own is target:
        return value
    return (weakref.proxy if is_proxy else type(value))(own)


def _weak_container(copier: "Copier", value: Any, path: Path) -> Any:
    new = copier.begin(value, type(value)())
    if isinstance(value, weakref.WeakSet):
        new.update([copier.copy(entry, path) for entry in value])
    else:
        for key, entry in value.items():
            new[copier.copy(key, path)] = copier.copy(entry, (path, "[]", key))
    copier.nodes.append(Content(path, new.data))
    return new


def _view_of_dict(copier: "Copier", value: Any, path: Path) -> Any:
    own = copier.copy(gc.get_referents(value)[0], path)
    name = type(value).__name__.removeprefix("dict_")
    return types.MappingProxyType(own) if name == "mappingproxy" else getattr(own, name)()


def _lock(copier: "Copier", value: Any, path: Path) -> Any:
    return threading.Lock() if isinstance(value, _LOCK) else threading.RLock()


def _waiting(copier: "Copier", value: Any, path: Path) -> Any:
    return copier.stand_in(value, path)  # threads that use the original would not wake a copy


def _thread_local(copier: "Copier", value: Any, path: Path) -> Any:
    new = copier.begin(value, threading.local())
    vars(new).update(copier.copy_attributes(vars(value), path))
    copier.nodes.append(Attributes(path, vars(new)))
    return new


_LOCK = type(threading.Lock())

PYTHON_COPIES: dict[type, Callable[[Any, Any, Path], Any]] = {
    types.FunctionType: _function,
    types.MethodType: _bound_method,
    types.BuiltinMethodType: _bound_method,
    functools.partial: _partial,
    types.MappingProxyType: _view_of_dict,
    **dict.fromkeys((type({}.keys()), type({}.values()), type({}.items())), _view_of_dict),
    **dict.fromkeys((weakref.ref, weakref.WeakMethod), _reference),
    **dict.fromkeys(weakref.ProxyTypes, _reference),
    weakref.WeakSet: _weak_container,
    weakref.WeakKeyDictionary: _weak_container,
    weakref.WeakValueDictionary: _weak_container,
    **dict.fromkeys((_LOCK, type(threading.RLock())), _lock),
    threading.local: _thread_local,
    threading.Condition: _waiting,
}
"""Class to the function that copies its objects."""
