"""Run by test_distributed.py in a fresh process: scenarios on one process and on two."""

import warnings

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from gga_lightning import (
    Ball,
    Climb,
    GradientAgreementVoting,
    GradientConflictMonitor,
    GradientGuidedAnnealing,
    GradientGuidedNoise,
    Guided,
    Metropolis,
    Walk,
)
from tests.helpers import Classifier, domain_data, trainer
from tests.ranks import fork


class Model(Classifier):
    """Nothing in it depends on how samples are spread over processes."""

    def __init__(self):
        super().__init__()
        self.featurizer = nn.Sequential(nn.Linear(8, 16), nn.Tanh())
        self.double()

    def training_step(self, batch, batch_idx):
        if not isinstance(batch, dict):
            inputs, targets, _ = batch
            return functional.cross_entropy(self(inputs.double()), targets)
        losses = [functional.cross_entropy(self(x.double()), y) for x, y in batch.values()]
        return torch.stack(losses).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Share(Sampler):
    """Every sample in order, or under two processes the even ones on rank 0, the odd on rank 1.

    (Lightning's own sampler shuffles while training.)
    """

    def __init__(self, size):
        self.size = size

    def __iter__(self):
        distributed = torch.distributed.is_initialized()
        rank, ranks = (torch.distributed.get_rank(), 2) if distributed else (0, 1)
        return iter(range(rank, self.size, ranks))

    def __len__(self):
        return self.size // (2 if torch.distributed.is_initialized() else 1)


def shared(data, batch_size):
    return DataLoader(data, batch_size=batch_size, sampler=Share(len(data)))


class Labelled(Dataset):
    """Sixteen samples a step, each with a domain label."""

    def __init__(self, labels):
        generator = torch.Generator().manual_seed(1)
        self.labels = labels
        self.inputs = torch.randn(96, 8, generator=generator)
        self.targets = torch.randint(3, (96,), generator=generator)

    def __len__(self):
        return 96

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index], self.labels[index % 16]


LABELS = {
    "mixed": [0, 0, 1, 1, 2, 2, 0, 0, 1, 2, 0, 1, 1, 1, 2, 2],
    "lopsided": [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 2, 1, 2, 0],  # rank 1 never sees domain 2
}


class Report(Callback):
    """Writes what a rank ends with."""

    def __init__(self, path, *callbacks):
        self.path, self.callbacks = path, callbacks

    def on_train_end(self, trainer, pl_module):
        gga, noise, monitor, voting = self.callbacks
        found = {
            "state": {k: v.cpu() for k, v in pl_module.state_dict().items()},
            "records": [tuple(record._replace(seconds=0.0)) for record in gga.records],
            "skipped": gga._skipped,
            "cosines": [record.cosines for record in monitor.records],
            "alpha": noise._alpha,
            "votes": voting.records,
            "warnings": WARNINGS,
        }
        torch.save(found, f"{self.path}-{trainer.world_size}-{trainer.global_rank}.pt")


WARNINGS = []


SEARCHES = {
    "ball": {"proposal": Ball(0.05), "objective": "mean"},
    "walk": {"proposal": Walk(0.02)},
    "climb": {"proposal": Climb(0.05), "acceptance": Metropolis(0.05), "control": "scramble"},
    "guided": {"proposal": Guided(0.01, steps=2), "measure_transfer": True, "patience": 4},
    "shuffled": {"proposal": Walk(0.02), "control": "shuffle_domains"},
    "orthogonal": {"proposal": Guided(0.02, relative=True, orthogonal=True), "objective": "mean"},
}


def fit(path, loader, devices, search="ball", **settings):
    torch.manual_seed(0)
    WARNINGS.clear()
    gga = GradientGuidedAnnealing(1, 4, num_candidates=15, **SEARCHES[search])
    noise, monitor = GradientGuidedNoise(1e-3), GradientConflictMonitor(2)
    voting = GradientAgreementVoting(4, 6)
    report = Report(path, gga, noise, monitor, voting)
    strategy = "ddp" if devices > 1 else "auto"
    settings = {"strategy": strategy, "use_distributed_sampler": False, **settings}
    run = trainer(gga, noise, monitor, voting, report, devices=devices, **settings)
    run.fit(Model(), loader)


def dicts(size):
    """The same batches of domains on one process of 2 n samples and on two of n."""
    loaders = {
        name: shared(TensorDataset(*tensors), size)
        for name, tensors in domain_data(size=48).items()
    }
    return CombinedLoader(loaders, "min_size")


def train(folder, devices, names):
    warnings.showwarning = lambda message, *args, **kwargs: WARNINGS.append(str(message))
    warnings.simplefilter("always")
    size = 8 // devices
    for name in names:
        path = folder / name
        if name in LABELS:
            fit(path, shared(Labelled(LABELS[name]), 16 // devices), devices)
        elif name == "accumulated":
            fit(path, dicts(size), devices, accumulate_grad_batches=2, max_steps=5)
        else:
            fit(path, dicts(size), devices, "ball" if name == "dicts" else name)


if __name__ == "__main__":
    fork(train)
