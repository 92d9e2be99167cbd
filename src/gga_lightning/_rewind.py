"""Puts back what running a module changes, apart from its parameters."""

import collections
import functools
import random
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# What nn.Module keeps for itself and no forward pass changes: parameters, children, hooks.
_OWN_ATTRIBUTES = vars(nn.Module()).keys() - {"_buffers"}
_ABSENT = object()

Access = tuple[Callable[[], Any], Callable[[Any], Any]]


class Rewind:
    """Remembers the state around a module, and puts it back.

    The state is the global random state (torch on the CPU and on the module's device, NumPy,
    Python), and for the module and all its children: buffers, plain attributes, and what lists,
    dicts, sets, deques and torch generators among them hold. That covers BatchNorm statistics,
    torchmetrics states, counters and lists of outputs. An object of another class that the module
    changes in place is not seen.
    """

    def __init__(
        self, module: nn.Module, device: torch.device, *, redraw_randomness: bool = False
    ) -> None:
        """Remembers the present state.

        Args:
            module: The module whose state to remember.
            device: Where it runs, for that device's random state.
            redraw_randomness: Whether the random state runs on from run to run instead of being
                the same in all runs of a kind.
        """
        self._randomness: list[Access] = _random_states(device)
        self._containers: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[Tensor, Tensor]] = []
        self._redraw = redraw_randomness
        self._changing: list[tuple[Any, Any]] = []
        self._draws: dict[Hashable, list[tuple[Callable[[Any], Any], Any]]] = {}
        self._seen: set[int] = set()
        self._parameters = {_storage(param) for param in module.parameters()}
        for child in module.modules():
            space = vars(child)
            entries = (space[key] for key in space.keys() - _OWN_ATTRIBUTES)
            self._remember_container(space, space.copy(), entries)
        self._start = [get() for get, _ in self._randomness]
        self._now: list[Any] = []

    def before(self, kind: Hashable) -> None:
        """Prepares a run of the module: the remembered state, and this kind's random state.

        Each kind of run (each domain) has random draws of its own, those of its first run, which
        does not depend on what ran in between. Close it with :meth:`after`.

        Args:
            kind: Names runs that shall be alike.
        """
        draws = self._draws.get(kind)
        self._restore_tensors()
        for live, saved in self._containers if draws is None else self._changing:
            if _differs(live, saved):
                _refill(live, saved)
        if draws is None:
            self._now = [get() for get, _ in self._randomness]
        else:
            for put, state in draws:
                put(state)

    def after(self, kind: Hashable) -> None:
        """Closes a run; takes note, after a kind's first, of what such runs change.

        Args:
            kind: As given to :meth:`before`.
        """
        if kind in self._draws:
            return
        known = {id(live) for live, _ in self._changing}
        self._changing += [
            pair for pair in self._containers if id(pair[0]) not in known and _differs(*pair)
        ]
        self._draws[kind] = [
            (put, state)
            for (get, put), state in zip(self._randomness, self._now, strict=True)
            if not self._redraw and not _same(get(), state)
        ]

    def restore(self) -> None:
        """Goes back to the remembered state, random state included."""
        for live, saved in self._containers:
            if _differs(live, saved):
                _refill(live, saved)
        self._restore_tensors()
        for (_, put), state in zip(self._randomness, self._start, strict=True):
            put(state)

    @torch.no_grad()
    def _restore_tensors(self) -> None:
        for live, saved in self._tensors:
            live.copy_(saved)

    def _remember(self, value: Any) -> None:
        if isinstance(value, Tensor):
            if id(value) not in self._seen and self._is_state(value):
                self._seen.add(id(value))
                self._tensors.append((value, value.clone()))
        elif isinstance(value, torch.Generator):
            self._randomness.append((value.get_state, value.set_state))
        elif isinstance(value, tuple):
            for entry in value:
                self._remember(entry)
        elif isinstance(value, dict):
            self._remember_container(value, value.copy(), value.values())
        elif isinstance(value, list | set | collections.deque):
            self._remember_container(value, value.copy(), value)

    def _remember_container(self, live: Any, saved: Any, entries: Iterable[Any]) -> None:
        if id(live) not in self._seen:
            self._seen.add(id(live))
            self._containers.append((live, saved))
            for entry in entries:
                self._remember(entry)

    def _is_state(self, tensor: Tensor) -> bool:
        """Whether a tensor is something to put back: not a parameter, nor an intermediate."""
        return (
            tensor.layout is torch.strided
            and not tensor.requires_grad
            and not tensor.is_inference()
            and _storage(tensor) not in self._parameters
            and not any(
                s == 0 and n > 1 for s, n in zip(tensor.stride(), tensor.shape, strict=True)
            )
        )


def _random_states(device: torch.device) -> list[Access]:
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


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    if isinstance(left, tuple) and any(isinstance(entry, tuple | np.ndarray) for entry in left):
        return all(_same(*pair) for pair in zip(left, right, strict=True))
    return left == right


def _differs(live: Any, saved: Any) -> bool:
    """Whether a container holds other objects than before (their insides are looked at apart)."""
    if len(live) != len(saved):
        return True
    if isinstance(live, dict):
        return any(live.get(key, _ABSENT) is not value for key, value in saved.items())
    if isinstance(live, set):
        return live != saved
    return any(new is not old for new, old in zip(live, saved, strict=True))


def _refill(live: Any, saved: Any) -> None:
    live.clear()
    if isinstance(live, dict | set):
        live.update(saved)
    else:
        live.extend(saved)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
