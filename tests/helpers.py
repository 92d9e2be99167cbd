"""Small data, modules and trainers for the tests."""

import math

import pytest
import torch
import torchmetrics
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from gga_lightning.callbacks._reader import StepStart

DOMAINS = ("art", "photo", "sketch")


def domain_data(domains=DOMAINS, size=48, features=8, classes=3, seed=0):
    """Domain name to (inputs, targets): a linear rule, shifted and turned a little by domain."""
    generator = torch.Generator().manual_seed(seed)
    rule = torch.randn(features, classes, generator=generator)
    data = {}
    for index, name in enumerate(domains):
        inputs = torch.randn(size, features, generator=generator) + 0.3 * index
        own = rule + 0.8 * torch.randn(features, classes, generator=generator)
        data[name] = (inputs, (inputs @ own).argmax(1))
    return data


def combined_loader(data=None, batch_size=8):
    """A CombinedLoader of one loader a domain, in a fixed order."""
    data = domain_data() if data is None else data
    loaders = {
        name: DataLoader(TensorDataset(*tensors), batch_size=batch_size)
        for name, tensors in data.items()
    }
    return CombinedLoader(loaders, "min_size")


def domain_batch(data=None, size=8):
    data = domain_data() if data is None else data
    return {name: (inputs[:size], targets[:size]) for name, (inputs, targets) in data.items()}


def trainer(*callbacks, **settings):
    settings = {
        "max_steps": 6,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **settings,
    }
    return Trainer(callbacks=list(callbacks), **settings)


class Classifier(LightningModule):
    """An ordinary module that knows nothing of us, on batches of domains.

    With everything a training step can leave behind: BatchNorm, dropout, a metric, logs, prints,
    a counter and a list of outputs.
    """

    def __init__(self, features=8, classes=3, lr=0.05):
        super().__init__()
        self.featurizer = nn.Sequential(
            nn.Linear(features, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3)
        )
        self.head = nn.Linear(16, classes)
        self.accuracy = torchmetrics.classification.MulticlassAccuracy(classes)
        self.lr = lr
        self.calls = 0
        self.outputs = []

    def forward(self, inputs):
        return self.head(self.featurizer(inputs))

    def training_step(self, batch, batch_idx):
        inputs = torch.cat([part[0] for part in batch.values()])
        targets = torch.cat([part[1] for part in batch.values()])
        logits = self(inputs)
        loss = functional.cross_entropy(logits, targets)
        self.calls += 1
        self.outputs.append(loss.detach())
        self.accuracy(logits.detach(), targets)
        self.log("loss", loss, on_step=True, on_epoch=True, batch_size=len(inputs))
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True, batch_size=len(inputs))
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Flat(Classifier):
    """Without dropout and BatchNorm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.featurizer = nn.Sequential(nn.Linear(8, 16), nn.Tanh())
        self.head = nn.Linear(16, 3)


def step_start(trainer, module, batch, batch_idx=0):
    """What a callback's own code gets at the beginning of a batch."""
    return StepStart(trainer, module, batch, batch_idx, trainer.global_step)


def copies(module):
    return [param.detach().clone() for param in module.parameters()]


def same(left, right):
    """Whether two nestings of tensors and plain values are equal, bit for bit."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


class Decisions:
    """An acceptance that has made up its mind: accepts if True, else not; True or False for all."""

    def __init__(self, *decisions):
        self.decisions = decisions

    def objective_above(self, accepted, index, draw):
        return -math.inf if self.decisions[index % len(self.decisions)] else math.inf

    def loss_below(self, accepted, start):
        return math.inf


def mostly_slow(names, *quick):
    """The parameters of a test: all names, or tuples of them, but these are marked slow."""
    rows = {name: name if isinstance(name, tuple) else (name,) for name in names}
    return [
        pytest.param(*row, marks=() if name in quick else pytest.mark.slow)
        for name, row in rows.items()
    ]


def on_digits(overrides):
    """The overrides, and small data and a small network in place of gga-train's defaults."""
    given = any(override.startswith("experiment=") for override in overrides)
    return [*overrides, *(() if given else ("experiment=paper_search",))]
