"""Puts back what running a module changes, apart from its parameters."""

import collections
import contextlib
import functools
import random
from collections.abc import Callable, Generator, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# What nn.Module keeps for itself and no forward pass changes: parameters, children, hooks.
_OWN_ATTRIBUTES = vars(nn.Module()).keys() - {"_buffers"}
_ABSENT = object()


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
            redraw_randomness: Whether the random state runs on from evaluation to evaluation
                instead of being the same at the start of each.
        """
        self._randomness = [_Saved(*access) for access in _random_states(device)]
        self._generators: list[_Saved] = []
        self._containers: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[Tensor, Tensor]] = []
        self._redraw = redraw_randomness
        self._evaluated = False
        self._changing: list[tuple[Any, Any]] = []
        self._drawing: list[_Saved] = []
        self._seen: set[int] = set()
        self._parameters = {_storage(param) for param in module.parameters()}
        for child in module.modules():
            space = vars(child)
            entries = (space[key] for key in space.keys() - _OWN_ATTRIBUTES)
            self._remember_container(space, space.copy(), entries)

    @contextlib.contextmanager
    def evaluation(self) -> Generator[None, None, None]:
        """Runs its body from the remembered state, as far as the body is known to change it.

        What the first evaluation changes is put back before each further one; :meth:`restore`
        looks at everything again.
        """
        if self._evaluated:
            self._restore_tensors()
            for live, saved in self._changing:
                _refill(live, saved)
            for state in self._drawing:
                state.restore()
        yield
        if not self._evaluated:
            self._evaluated = True
            self._changing = [pair for pair in self._containers if _differs(*pair)]
            randomness = [] if self._redraw else self._randomness
            self._drawing = [state for state in self._generators + randomness if state.changed()]

    def restore(self) -> None:
        """Goes back to the remembered state."""
        for live, saved in self._containers:
            if _differs(live, saved):
                _refill(live, saved)
        self._restore_tensors()
        for state in self._generators + self._randomness:
            state.restore()

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
            self._generators.append(_Saved(value.get_state, value.set_state))
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


class _Saved:
    """A random state with the way to read and to set it."""

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], Any]) -> None:
        self._get = get
        self._put = put
        self._state = get()

    def changed(self) -> bool:
        return not _same(self._get(), self._state)

    def restore(self) -> None:
        self._put(self._state)


def _random_states(device: torch.device) -> list[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    states = [
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
    if isinstance(left, tuple):
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
