"""Small modules as their users write them, none of which knows of us.

Each is trained by tests/probing/test_zoo.py with every callback, in a form that changes nothing.
The run must be bit for bit the run without the callback, or be refused by a message that names
the culprit.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import CombinedLoader
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

__all__ = ["CASES", "Case", "Rows", "Small", "case", "labelled", "native", "opened", "pooled"]

CASES: dict[str, "Case"] = {}
FILES: list[Any] = []


@dataclasses.dataclass(frozen=True)
class Case:
    """A module and how its users train it.

    Attributes:
        make: Makes the module.
        what: What it shows, for the table in the documentation.
        loader: Makes its loader.
        refused: What the message says, where it cannot be evaluated without a trace.
        callback: Settings that its users give to the callbacks.
        trainer: Settings that they give to the trainer.
        fits: How the module is handed to the trainer: itself, or compiled.
    """

    make: Callable[[], LightningModule]
    what: str
    loader: Callable[[], Any]
    refused: str | None = None
    callback: dict[str, Any] = dataclasses.field(default_factory=dict)
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)
    fits: Callable[[LightningModule], Any] = lambda module: module


def case(what: str, loader: Callable[[], Any] | None = None, **settings: Any) -> Any:
    """Puts a module class, or a function that makes a module, into the zoo."""

    def add(make: Any) -> Any:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", make.__name__).lower()
        assert name not in CASES, name
        CASES[name] = Case(make, what, native if loader is None else loader, **settings)
        return make

    return add


class Small(LightningModule):
    """What most modules here have in common, apart from what they show."""

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


def opened(path: str, mode: str = "r") -> Any:
    """An open file, as a module keeps one; the test closes it."""
    FILES.append(open(path, mode))  # noqa: SIM115
    return FILES[-1]


def pooled(batch):
    """Inputs and targets of all domains together."""
    return tuple(torch.cat(parts) for parts in zip(*batch.values(), strict=True))


class Rows(Dataset):
    """Samples made by a function of their number."""

    def __init__(self, make: Callable[[int], Any], size: int = 24) -> None:
        self.make, self.size = make, size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return self.make(index)


def numbers(size: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(seed))


def native(*shape: int, classes: int = 3):
    """Batches ``{"a": (inputs, targets), "b": ...}``."""
    inputs = numbers(48, *(shape or (8,)))
    targets = inputs.flatten(1)[:, :classes].argmax(1)
    loaders = {
        name: DataLoader(TensorDataset(inputs[i * 24 : i * 24 + 24], targets[:24]), batch_size=8)
        for i, name in enumerate("ab")
    }
    return CombinedLoader(loaders, "min_size")


def labelled(make: Callable[[int], Any], batch_size: int = 8, collate: Any = None):
    """Batches that the default DataLoader makes of samples with a domain label."""
    return DataLoader(Rows(make), batch_size=batch_size, collate_fn=collate)


def loss_of(net, batch):
    inputs, targets = pooled(batch)
    return functional.cross_entropy(net(inputs), targets)
