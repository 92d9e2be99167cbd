"""Reads and sets the states of random generators."""

import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Access", "global_random_states", "object_random_state", "same_random_state"]

Access = tuple[Callable[[], Any], Callable[[Any], Any]]
"""A function that reads a random state, and one that sets it."""


def object_random_state(value: Any) -> Access | None:
    """Gives access to the state of a random generator.

    Args:
        value: Any object.

    Returns:
        How to read and set the state; None where the object is not a random generator.
    """
    if isinstance(value, torch.Generator):
        return value.get_state, value.set_state
    if isinstance(value, random.Random):
        return value.getstate, value.setstate
    if isinstance(value, np.random.RandomState):
        return value.get_state, value.set_state
    if isinstance(value, np.random.Generator):
        value = value.bit_generator
    if isinstance(value, np.random.BitGenerator):
        bits = value
        return lambda: bits.state, lambda state: setattr(bits, "state", state)
    return None


def global_random_states(device: torch.device) -> list[Access]:
    """Gives access to the states of the global random generators.

    Args:
        device: The device whose generator counts, beside those of torch on the CPU, NumPy and
            Python.

    Returns:
        For each of them, how to read and set its state.
    """
    states: list[Access] = [
        (torch.get_rng_state, torch.set_rng_state),
        (np.random.get_state, np.random.set_state),
        (random.getstate, random.setstate),
    ]
    if device.type not in ("cpu", "meta"):
        backend = torch.get_device_module(device)
        get = functools.partial(backend.get_rng_state, device)
        states.append((get, functools.partial(backend.set_rng_state, device=device)))
    return states


def same_random_state(left: Any, right: Any) -> bool:
    """Compares two random states of one generator.

    Args:
        left: A state, as :data:`Access` reads it.
        right: Another.

    Returns:
        Whether they are equal.
    """
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    if isinstance(left, dict):
        return all(same_random_state(left[key], right[key]) for key in left)
    if isinstance(left, tuple) and any(isinstance(entry, tuple | np.ndarray) for entry in left):
        return all(same_random_state(*pair) for pair in zip(left, right, strict=True))
    return left == right
