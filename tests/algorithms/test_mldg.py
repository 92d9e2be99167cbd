from functools import partial

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import MLDG
from gga_lightning.backbones import MLP
from tests.algorithms.literal import LR, check_update, descend, gradients, parameters
from tests.helpers import combined_loader, trainer


def mean_risk(networks, parts):
    featurizer, classifier = networks
    return sum(cross_entropy(classifier(featurizer(x)), y) for x, y in parts) / len(parts)


def meta_gradient(networks, train, test, inner):
    """grad F(theta) + 2 grad G(theta - alpha inner(grad F))."""
    here = gradients(mean_risk(networks, train), networks)
    start = [param.detach().clone() for param in parameters(networks)]
    alpha, direction = inner
    descend(networks, [direction(g) for g in here], lr=alpha)
    there = gradients(mean_risk(networks, test), networks)
    for param, value in zip(parameters(networks), start, strict=True):
        param.data = value
    return [a + 2.0 * b for a, b in zip(here, there, strict=True)]


@pytest.mark.parametrize("num_meta_test", [1, 2])
def test_three_updates_by_the_papers_algorithm(num_meta_test):
    def update(*arguments):
        *networks, parts, _ = arguments
        order = torch.randperm(3).tolist()
        test = [parts[i] for i in order[:num_meta_test]]
        train = [parts[i] for i in order[num_meta_test:]]
        descend(networks, meta_gradient(networks, train, test, (0.4, lambda g: g)))

    check_update(partial(MLDG, beta=2.0, num_meta_test=num_meta_test, inner_lr=0.4), update)


def test_the_suites_form():
    def update(*arguments):
        *networks, parts, _ = arguments
        order = torch.randperm(3).tolist()
        inner = LR, lambda g: g / (g.abs() + 1e-8)
        found = [
            meta_gradient(networks, [parts[order[i]]], [parts[order[(i + 1) % 3]]], inner)
            for i in range(3)
        ]
        descend(networks, [sum(own) / 3 for own in zip(*found, strict=True)])

    check_update(partial(MLDG, beta=2.0, split="pairs", inner="adam"), update)


def test_as_many_meta_test_domains_as_there_are():
    module = MLDG(MLP((8,)), 3, num_meta_test=3)
    with pytest.raises(MisconfigurationException, match=r"less than .* domains \(3\), got 3"):
        trainer(limit_val_batches=0).fit(module, combined_loader(), [])


@pytest.mark.parametrize(
    "settings", [{"beta": -1}, {"num_meta_test": 0}, {"split": "half"}, {"inner": "rmsprop"}]
)
def test_wrong_settings(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` must .* got {settings[name]!r}"):
        MLDG(MLP((8,)), 3, **settings)
