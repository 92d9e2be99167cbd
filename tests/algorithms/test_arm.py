from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import ARM
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import domain_data

SHAPE = (2, 5, 4)


def images():
    return {name: (x.view(-1, *SHAPE), y) for name, (x, y) in domain_data(features=40).items()}


def test_three_updates_by_the_formula():
    def objective(featurizer, classifier, context, parts, step):
        x, y = (torch.cat(values) for values in zip(*parts, strict=True))
        maps = context(x)  # BatchNorm sees all domains together
        sets = [  # of three at most, none across domains
            maps[8 * domain + start : min(8 * domain + start + 3, 8 * domain + 8)]
            for domain in range(3)
            for start in (0, 3, 6)
        ]
        means = torch.cat([own.mean(0, keepdim=True).repeat(len(own), 1, 1, 1) for own in sets])
        return cross_entropy(classifier(featurizer(torch.cat([x, means], 1))), y)

    check(
        partial(ARM, input_shape=SHAPE, support_size=3),
        objective,
        data=images(),
        featurizer=MLP(ARM.featurizer_shape(SHAPE)),
        networks=["context"],
    )


def test_sets_that_do_not_divide_a_batch():
    module = ARM(MLP((3, 5, 4)), 3, input_shape=SHAPE, support_size=5).eval()
    x = torch.randn(8, *SHAPE)
    alone = torch.cat([module(x[:5]), module(x[5:])])
    torch.testing.assert_close(module(x), alone)


def test_context_network():
    module = ARM(MLP((3, 5, 4)), 3, input_shape=SHAPE)
    convolutions = [layer for layer in module.context if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(2, 64), (64, 64), (64, 1)]
    assert module.context(torch.randn(3, *SHAPE)).shape == (3, 1, 5, 4)


def test_wrong_settings():
    with pytest.raises(ValueError, match=r"`input_shape` must be that of an image, .* got \(8,\)"):
        ARM(MLP((8,)), 3, input_shape=(8,))
    with pytest.raises(ValueError, match="`support_size` must be at least 1, got 0"):
        ARM(MLP((3, 5, 4)), 3, input_shape=SHAPE, support_size=0)
