import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import MIRO
from gga_lightning.backbones import MLP, MNISTCNN, EfficientNetLite0, TorchvisionFeaturizer
from tests.algorithms.literal import LR, check_update, descend, gradients
from tests.helpers import combined_loader, domain_batch, trainer


def penalty(outputs, kept, numbers):
    """The paper's sums, entry by entry."""
    total = 0
    for own, other, b in zip(outputs, kept, numbers, strict=True):
        terms = []
        for row, row_kept in zip(own, other, strict=True):
            for value, value_kept, number in zip(row, row_kept, b, strict=True):
                v = torch.log(1 + torch.exp(number)) + 1e-5
                terms.append(0.5 * ((value - value_kept) ** 2 / v + torch.log(v)))
        total = total + sum(terms) / len(terms)
    return total


def test_three_updates_by_the_papers_formula():
    def two(featurizer, x):
        first = featurizer[2](featurizer[1](featurizer[0](x)))
        return first, featurizer[4](featurizer[3](first))

    def update(featurizer, classifier, oracle, variances, parts, step):
        x, y = (torch.cat(values) for values in zip(*parts, strict=True))
        if step == 0:
            oracles.append(copy.deepcopy(featurizer))
        outputs = two(featurizer, x)
        with torch.no_grad():
            kept = two(oracles[0], x)
        loss = cross_entropy(classifier(outputs[1]), y)
        loss = loss + 0.7 * penalty(outputs, kept, variances)
        networks = featurizer, classifier
        directions = gradients(loss, [*networks, variances])
        of_variances = directions[-2:]
        descend(networks, directions[:-2])
        descend([variances], of_variances, lr=5 * LR)

    oracles = []
    module = check_update(
        partial(MIRO, input_shape=(8,), penalty_weight=0.7, variance_lr_factor=5.0),
        update,
        featurizer=MLP((8,), (6, 4)),
        networks=["oracle", "variances"],
    )
    assert module.layers == ["2", "4"]


def test_features_as_the_pretrained_ones():
    module = MIRO(MLP((8,)), 3, input_shape=(8,), penalty_weight=1.0)
    batch = domain_batch()
    loss = module.domain_losses(batch).mean()
    objective = module.objective(batch)
    torch.testing.assert_close(objective, loss + math.log(0.1) / 2)
    inside = list(module.featurizer.parameters())
    of_objective = torch.autograd.grad(objective, inside)
    of_loss = torch.autograd.grad(loss, inside)
    for mine, expected in zip(of_objective, of_loss, strict=True):
        torch.testing.assert_close(mine, expected)


def test_the_best_variance_is_the_mean_squared_difference():
    module = MIRO(MLP((8,)), 3, input_shape=(8,), penalty_weight=1.0).double()
    with torch.no_grad():
        for param in module.featurizer.parameters():
            param.add_(torch.randn_like(param))
    inputs = torch.randn(50, 8, dtype=torch.float64)
    batch = {"art": (inputs, torch.zeros(50, dtype=torch.long))}
    squares = (module.featurizer(inputs) - module.oracle(inputs)).square().mean(0).detach()
    best = torch.log(torch.expm1(squares - 1e-5))
    module.variances[0].data.copy_(best)
    (slope,) = torch.autograd.grad(module.objective(batch), list(module.variances))
    torch.testing.assert_close(slope, torch.zeros(32, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_oracle_does_not_move_and_weight_decay_leaves_the_variances():
    featurizer = MLP((8,))
    optimizer = partial(torch.optim.SGD, lr=0.1, weight_decay=0.5)
    module = MIRO(featurizer, 3, input_shape=(8,), penalty_weight=0.0, optimizer=optimizer)
    start = [param.detach().clone() for param in (*module.oracle.parameters(), *module.variances)]
    trainer(limit_val_batches=0).fit(module, combined_loader(), [])
    after = [*module.oracle.parameters(), *module.variances]
    assert all(map(torch.equal, start, after))
    assert not torch.equal(featurizer[1].weight, module.oracle[1].weight)


def test_the_oracle_runs_in_evaluation_mode():
    featurizer = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    featurizer.out_features = 4
    module = MIRO(featurizer, 3, input_shape=(8,), layers=["2"])
    modes = []
    module.oracle[2].register_forward_pre_hook(lambda layer, inputs: modes.append(layer.training))
    module.objective(domain_batch())
    assert modes == [False]
    assert module.featurizer[1].num_batches_tracked == 1
    assert module.oracle[1].num_batches_tracked == 0
    assert module.oracle[2].training


def test_no_hook_stays():
    module = MIRO(MLP((8,)), 3, input_shape=(8,))
    module.objective(domain_batch())
    assert not any(layer._forward_hooks for layer in module.modules())


@pytest.mark.parametrize(
    ("featurizer", "shape", "layers", "channels"),
    [
        (lambda s: MNISTCNN(s), (1, 28, 28), ["2", "5", "8", "11"], [64, 128, 128, 128]),
        (
            lambda s: TorchvisionFeaturizer("resnet18", s),
            (3, 32, 32),
            ["network.maxpool", *(f"network.layer{n}" for n in range(1, 5))],
            [64, 64, 128, 256, 512],
        ),
        (
            lambda s: EfficientNetLite0(s, weights=None),
            (3, 32, 32),
            [f"network.blocks.{n}" for n in range(7)],
            [16, 24, 40, 80, 112, 192, 320],
        ),
    ],
)
def test_the_layers_of_networks(featurizer, shape, layers, channels):
    module = MIRO(featurizer(shape), 3, input_shape=shape)
    assert module.layers == layers
    assert [len(variance) for variance in module.variances] == channels
    batch = {"art": (torch.randn(2, *shape), torch.zeros(2, dtype=torch.long))}
    assert module.objective(batch).isfinite()


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"penalty_weight": -1}, "not be negative, got -1"),
        ({"variance_lr_factor": 0}, "be positive, got 0"),
        ({"layers": ["3"]}, r"name submodules of the featurizer .* got \['3'\]"),
        ({"layers": []}, "name submodules of the featurizer"),
    ],
)
def test_wrong_settings(settings, rule):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must {rule}"):
        MIRO(MLP((8,)), 3, input_shape=(8,), **settings)


def test_a_layer_that_runs_twice():
    class Twice(nn.Module):
        out_features = 8

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, inputs):
            return self.layer(self.layer(inputs))

    with pytest.raises(ValueError, match="`layers` must name submodules that run once"):
        MIRO(Twice(), 3, input_shape=(8,), layers=["layer"])
