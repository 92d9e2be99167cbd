from functools import partial

import torch
from torch.nn import functional

from gga_lightning.algorithms import ERM
from gga_lightning.backbones import MLP
from tests.helpers import combined_loader, domain_data, trainer


def test_objective_is_the_mean_over_all_samples():
    module = ERM(MLP((8,)), 3)
    data = domain_data()
    batch = {name: (x[: 4 + i], y[: 4 + i]) for i, (name, (x, y)) in enumerate(data.items())}
    losses = torch.cat(
        [functional.cross_entropy(module(x), y, reduction="none") for x, y in batch.values()]
    )
    torch.testing.assert_close(module.objective(batch), losses.mean())


def test_three_updates_by_hand():
    module = ERM(MLP((8,)), 3, optimizer=partial(torch.optim.SGD, lr=0.1)).double()
    data = {name: (x.double(), y) for name, (x, y) in domain_data().items()}
    params = [param.detach().clone() for param in module.parameters()]
    for step in range(3):
        parts = [(x[8 * step : 8 * step + 8], y[8 * step : 8 * step + 8]) for x, y in data.values()]
        inputs, targets = (torch.cat(values) for values in zip(*parts, strict=True))
        params = [param.requires_grad_() for param in params]
        w1, b1, w2, b2 = params
        logits = (inputs @ w1.T + b1).clamp(min=0) @ w2.T + b2
        loss = -logits.log_softmax(1)[torch.arange(24), targets].mean()
        gradient = torch.autograd.grad(loss, params)
        params = [(p - 0.1 * g).detach() for p, g in zip(params, gradient, strict=True)]
    trainer(max_steps=3, limit_val_batches=0).fit(module, combined_loader(data), [])
    for ours, expected in zip(module.parameters(), params, strict=True):
        torch.testing.assert_close(ours.detach(), expected, rtol=0, atol=1e-12)
