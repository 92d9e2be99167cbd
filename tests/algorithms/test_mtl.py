from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import MTL
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import domain_batch


def test_three_updates_by_the_formula():
    averages = [None, None, None]

    def objective(featurizer, classifier, parts, step):
        total = 0
        for index, (x, y) in enumerate(parts):
            z = featurizer(x)
            old = z.mean(0).detach() if averages[index] is None else averages[index]
            embedding = 0.9 * old + 0.1 * z.mean(0)
            averages[index] = embedding.detach()
            logits = classifier(torch.cat([z, embedding.repeat(len(z), 1)], 1))
            total = total + cross_entropy(logits, y) / 3
        return total

    module = check(partial(MTL, ema=0.9), objective)
    for ours, expected in zip(module.averages.values(), averages, strict=True):
        torch.testing.assert_close(ours, expected)


def test_the_suites_noise():
    def objective(featurizer, classifier, parts, step):
        total = 0
        for x, y in parts:
            z = featurizer(x)
            total = total + cross_entropy(classifier(torch.cat([z, torch.randn_like(z)], 1)), y) / 3
        return total

    check(partial(MTL, embedding="noise"), objective)


def test_evaluation_takes_the_batchs_mean_and_keeps_nothing():
    module, batch = MTL(MLP((8,)), 3), domain_batch()
    module.objective(batch)
    before = {name: average.clone() for name, average in module.averages.items()}
    x, y = batch["art"]
    x = x + 1  # other than what the averages have seen
    z = module.featurizer(x)
    logits = module.classifier(torch.cat([z, z.mean(0).repeat(8, 1)], 1))
    torch.testing.assert_close(module.domain_loss((x, y)), cross_entropy(logits, y))
    assert all(torch.equal(before[name], module.averages[name]) for name in before)


@pytest.mark.parametrize("settings", [{"ema": 1.0}, {"embedding": "none"}])
def test_wrong_settings(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` must be .* got {settings[name]!r}"):
        MTL(MLP((8,)), 3, **settings)
