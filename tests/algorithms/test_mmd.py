from functools import partial

import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import MMD
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check


def kernel(a, b):
    squares = ((a[:, None] - b[None]) ** 2).sum(-1)
    return sum(torch.exp(-g * squares) for g in (1e-3, 1e-2, 1e-1, 1, 10, 100, 1000)).mean()


def distance(a, b):
    return kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)


def test_three_updates_by_the_formula():
    def objective(featurizer, classifier, parts, step):
        z = [featurizer(x) for x, _ in parts]
        loss = sum(cross_entropy(classifier(f), y) for f, (_, y) in zip(z, parts, strict=True)) / 3
        pairs = distance(z[0], z[1]) + distance(z[0], z[2]) + distance(z[1], z[2])
        return loss + 0.7 * pairs / 3

    check(partial(MMD, gamma=0.7), objective)


def test_equal_domains_have_no_distance():
    x = torch.randn(10, 4, dtype=torch.float64)
    assert abs(MMD(MLP((8,)), 3).distance(x, x)) < 1e-12
