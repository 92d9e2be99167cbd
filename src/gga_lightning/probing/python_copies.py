"""How Python's weak references, locks, and views of dictionaries are copied."""

import gc
import threading
import types
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gga_lightning.probing.state import Attributes, Content, Path

if TYPE_CHECKING:
    from gga_lightning.probing.copier import Copier

__all__ = ["PYTHON_COPIES"]


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
    return copier.stand_in(value, path)  # who waits for the original would not serve a copy


def _thread_local(copier: "Copier", value: Any, path: Path) -> Any:
    new = copier.begin(value, threading.local())
    vars(new).update(copier.copy_attributes(vars(value), path))
    copier.nodes.append(Attributes(path, vars(new)))
    return new


_LOCK = type(threading.Lock())

PYTHON_COPIES: dict[type, Callable[[Any, Any, Path], Any]] = {
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
