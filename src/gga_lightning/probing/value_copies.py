"""Copies tensors, arrays and random generators."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gga_lightning.probing.memory import LARGE
from gga_lightning.probing.randomness import object_random_state
from gga_lightning.probing.state import Attributes, Path, Slots
from gga_lightning.probing.values import Array, ObjectArray, SparseValue, TensorValue, is_strided

if TYPE_CHECKING:
    from gga_lightning.probing.copier import Copier

__all__ = ["copy_array", "copy_random", "copy_tensor"]


def copy_tensor(copier: "Copier", value: Tensor, path: Path) -> Any:
    """Copies a tensor of any kind.

    Args:
        copier: The copier, which shares it if it is large and known to be constant.
        value: The tensor.
        path: Where it is.

    Returns:
        The copy.
    """
    kind = type(value)
    if not is_strided(value) or value.is_inference() or hasattr(kind, "__tensor_flatten__"):
        return _unusual_tensor(copier, value, path)
    plain = value if kind is Tensor else value.detach().as_subclass(Tensor)
    if value.nbytes > LARGE and copier.lends(value, path):
        new = plain.detach()  # the same memory, and the same count of changes
    else:
        new = copier.memory.copy(plain)
    if kind is nn.Parameter:
        new = nn.Parameter(new, requires_grad=value.requires_grad)
    elif kind is not Tensor:
        new = new.as_subclass(kind)
    for name, entry in vars(value).items():
        setattr(new, name, copier.copy(entry, (path, ".", name)))
    if value.requires_grad and value.is_leaf:
        new.requires_grad_()
        new.grad = copier.copy(value.grad, (path, ".", "grad"))
        copier.nodes.append(Slots(path, new, ["grad"]))
    if new.data_ptr() != plain.data_ptr() or not new.numel():
        copier.nodes.append(TensorValue(path, new, plain))
    return new


def _unusual_tensor(copier: "Copier", value: Tensor, path: Path) -> Any:
    """Copies a tensor of another layout, or of a class that wraps other tensors."""
    if value.numel() * value.element_size() > LARGE and copier.lends(value, path):
        return value
    try:
        deep = type(value) is not Tensor and value.is_leaf
        new = copy.deepcopy(value, copier.memo) if deep else value.detach().clone()
    except Exception:  # a class may raise anything
        return copier.stand_in(value, path)
    strided = is_strided(value) and type(value) is Tensor
    copier.nodes.append((TensorValue if strided else SparseValue)(path, new, value))
    return new


def copy_array(copier: "Copier", value: Any, path: Path) -> Any:
    """Copies a NumPy array. An array that is shared, or in a file, is shared without write access.

    Args:
        copier: The copier, which shares it if it is large and known to be constant.
        value: The array.
        path: Where it is.

    Returns:
        The copy.
    """
    if value.dtype.hasobject:
        return _object_array(copier, value, path)
    in_file = isinstance(value, np.memmap)
    if in_file or (value.nbytes > LARGE and copier.lends(value, path)):
        new = value.view()
        new.flags.writeable = False
        copier.read_only.append(path)
    else:
        new = copier.memory.copy_array(value)
        copier.nodes.append(Array(path, new, value))
    if type(value) is not np.ndarray and not in_file:
        vars(new).update(copier.copy_attributes(vars(value), path))
        copier.nodes.append(Attributes(path, vars(new)))
    return new


def _object_array(copier: "Copier", value: Any, path: Path) -> Any:
    if value.dtype != object:  # has fields, some of which are objects
        return copier.deep_copy(value, path)
    new = copier.begin(value, np.empty_like(value))
    for place in np.ndindex(value.shape):
        new[place] = copier.copy(value[place], (path, "[]", place))
    copier.nodes.append(ObjectArray(path, new))
    return new


def copy_random(copier: "Copier", value: Any, path: Path) -> Any:
    """Copies a random generator of torch, NumPy or Python.

    Args:
        copier: The copier.
        value: The generator.
        path: Where it is.

    Returns:
        The copy.
    """
    if isinstance(value, torch.Generator):
        new = torch.Generator(value.device)
        new.set_state(value.get_state())
    else:
        new = copy.deepcopy(value, copier.memo)
    access = object_random_state(new)
    assert access is not None
    copier.random_states.append(access)
    return new
