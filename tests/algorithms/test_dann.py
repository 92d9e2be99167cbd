import math
from functools import partial

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import DANN
from gga_lightning.backbones import MLP
from tests.algorithms.literal import LR, check_update, descend, gradients
from tests.helpers import combined_loader, domain_batch, trainer

DANN3 = partial(DANN, num_domains=3, width=6)
D = torch.tensor([0] * 8 + [1] * 8 + [2] * 8)


def pooled(parts):
    return (torch.cat(values) for values in zip(*parts, strict=True))


def discriminator_loss(featurizer, discriminator, x, penalty=0.0):
    z = featurizer(x)
    logits = discriminator(z)
    total = cross_entropy(logits, D, reduction="sum")
    slope = torch.autograd.grad(total, z, create_graph=True)[0]
    return total / 24 + penalty * (slope**2).sum() / 24


@pytest.mark.parametrize(("ramp_steps", "planned"), [(None, 3), (2, 2), (0, 0)])
def test_three_updates_by_the_papers_formula(ramp_steps, planned):
    def update(featurizer, classifier, discriminator, parts, step):
        x, y = pooled(parts)
        progress = min(step / planned, 1) if planned else math.inf
        weight = 0.8 * (2 / (1 + math.exp(-10 * progress)) - 1)
        loss = cross_entropy(classifier(featurizer(x)), y)
        against = discriminator_loss(featurizer, discriminator, x)
        of_classifier = gradients(loss, [classifier])
        of_discriminator = gradients(against, [discriminator])
        loss = cross_entropy(classifier(featurizer(x)), y) - weight * discriminator_loss(
            featurizer, discriminator, x
        )
        descend([featurizer], gradients(loss, [featurizer]))
        descend([classifier], of_classifier)
        descend([discriminator], of_discriminator)

    make = partial(DANN3, adversary_weight=0.8, ramp_steps=ramp_steps)
    check_update(make, update, networks=["discriminator"])


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("discriminator_steps", [1, 2])
def test_the_suites_form(discriminator_steps, penalty):
    def update(featurizer, classifier, discriminator, parts, step):
        x, y = pooled(parts)
        against = discriminator_loss(featurizer, discriminator, x, penalty)
        if (step + 1) % (1 + discriminator_steps) < discriminator_steps:
            descend([discriminator], gradients(against, [discriminator]), lr=LR / 2)
        else:
            loss = cross_entropy(classifier(featurizer(x)), y) - 0.8 * against
            networks = featurizer, classifier
            descend(networks, gradients(loss, networks))

    make = partial(
        DANN3,
        adversary_weight=0.8,
        scheme="alternating",
        discriminator_steps=discriminator_steps,
        gradient_penalty=penalty,
        discriminator_optimizer={"lr": LR / 2},
    )
    check_update(make, update, networks=["discriminator"], steps=5)


def test_the_order_of_the_domains_in_a_batch_does_not_matter():
    module, batch = DANN3(MLP((8,)), 3, ramp_steps=0), domain_batch()
    torch.testing.assert_close(
        module.objective(batch), module.objective(dict(reversed(batch.items())))
    )


def test_another_number_of_domains():
    module = DANN(MLP((8,)), 3, num_domains=4)
    with pytest.raises(MisconfigurationException, match="`num_domains=4` domains, got .'art'"):
        trainer(limit_val_batches=0).fit(module, combined_loader(), [])


def test_no_last_step_to_rise_to():
    fit = trainer(max_steps=-1, max_epochs=-1, limit_val_batches=0)
    with pytest.raises(MisconfigurationException, match="`ramp_steps` must be given"):
        fit.fit(DANN3(MLP((8,)), 3), combined_loader(), [])


@pytest.mark.parametrize(
    "settings",
    [
        {"num_domains": 1},
        {"adversary_weight": -1},
        {"discriminator_steps": 0},
        {"gradient_penalty": -1},
        {"depth": 1},
        {"scheme": "both"},
    ],
)
def test_wrong_settings(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"`{name}` must be .* got {value!r}"):
        DANN3(MLP((8,)), 3, **settings)
