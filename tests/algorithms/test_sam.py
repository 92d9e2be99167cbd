from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import SAM
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check_update, descend, gradients, parameters


def risk(featurizer, classifier, parts):
    x, y = (torch.cat(values) for values in zip(*parts, strict=True))
    return cross_entropy(classifier(featurizer(x)), y)


def two_gradients(networks, parts, displacement):
    """The gradient g here and at theta + displacement(||g||) g."""
    here = gradients(risk(*networks, parts), networks)
    start = [param.detach().clone() for param in parameters(networks)]
    norm = sum((g**2).sum() for g in here) ** 0.5
    descend(networks, here, lr=-displacement(norm))
    there = gradients(risk(*networks, parts), networks)
    for param, value in zip(parameters(networks), start, strict=True):
        param.data = value
    return here, there


def test_three_updates_by_the_papers_formula():
    def update(*arguments):
        *networks, parts, _ = arguments
        _, there = two_gradients(networks, parts, lambda norm: 0.5 / norm)
        descend(networks, there)

    check_update(partial(SAM, rho=0.5), update)


def test_rho():
    with pytest.raises(ValueError, match="`rho` must be positive, got 0"):
        SAM(MLP((8,)), 3, rho=0)
