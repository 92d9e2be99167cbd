"""Run by test_distributed.py, once a rank: every algorithm on two gloo processes, and on one."""

import os
import sys
from pathlib import Path

import torch

from gga_lightning.data import Digits, DomainDataModule
from tests.algorithms.test_every_algorithm import NAMES, Reseeds, make
from tests.helpers import trainer


def main(folder):
    torch.set_num_threads(1)
    rank = int(os.environ.get("LOCAL_RANK", 0))
    devices = 2 if "LOCAL_RANK" in os.environ else 1
    settings = {"strategy": "ddp" if devices == 2 else "auto", "devices": devices}
    for name in NAMES:
        module = make(name)
        data = DomainDataModule(Digits("rotation"), -1, batch_size=8 // devices, steps_per_epoch=6)
        fit = trainer(Reseeds(), max_steps=5, limit_val_batches=0, precision="64-true", **settings)
        fit.fit(module, datamodule=data)
        torch.save(module.state_dict(), folder / f"{name}-{devices}-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
