import math
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import ANDMask, SANDMask
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check_update, descend, gradients


def weight(values, tau, k):
    """One coordinate's weight, from the domains' gradients in it."""
    agreement = abs(sum((v > 0) - (v < 0) for v in values)) / len(values)
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return max(0.0, math.tanh(k * (agreement - tau) / variance)) if variance else 0.0


@pytest.mark.parametrize(("tau", "k"), [(0.5, 10.0), (0.2, 1e-3), (0.0, 1e-4)])
def test_three_updates_by_the_formula(tau, k):
    def update(*arguments):
        *networks, parts, _ = arguments
        featurizer, classifier = networks
        found = [gradients(cross_entropy(classifier(featurizer(x)), y), networks) for x, y in parts]
        masked = []
        for own in zip(*found, strict=True):
            columns = zip(*(g.flatten().tolist() for g in own), strict=True)
            m = torch.tensor([weight(c, tau, k) for c in columns], dtype=torch.float64)
            m = m.view_as(own[0])
            masked.append(m * sum(own) / 3 / (1e-10 + m.sum() / m.numel()))
            weights.append(m)
        descend(networks, masked)

    weights = []
    check_update(partial(SANDMask, tau=tau, k=k), update)
    between = [(m > 0.01).logical_and(m < 0.99).any().item() for m in weights]
    assert any(between) == (k < 1)  # the weight of DomainBed's k is 0 or 1


def found():
    torch.manual_seed(0)
    return torch.randn(3, 50, dtype=torch.float64)


def test_a_steep_weight_is_the_and_mask():
    steep, hard = SANDMask(MLP((8,)), 3, tau=0.5, k=1e9), ANDMask(MLP((8,)), 3, tau=0.5)
    torch.testing.assert_close(steep._masked(found()), hard._masked(found()), rtol=1e-9, atol=0)


def test_a_flat_weight_does_not_depend_on_k():
    first, second = (SANDMask(MLP((8,)), 3, tau=0.5, k=k) for k in (1e-4, 2e-4))
    torch.testing.assert_close(first._masked(found()), second._masked(found()), rtol=1e-4, atol=0)


@pytest.mark.parametrize("tau", [0.0, 1 / 3])
def test_equal_and_zero_gradients_give_no_nan(tau):
    equal = torch.stack([torch.tensor([0.0, 1e-25, -2.0])] * 3)
    result = SANDMask(MLP((8,)), 3, tau=tau, k=1e5)._masked(equal)
    assert result.isfinite().all()
    assert result[0] == 0


@pytest.mark.parametrize("tau", [-0.1, 1.0, math.nan])
def test_tau(tau):
    with pytest.raises(ValueError, match=r"`tau` must be in \[0, 1\), got"):
        SANDMask(MLP((8,)), 3, tau=tau)


def test_k():
    with pytest.raises(ValueError, match="`k` must be positive, got 0"):
        SANDMask(MLP((8,)), 3, k=0)
