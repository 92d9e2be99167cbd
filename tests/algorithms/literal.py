"""Three updates written down literally, to hold an algorithm against."""

import copy
from functools import partial

import torch
from lightning.pytorch import Callback
from torch import nn

from gga_lightning.backbones import MLP
from tests.helpers import combined_loader, domain_data, trainer

SGD = partial(torch.optim.SGD, lr=0.1)


class Seeds(Callback):
    """Gives every step random numbers of its own."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.manual_seed(100 + batch_idx)


def check(make, objective, *, data=None, featurizer=None):
    """Trains three steps of plain gradient descent in float64 and compares the parameters.

    Args:
        make: (featurizer, num_classes, optimizer=) -> the algorithm.
        objective: (featurizer, classifier, [(x, y) of each domain], step) -> the loss, as the
            paper's formula has it.
        data: Domain name to (inputs, targets).
        featurizer: What to train.
    """
    torch.manual_seed(0)
    module = make(featurizer or MLP((8,)), 3, optimizer=SGD).double()
    data = domain_data() if data is None else data
    data = {name: (x.double(), y) for name, (x, y) in data.items()}
    literal = copy.deepcopy(nn.ModuleList([module.featurizer, module.classifier]))
    optimizer = SGD(literal.parameters())
    for step in range(3):
        torch.manual_seed(100 + step)
        rows = slice(8 * step, 8 * step + 8)
        optimizer.zero_grad()
        objective(*literal, [(x[rows], y[rows]) for x, y in data.values()], step).backward()
        optimizer.step()
    trainer(Seeds(), max_steps=3, limit_val_batches=0).fit(module, combined_loader(data), [])
    ours = [*module.featurizer.parameters(), *module.classifier.parameters()]
    for mine, expected in zip(ours, literal.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-10)
    return module
