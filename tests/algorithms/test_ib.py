from functools import partial

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import IBERM, IBIRM
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import combined_loader, domain_batch, trainer


def variance(outputs):
    """The mean over outputs of their variance over samples, by explicit sums."""
    total = 0
    for column in outputs.T:
        mean = sum(column) / len(column)
        total = total + sum((value - mean) ** 2 for value in column) / (len(column) - 1)
    return total / outputs.shape[1]


def slope(logits, y):
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(cross_entropy(scale * logits, y), scale, create_graph=True)[0]


@pytest.mark.parametrize("of", ["features", "logits"])
@pytest.mark.parametrize("anneal_steps", [0, 1, 10])
def test_three_updates_of_ib_erm_by_the_formula(anneal_steps, of):
    def objective(featurizer, classifier, parts, step):
        loss = penalty = 0
        for x, y in parts:
            z = featurizer(x)
            loss = loss + cross_entropy(classifier(z), y) / 3
            penalty = penalty + variance(z if of == "features" else classifier(z)) / 3
        return loss + (2.0 if step >= anneal_steps else 0.0) * penalty

    check(partial(IBERM, penalty_weight=2.0, anneal_steps=anneal_steps, of=of), objective)


@pytest.mark.parametrize(("ib_steps", "irm_steps"), [(0, 0), (1, 2), (2, 1), (10, 10)])
def test_three_updates_of_ib_irm_by_the_formula(ib_steps, irm_steps):
    def objective(featurizer, classifier, parts, step):
        loss = 0
        for x, y in parts:
            z = featurizer(x)
            logits = classifier(z)
            penalty = slope(logits[::2], y[::2]) * slope(logits[1::2], y[1::2])
            own = cross_entropy(logits, y) + (5.0 if step >= irm_steps else 1.0) * penalty
            own = own + (2.0 if step >= ib_steps else 0.0) * variance(z)
            loss = loss + own / 3
        return loss

    weights = {"penalty_weight": 2.0, "irm_weight": 5.0}
    steps = {"anneal_steps": ib_steps, "irm_anneal_steps": irm_steps}
    check(partial(IBIRM, **weights, **steps), objective)


def test_the_state_is_cleared_at_both_steps():
    module = IBIRM(MLP((8,)), 3, anneal_steps=3, irm_anneal_steps=5)
    seen = []
    step = module.training_step

    def watched(batch, batch_idx):
        seen.append(not fit.optimizers[0].state)
        return step(batch, batch_idx)

    module.training_step = watched
    fit = trainer(max_steps=6, limit_val_batches=0)
    fit.fit(module, combined_loader(), [])
    assert [index for index, empty in enumerate(seen) if empty] == [0, 3, 5]


def test_the_penalty_grows_with_the_square_of_the_features():
    def penalty(factor):
        module = IBERM(Scaled(factor), 3, penalty_weight=1.0, anneal_steps=0)
        batch = domain_batch()
        return module.objective(batch) - module.domain_losses(batch).mean()

    torch.testing.assert_close(penalty(3.0), 9 * penalty(1.0))


def test_features_that_are_constant_within_domains_have_no_penalty():
    module, batch = IBERM(Scaled(1.0), 3, anneal_steps=0), domain_batch()
    constant = {name: (x[:1].expand_as(x), y) for name, (x, y) in batch.items()}
    assert module.objective(constant) == module.domain_losses(constant).mean()


class Scaled(torch.nn.Module):
    out_features = 8

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, inputs):
        return self.factor * inputs


@pytest.mark.parametrize("kind", [IBERM, IBIRM])
def test_needs_two_samples(kind):
    with pytest.raises(MisconfigurationException, match=f"{kind.__name__} needs .* at least 2 sam"):
        kind(MLP((8,)), 3).objective(domain_batch(size=1))


@pytest.mark.parametrize(
    "name", ["penalty_weight", "anneal_steps", "irm_weight", "irm_anneal_steps"]
)
def test_negative_settings(name):
    with pytest.raises(ValueError, match=f"`{name}` must not be negative, got -1."):
        IBIRM(MLP((8,)), 3, **{name: -1})


def test_of():
    with pytest.raises(ValueError, match="`of` must be 'features' or 'logits', got 'inputs'"):
        IBERM(MLP((8,)), 3, of="inputs")
