import math
from functools import partial

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import EQRM, RDM
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import combined_loader, domain_batch, trainer


def kernel(a, b):
    scales = [10.0**power for power in range(-4, 4)]
    pairs = [(x - y) ** 2 for x in a for y in b]
    return sum(sum(torch.exp(-g * square) for square in pairs) for g in scales) / len(pairs)


def variance(values):
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


@pytest.mark.parametrize("anneal_steps", [0, 1, 10])
def test_three_updates_by_the_papers_formula(anneal_steps):
    def objective(featurizer, classifier, parts, step):
        losses = []
        for x, y in parts:
            logits = classifier(featurizer(x))
            losses.append([cross_entropy(z[None], c[None]) for z, c in zip(logits, y, strict=True)])
        means = [sum(own) / len(own) for own in losses]
        loss = sum(means) / 3
        if step < anneal_steps:
            return loss
        worst = losses[max(range(3), key=lambda index: means[index].item())]
        everyone = [value for own in losses for value in own]
        discrepancy = (
            kernel(worst, worst) + kernel(everyone, everyone) - 2 * kernel(worst, everyone)
        )
        return loss + 0.7 * discrepancy + 0.3 * (variance(worst) + variance(everyone))

    make = partial(RDM, penalty_weight=0.7, variance_weight=0.3, anneal_steps=anneal_steps)
    check(make, objective)


def test_equal_losses_have_no_penalty():
    module = RDM(MLP((8,)), 3, anneal_steps=0)
    torch.nn.init.zeros_(module.classifier.weight)
    torch.nn.init.zeros_(module.classifier.bias)
    torch.testing.assert_close(module.objective(domain_batch()).item(), math.log(3))


def test_domains_of_unequal_size():
    module, batch = RDM(MLP((8,)), 3, anneal_steps=0), domain_batch()
    batch["art"] = tuple(part[:3] for part in batch["art"])
    assert module.objective(batch) > module.domain_losses(batch).mean()


@pytest.mark.parametrize("kind", [RDM, EQRM])
@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_the_learning_rate_afterwards(kind, factor):
    featurizer = MLP((8,))
    featurizer.lr_factor = factor
    name = "burnin_steps" if kind is EQRM else "anneal_steps"
    module = kind(featurizer, 3, lr_after=1e-4, **{name: 2})
    rates = []
    step = module.training_step

    def watched(batch, batch_idx):
        rates.append([group["lr"] for group in fit.optimizers[0].param_groups])
        return step(batch, batch_idx)

    module.training_step = watched
    fit = trainer(max_steps=4, limit_val_batches=0)
    fit.fit(module, combined_loader(), [])
    before = [1e-3] if factor == 1 else [1e-4, 1e-3]
    after = [1e-4] if factor == 1 else [1e-5, 1e-4]
    assert rates == [pytest.approx(before)] * 2 + [pytest.approx(after)] * 2


@pytest.mark.parametrize("batch", [domain_batch(size=1), {"art": domain_batch()["art"]}])
def test_needs_two_domains_of_two_samples(batch):
    with pytest.raises(MisconfigurationException, match="RDM needs batches of at least 2 domains"):
        RDM(MLP((8,)), 3).objective(batch)


@pytest.mark.parametrize("name", ["penalty_weight", "variance_weight", "anneal_steps"])
def test_negative_settings(name):
    with pytest.raises(ValueError, match=f"`{name}` must not be negative, got -1."):
        RDM(MLP((8,)), 3, **{name: -1})


def test_lr_after():
    with pytest.raises(ValueError, match="`lr_after` must be positive, got 0"):
        RDM(MLP((8,)), 3, lr_after=0.0)
