"""Three updates written down literally, to hold an algorithm against."""

import copy
from functools import partial

import torch
from lightning.pytorch import Callback
from torch import nn

from gga_lightning.backbones import MLP
from tests.helpers import combined_loader, domain_data, trainer

LR = 0.1
SGD = partial(torch.optim.SGD, lr=LR)


class Seeds(Callback):
    """Gives every step random numbers of its own."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.manual_seed(100 + batch_idx)


def check(make, objective, **settings):
    """Trains three steps of plain gradient descent in float64 and compares the parameters.

    Args:
        make: (featurizer, num_classes, optimizer=) -> the algorithm.
        objective: (featurizer, classifier, [further networks], [(x, y) of each domain], step) ->
            the loss, as the paper's formula has it.
        **settings: See check_update.
    """

    def update(*arguments):
        descend(arguments[:-2], gradients(objective(*arguments), arguments[:-2]))

    return check_update(make, update, **settings)


def check_update(make, update, *, data=None, featurizer=None, networks=(), steps=3):
    """Trains three steps in float64 and compares the parameters.

    Args:
        make: (featurizer, num_classes, optimizer=) -> the algorithm.
        update: (featurizer, classifier, [further networks], [(x, y) of each domain], step) moves
            the networks' parameters, as the paper's algorithm has it.
        data: Domain name to (inputs, targets).
        featurizer: What to train.
        networks: Names of the algorithm's further networks.
        steps: How many updates.
    """
    torch.manual_seed(0)
    module = make(featurizer or MLP((8,)), 3, optimizer=SGD).double()
    data = domain_data() if data is None else data
    data = {name: (x.double(), y) for name, (x, y) in data.items()}
    trained = [module.get_submodule(name) for name in ("featurizer", "classifier", *networks)]
    literal = copy.deepcopy(nn.ModuleList(trained))
    for step in range(steps):
        torch.manual_seed(100 + step)
        rows = slice(8 * step, 8 * step + 8)
        update(*literal, [(x[rows], y[rows]) for x, y in data.values()], step)
    trainer(Seeds(), max_steps=steps, limit_val_batches=0).fit(module, combined_loader(data), [])
    assert {id(p) for n in trained for p in n.parameters()} == {id(p) for p in module.parameters()}
    ours = nn.ModuleList(trained).parameters()
    for mine, expected in zip(ours, literal.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-10)
    return module


def parameters(networks):
    return [param for network in networks for param in network.parameters()]


def gradients(loss, networks):
    return torch.autograd.grad(loss, parameters(networks), allow_unused=True)


@torch.no_grad()
def descend(networks, directions, lr=LR):
    """theta <- theta - lr * direction."""
    for param, direction in zip(parameters(networks), directions, strict=True):
        if direction is not None:
            param -= lr * direction
