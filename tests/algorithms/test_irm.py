from functools import partial

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import IRM
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import domain_batch


@pytest.mark.parametrize("anneal_steps", [0, 1, 10])
def test_three_updates_by_the_papers_formula(anneal_steps):
    def slope(logits, y):
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(cross_entropy(scale * logits, y), scale, create_graph=True)[0]

    def objective(featurizer, classifier, parts, step):
        loss = penalty = 0
        for x, y in parts:
            logits = classifier(featurizer(x))
            loss = loss + cross_entropy(logits, y) / 3
            penalty = penalty + slope(logits[::2], y[::2]) * slope(logits[1::2], y[1::2]) / 3
        return loss + (5.0 if step >= anneal_steps else 1.0) * penalty

    check(partial(IRM, penalty_weight=5.0, anneal_steps=anneal_steps), objective)


def test_needs_two_samples():
    with pytest.raises(MisconfigurationException, match="IRM needs .* at least 2 samples"):
        IRM(MLP((8,)), 3).objective(domain_batch(size=1))
