"""Classifies objects: those that cannot change, belong to the training, or hide their state."""

import collections
import copyreg
import enum
import functools
import logging
import pathlib
import random
import re
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed
import torch.fx
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = [
    "CONTAINERS",
    "RANDOM",
    "has_hidden_state",
    "is_atomic",
    "is_external",
    "is_plain_module",
    "is_sentinel",
    "pickle_recipe",
    "slot_names",
    "without_finalizer",
]

CONTAINERS = (list, dict, set, collections.deque)
RANDOM = (
    *(torch.Generator, random.Random),
    *(np.random.RandomState, np.random.Generator, np.random.BitGenerator),
)
_ATOMIC = (
    *(type(None), bool, int, float, complex, str, bytes, type, range, slice, property),
    *(type(Ellipsis), type(NotImplemented), types.ModuleType, types.CodeType),
    *(types.GetSetDescriptorType, types.MethodDescriptorType, types.WrapperDescriptorType),
    *(types.MethodWrapperType, torch.dtype, torch.device, torch.Size, torch.layout),
    *(torch.memory_format, re.Pattern, enum.Enum, np.generic, np.dtype, pathlib.PurePath),
)
_EXTERNAL = (
    *(DataLoader, Dataset, Sampler, torch.jit.ScriptModule, torch.jit.ScriptFunction),
    *(logging.Filterer, logging.LoggerAdapter, logging.Manager, torch.fx.Graph),
)
_LIGHTNING = ("lightning", "pytorch_lightning")
_PARTS = {"Trainer", "Strategy", "Accelerator", "Precision", "Logger"}  # with subclasses
_PLAIN = {
    *(object, tuple, frozenset, BaseException, Exception, *CONTAINERS),
    *(collections.OrderedDict, collections.defaultdict, types.SimpleNamespace, functools.partial),
}
_PLAIN_COPIES = ("torch.nn.utils.parametrize", "torch.fx.graph_module")
_WRITTEN_IN_C = 1 << 8  # CPython's Py_TPFLAGS_IMMUTABLETYPE


@functools.cache
def is_atomic(kind: type) -> bool:
    """Determines whether the objects of a class cannot change.

    Args:
        kind: The class.

    Returns:
        Whether this is known for the class.
    """
    return issubclass(kind, _ATOMIC)


@functools.cache
def is_external(kind: type) -> bool:
    """Determines whether the objects of a class belong to the training around a module.

    Args:
        kind: The class.

    Returns:
        Whether it is Lightning's own (a trainer, strategy, logger and so on), a process group, a
        data set or data loader of PyTorch's, compiled by TorchScript, a graph of
        :mod:`torch.fx`, or a part of Python's :mod:`logging`.
    """
    groups = (torch.distributed.ProcessGroup,) if torch.distributed.is_available() else ()
    if issubclass(kind, (*_EXTERNAL, *groups)):
        return True
    if issubclass(kind, (nn.Module, Mapping)):
        return False
    return _is_lightnings(kind) or any(
        _is_lightnings(base) and base.__name__ in _PARTS for base in kind.__mro__
    )


def _is_lightnings(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in _LIGHTNING


@functools.cache
def is_plain_module(kind: type) -> bool:
    """Determines whether a module of a class consists of nothing but its attributes.

    Args:
        kind: A subclass of :class:`torch.nn.Module`.

    Returns:
        Whether copying ``vars(module)`` copies it, because the class does not define how it is
        copied or pickled.
    """
    deep = getattr(kind, "__deepcopy__", None)
    if deep is not None and deep.__module__ not in _PLAIN_COPIES:
        return False
    for name in ("__setstate__", "__reduce__", "__reduce_ex__"):
        written_in = getattr(getattr(kind, name, None), "__module__", None) or "builtins"
        if written_in.partition(".")[0] not in ("torch", "builtins", *_LIGHTNING):
            return False
    return True


def is_sentinel(value: Any) -> bool:
    """Determines whether an object is compared by its identity, such as a mark for "not given".

    Args:
        value: Any object.

    Returns:
        Whether it has no state and is a global variable of the module that defines its class.
    """
    kind = type(value)
    if getattr(value, "__dict__", None) or isinstance(value, (*CONTAINERS, tuple, frozenset)):
        return False
    if slot_names(kind) or has_hidden_state(kind):
        return False
    space = vars(sys.modules.get(kind.__module__, object))
    return any(found is value for found in space.values())


@functools.cache
def has_hidden_state(kind: type) -> bool:
    """Determines whether objects of a class may have state outside their Python attributes.

    Args:
        kind: The class.

    Returns:
        Whether a part of it is written in C.
    """
    return any(base.__flags__ & _WRITTEN_IN_C for base in kind.__mro__ if base not in _PLAIN)


def pickle_recipe(value: Any) -> list[Any] | None:
    """Asks an object how to rebuild it, as :mod:`pickle` does.

    Args:
        value: The object.

    Returns:
        The six parts of what :meth:`object.__reduce_ex__` returns, None for those that are not
        there; or None for an object that is not to be copied.
    """
    reduce = copyreg.dispatch_table.get(type(value))
    found: Any = reduce(value) if reduce else value.__reduce_ex__(4)
    return None if isinstance(found, str) else [*found, *[None] * (6 - len(found))]


@functools.cache
def slot_names(kind: type) -> Sequence[str]:
    """Lists the slots of a class and its bases.

    Args:
        kind: The class.

    Returns:
        The names of the attributes, without ``__dict__`` and ``__weakref__``.
    """
    found: list[str] = []
    for base in kind.__mro__:
        own = vars(base).get("__slots__", ())
        for name in [own] if isinstance(own, str) else own:
            if name.startswith("__") and not name.endswith("__"):
                found.append(f"_{base.__name__.lstrip('_')}{name}")
            elif name not in ("__dict__", "__weakref__"):
                found.append(name)
    return found


@functools.cache
def without_finalizer(kind: type) -> type:
    """Returns a class whose objects do nothing when they are freed.

    Args:
        kind: A class, which may define ``__del__``, to remove a file for example.

    Returns:
        The class itself if it defines no ``__del__``, else a subclass of the same name.
    """
    if not hasattr(kind, "__del__"):
        return kind
    space = {"__slots__": (), "__del__": lambda self: None, "__module__": kind.__module__}
    return type(kind)(kind.__name__, (kind,), space | {"__qualname__": kind.__qualname__})
