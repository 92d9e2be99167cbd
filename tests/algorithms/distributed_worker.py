"""Run by test_distributed.py in a fresh process: every algorithm on one process and on two."""

import sys
from pathlib import Path

import torch

from gga_lightning.data import Digits, DomainDataModule
from tests.algorithms.test_every_algorithm import NAMES, Reseeds, make
from tests.helpers import trainer
from tests.ranks import fork

DIGITS = Digits("rotation")


def train(folder, devices):
    settings = {"strategy": "ddp" if devices == 2 else "auto", "devices": devices}
    for name, module in MODULES.items():
        data = DomainDataModule(DIGITS, -1, batch_size=8 // devices, steps_per_epoch=6)
        fit = trainer(Reseeds(), max_steps=5, limit_val_batches=0, precision="64-true", **settings)
        fit.fit(module, datamodule=data)
        path = folder / f"{name}-{devices}-{fit.global_rank}.pt"
        torch.save(module.state_dict(), path)


if __name__ == "__main__":
    MODULES = {name: make(name) for name in NAMES}  # made once, and forked
    fork(train, Path(sys.argv[1]))
