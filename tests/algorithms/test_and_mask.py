from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import ANDMask
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check_update, descend, gradients


@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_three_updates_by_the_papers_formula(tau):
    def update(*arguments):
        *networks, parts, _ = arguments
        featurizer, classifier = networks
        found = [gradients(cross_entropy(classifier(featurizer(x)), y), networks) for x, y in parts]
        masked = []
        for own in zip(*found, strict=True):
            agreement = sum(g.sign() for g in own).abs() / 3
            kept = (agreement >= tau).double()
            masked.append(kept * sum(own) / 3 / (1e-10 + kept.sum() / kept.numel()))
        descend(networks, masked)
        shares.append((masked[0] != 0).double().mean().item())

    shares = []
    check_update(partial(ANDMask, tau=tau), update)
    assert 0 < shares[0] < 1


@pytest.mark.parametrize("tau", [-0.1, 1.1, torch.nan])
def test_tau(tau):
    with pytest.raises(ValueError, match=r"`tau` must be in \[0, 1\], got"):
        ANDMask(MLP((8,)), 3, tau=tau)
