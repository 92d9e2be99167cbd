from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import Arith
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check, check_update, descend, gradients, parameters
from tests.helpers import combined_loader, domain_data, trainer


def values(networks):
    return [param.detach().clone() for param in parameters(networks)]


def put(networks, found):
    for param, value in zip(parameters(networks), found, strict=True):
        param.data = value.clone()


def test_three_updates_toward_the_mean_of_the_walk():
    def update(featurizer, classifier, parts, step):
        networks = featurizer, classifier
        start, points = values(networks), []
        for index in torch.randperm(3).tolist():
            x, y = parts[index]
            loss = cross_entropy(classifier(featurizer(x)), y)
            descend(networks, gradients(loss, networks), lr=0.3)
            points.append(values(networks))
        put(networks, start)
        means = [sum(own) / 3 for own in zip(*points, strict=True)]
        away = [(old - mean) / 0.3 for old, mean in zip(start, means, strict=True)]
        descend(networks, [6 / 4 * direction for direction in away])

    check_update(partial(Arith, inner_lr=0.3), update)


def test_one_domain_is_erm():
    def objective(featurizer, classifier, parts, step):
        ((x, y),) = parts
        return cross_entropy(classifier(featurizer(x)), y)

    check(partial(Arith, inner_lr=0.3), objective, data={"art": domain_data()["art"]})


def test_the_optimizer_makes_one_step():
    fit = trainer(max_steps=4, limit_val_batches=0)
    fit.fit(Arith(MLP((8,)), 3), combined_loader(), [])
    assert fit.global_step == 4
    assert {int(state["step"]) for state in fit.optimizers[0].state.values()} == {4}


@pytest.mark.parametrize("inner_lr", [0.0, -1.0])
def test_inner_lr(inner_lr):
    with pytest.raises(ValueError, match="`inner_lr` must be positive, got"):
        Arith(MLP((8,)), 3, inner_lr=inner_lr)
