"""Run by test_distributed.py in a fresh process: every algorithm on one process and on two."""

import sys

import torch

from gga_lightning.data import Digits, DomainDataModule
from tests.algorithms.test_every_algorithm import Reseeds, make
from tests.helpers import trainer
from tests.ranks import fork

DIGITS = Digits("rotation")
# Two processes end as one does on the joined batches. The objective of these algorithms is a mean
# over samples, or they average gradients before use. The others' is of each process's own samples.
AS_ONE = (
    *("erm", "and_mask", "fish", "group_dro", "jacobian_descent", "mldg", "sam", "gsam", "sagm"),
    *("sd", "dann", "sand_mask", "agr_sum", "agr_rand", "arith", "transfer"),
)


def train(folder, devices, names):
    settings = {"strategy": "ddp" if devices == 2 else "auto", "devices": devices}
    for name in names if devices == 2 else [name for name in names if name in AS_ONE]:
        module = MODULES[name]
        data = DomainDataModule(DIGITS, -1, batch_size=8 // devices, steps_per_epoch=6)
        fit = trainer(Reseeds(), max_steps=5, limit_val_batches=0, precision="64-true", **settings)
        fit.fit(module, datamodule=data)
        path = folder / f"{name}-{devices}-{fit.global_rank}.pt"
        torch.save(module.state_dict(), path)


if __name__ == "__main__":
    MODULES = {name: make(name) for name in sys.argv[2:]}  # made once, and forked
    fork(train)
