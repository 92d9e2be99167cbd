from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import Fishr
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import domain_batch


def variance(featurizer, classifier, x, y):
    """Over the samples' own gradients in the classifier, one backward pass each."""
    found = []
    for z, target in zip(featurizer(x), y, strict=True):
        loss = cross_entropy(classifier(z[None]), target[None])
        own = torch.autograd.grad(loss, classifier.parameters(), create_graph=True)
        found.append(torch.cat([part.flatten() for part in own]))
    return torch.stack(found).var(0, correction=0)


@pytest.mark.parametrize("anneal_steps", [0, 1])
def test_three_updates_by_the_papers_formula(anneal_steps):
    averages = [0.0, 0.0, 0.0]

    def objective(featurizer, classifier, parts, step):
        corrected = []
        for index, part in enumerate(parts):
            averages[index] = 0.8 * averages[index] + 0.2 * variance(featurizer, classifier, *part)
            corrected.append(averages[index] / 0.2)
            averages[index] = averages[index].detach()
        mean = sum(corrected) / 3
        penalty = sum(((own - mean) ** 2).mean() for own in corrected) / 3
        x, y = (torch.cat(values) for values in zip(*parts, strict=True))
        weight = 50.0 if step >= anneal_steps else 0.0
        return cross_entropy(classifier(featurizer(x)), y) + weight * penalty

    module = check(
        partial(Fishr, penalty_weight=50.0, anneal_steps=anneal_steps, ema=0.8), objective
    )
    for ours, expected in zip(module.averages.values(), averages, strict=True):
        torch.testing.assert_close(ours.sort().values, expected.sort().values)


def test_averages_are_in_the_state_dict():
    module, batch = Fishr(MLP((8,)), 3, anneal_steps=0), domain_batch()
    module.objective(batch)
    fresh = Fishr(MLP((8,)), 3, anneal_steps=0)
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(module.objective(batch), fresh.objective(batch))


def test_ema():
    with pytest.raises(ValueError, match=r"`ema` must be in \[0, 1\), got 1"):
        Fishr(MLP((8,)), 3, ema=1)
