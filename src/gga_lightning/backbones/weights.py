"""Weights files: reads them, finds a network's tensors in them, and loads all or none of them."""

import argparse
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn

__all__ = [
    "FoundWeights",
    "LoadedWeights",
    "find_file",
    "find_weights",
    "load_weights",
    "mismatches",
]

_SHOWN = 3  # names of each kind in a message
# What torch.compile, FSDP and activation checkpointing insert into names.
_WRAPPERS = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")
_AVERAGED = re.compile(r"(^|[._/])ema([._/]|$)")
_COUNTERS = ".num_batches_tracked"  # BatchNorm's, which files from before PyTorch 0.4.1 lack


@dataclass(frozen=True)
class LoadedWeights:
    """A report of what was loaded from a weights file into a network.

    Attributes:
        file: The file.
        network: The network's name.
        prefix: The prefix of the network's own names in the file; containers end with ``/``.
        count: How many tensors were loaded. All of the network's were.
        unused: Names of tensors in the file that the network does not use.

    Example:
        >>> str(LoadedWeights("moco.pth", "resnet18", "state_dict/encoder_q.", 120, ("fc.bias",)))
        "resnet18: 120 of 120 tensors from moco.pth ('state_dict/encoder_q.'); not used: fc.bias"
    """

    file: str
    network: str
    prefix: str
    count: int
    unused: tuple[str, ...]

    def __str__(self) -> str:
        where = f" ({self.prefix!r})" if self.prefix else ""
        container = self.prefix[: self.prefix.rfind("/") + 1]
        near = [n.removeprefix(container) for n in self.unused]
        near = [n for n in near if "/" not in n]  # those of optimizers and the like are counted
        rest = f"; not used: {_listed(near, len(self.unused))}" if self.unused else ""
        return f"{self.network}: {self.count} of {self.count} tensors from {self.file}{where}{rest}"


@dataclass(frozen=True)
class FoundWeights:
    """The part of a weights file that fits a network best.

    Attributes:
        file: The file.
        prefix: What was removed from the names.
        tensors: The tensors under this prefix, by their names without it.
        others: Names of all other tensors in the file.
    """

    file: Path
    prefix: str
    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()


def find_file(weights: object, names: Sequence[str]) -> Path:
    """Finds the weights file that a user means.

    Args:
        weights: What the user gave. A path may begin with ``~``.
        names: What else could have been given, at least one, for the message.

    Returns:
        The file, which exists.

    Raises:
        ValueError: If there is no such file.
    """
    text = os.fspath(weights) if isinstance(weights, str | os.PathLike) else ""
    path = Path(text).expanduser()
    if text and path.is_dir():
        raise ValueError(f"`weights` must be a file, but {text!r} is a folder. Give a file in it.")
    if text and path.exists():
        return path
    if "://" in text:
        raise ValueError(f"`weights` must be a file, got {text!r}. Download it and give its path.")
    if any(mark in text for mark in ("/", os.sep, "~")) or path.suffix.islower():
        raise ValueError(
            f"`weights`: there is no file {os.path.abspath(path)!r}. Check the path's spelling."
        )
    known = f"one of {[*names]}" if len(names) > 1 else repr(names[0])
    raise ValueError(f"`weights` must be {known}, an existing file or None, got {weights!r}.")


def find_weights(file: Path, network: nn.Module) -> FoundWeights:
    """Reads a file and finds the tensors in it that are named as a network's.

    Dictionaries in the file are searched at any depth (``state_dict``, ``model``, ...), and
    any prefix of the network's own names is removed (``module.``, ``featurizer.network.``,
    ...). Of several parts that fit equally well, one with an exponential moving average (``ema`` in
    its name) is taken, otherwise the first.

    Args:
        file: A file saved by ``torch.save`` or in the format safetensors.
        network: The network.

    Returns:
        What was found, which need not be everything.

    Raises:
        ImportError: If the file needs the package safetensors, which is not installed.
        ValueError: If the file cannot be read or holds no tensors.
    """
    tensors = {_WRAPPERS.sub("", name): tensor for name, tensor in _flat(_read(file))}
    if not tensors:
        raise ValueError(f"`weights`: the file {str(file)!r} holds no tensors.")
    prefix = _prefix(network.state_dict(), tensors)
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return FoundWeights(file, prefix, own, tuple(n for n in tensors if not n.startswith(prefix)))


