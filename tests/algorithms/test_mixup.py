from functools import partial

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import Mixup
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import domain_batch


def test_three_updates_by_the_formula():
    """With the same draws: an order of the domains, then a share for each pair."""

    def objective(featurizer, classifier, parts, step):
        order = torch.randperm(3).tolist()
        total = 0
        for place in range(3):
            (x, y), (other_x, other_y) = parts[order[place]], parts[order[place - 1]]
            share = torch.distributions.Beta(0.4, 0.4).sample().item()
            logits = classifier(featurizer(share * x + (1 - share) * other_x))
            total += share * cross_entropy(logits, y) + (1 - share) * cross_entropy(logits, other_y)
        return total / 3

    check(partial(Mixup, alpha=0.4), objective)


def test_domains_of_different_sizes():
    batch = {
        name: (x[: 3 + i], y[: 3 + i]) for i, (name, (x, y)) in enumerate(domain_batch().items())
    }
    assert Mixup(MLP((8,)), 3).objective(batch).isfinite()


def test_wrong_settings():
    with pytest.raises(ValueError, match="`alpha` must be positive, got 0"):
        Mixup(MLP((8,)), 3, alpha=0)
    with pytest.raises(MisconfigurationException, match="Mixup needs batches of at least 2"):
        Mixup(MLP((8,)), 3).objective({"art": domain_batch()["art"]})