def mismatches(network: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Compares tensors with those that a network needs.

    Args:
        network: The network.
        tensors: Tensors by the network's names; others are ignored.

    Returns:
        The names of those that are missing, BatchNorm's counters aside, and of those that have
        another shape.
    """
    state = network.state_dict()
    missing = [n for n in state if n not in tensors and not n.endswith(_COUNTERS)]
    misshapen = [n for n in state if n in tensors and tensors[n].shape != state[n].shape]
    return missing, misshapen


def load_weights(network: nn.Module, name: str, found: FoundWeights) -> LoadedWeights:
    """Loads all of a network's tensors, and tells the user how many there were.

    Args:
        network: The network.
        name: Its name.
        found: The tensors for it. BatchNorm's counters may be missing, and there may be more than
            the network needs, unless they are those of a deeper network.

    Returns:
        What was loaded.

    Raises:
        ValueError: If a tensor is missing or has another shape, or the file is of a deeper
            network. This one is then unchanged.
    """
    missing, misshapen = mismatches(network, found.tensors)
    if missing or misshapen or any(_is_deeper(network, key) for key in found.tensors):
        raise ValueError(_refusal(network, name, found, missing, misshapen))
    state = network.state_dict()
    taken = {key: tensor for key, tensor in found.tensors.items() if key in state}
    state.update(taken)
    network.load_state_dict(state)
    unused = *(key for key in found.tensors if key not in state), *found.others
    loaded = LoadedWeights(str(found.file), name, found.prefix, len(taken), unused)
    rank_zero_info(str(loaded))
    return loaded


def _is_deeper(network: nn.Module, name: str) -> bool:
    """Whether a tensor is in a numbered layer that the network would have if it were deeper."""
    module, *parts = network, *name.split(".")
    for part in parts:
        layers = isinstance(module, nn.Sequential | nn.ModuleList) and [*module]
        if layers and part.isdecimal() and int(part) >= len(layers):
            has_tensors = bool(module.state_dict())
            return has_tensors and not isinstance(layers[-1], nn.Identity)  # else in the head
        module = getattr(module, part, nn.Identity())
    return False


def _refusal(
    network: nn.Module, name: str, found: FoundWeights, missing: list[str], misshapen: list[str]
) -> str:
    """What differs between a file and a network, and what to do."""
    state = network.state_dict()
    extra = [key for key in found.tensors if key not in state]
    shapes = [f"{n} {list(found.tensors[n].shape)} for {list(state[n].shape)}" for n in misshapen]
    parts = {"missing": missing, "of another shape": shapes, "only in the file": extra}
    told = "; ".join(f"{what}: {_listed(names)}" for what, names in parts.items() if names)
    needed = len(missing) + sum(key in found.tensors for key in state)
    where = f" under {found.prefix!r}" if found.prefix else ""
    return (
        f"`weights`: the file {str(found.file)!r} does not fit {name}: "
        f"{needed - len(missing) - len(misshapen)} of {needed} tensors match{where}; {told}. "
        f"Give a file with the weights of {name}, or the `name` of the network in the file."
    )


def _listed(names: Sequence[str], count: int = 0) -> str:
    """The first names, and how many there are beyond them: of ``names``, or up to ``count``."""
    shown, more = ", ".join(names[:_SHOWN]), max(len(names), count) - len(names[:_SHOWN])
    if not shown:
        return f"{more} tensors"
    return f"{shown} and {more} more" if more else shown


def _prefix(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Finds the prefix of the network's names in the largest part of a file that fits."""
    fitting, named = Counter[str](), Counter[str]()
    for name, tensor in tensors.items():
        for start in (0, *(mark.end() for mark in re.finditer("[./]", name))):
            if (key := name[start:]) in state:
                named[name[:start]] += 1
                fitting[name[:start]] += state[key].shape == tensor.shape
    if named:
        return max(named, key=lambda p: (fitting[p], named[p], bool(_AVERAGED.search(p))))
    containers = Counter(name[: name.rfind("/") + 1] for name in tensors)
    return containers.most_common(1)[0][0]  # in a layout that may be converted


def _flat(content: object, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested containers, named ``container/name``."""
    if isinstance(content, Mapping | list | tuple):
        pairs = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in cast(Iterable[tuple[object, object]], pairs):
            if isinstance(value, Tensor):
                yield f"{path}{key}", value
            else:
                yield from _flat(value, f"{path}{key}/")


def _read(file: Path) -> object:
    """What a weights file holds, read without running code from it."""
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    try:
        # trainings save their arguments too; these two kinds only hold values
        with torch.serialization.safe_globals([argparse.Namespace, type(Path())]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds for damaged files
        raise ValueError(_unreadable(file, error)) from error


def _unreadable(file: Path, error: Exception) -> str:
    """Why a file was refused, and what to do."""
    if found := re.search(r"GLOBAL (\S+)|(TorchScript)", str(error)):
        what = "a TorchScript program" if found[2] else f"pickled objects such as {found[1]}"
        return (
            f"`weights`: the file {str(file)!r} holds {what} besides tensors, and reading them can "
            "run code from the file. If you trust it, read it in Python, and save its state dict "
            "alone with torch.save."
        )
    return (
        f"`weights`: the file {str(file)!r} ({file.stat().st_size:,} bytes) is damaged or no "
        "weights file. Fetch it again, or give a file that was saved by torch.save or safetensors."
    )


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        import safetensors.torch as library
    except ImportError as error:
        raise ImportError(
            f"Reading {str(file)!r} needs the package safetensors: pip install safetensors."
        ) from error
    try:
        return library.load_file(file)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(_unreadable(file, error)) from error
