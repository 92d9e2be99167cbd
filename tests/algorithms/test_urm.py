from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import URM
from gga_lightning.backbones import MLP
from tests.algorithms.literal import LR, check_update, descend, gradients
from tests.helpers import domain_batch


def binary(logits, target):
    """-log of the probability of the target, from the logistic function's definition."""
    probability = 1 / (1 + torch.exp(-logits))
    return -torch.log(probability if target else 1 - probability).mean()


@pytest.mark.parametrize(("activation", "hidden_layers"), [("tanh", 1), ("relu", 0)])
def test_three_updates_by_two_steps(activation, hidden_layers):
    def update(featurizer, classifier, discriminator, parts, step):
        x, y = (torch.cat(values) for values in zip(*parts, strict=True))
        z = featurizer(x).tanh() if activation == "tanh" else featurizer(x).relu()
        u = torch.rand(z.shape, dtype=z.dtype)
        u = 2 * u - 1 if activation == "tanh" else u
        loss = cross_entropy(classifier(z), y) + 0.7 * binary(discriminator(z), 1)
        networks = featurizer, classifier
        descend(networks, gradients(loss, networks))
        old = z.detach()
        against = binary(discriminator(u), 1) + 0.7 * binary(discriminator(old), 0)
        descend([discriminator], gradients(against, [discriminator]), lr=LR / 2)

    make = partial(
        URM,
        adversary_weight=0.7,
        activation=activation,
        hidden_layers=hidden_layers,
        discriminator_optimizer={"lr": LR / 2},
    )
    check_update(make, update, networks=["discriminator"])


@pytest.mark.parametrize("hidden_layers", [0, 2])
def test_the_discriminator_has_the_layers_of_the_source(hidden_layers):
    module = URM(MLP((8,)), 3, hidden_layers=hidden_layers)
    kinds = [nn.Linear, nn.LeakyReLU] * (1 + hidden_layers) + [nn.Linear]
    assert [type(layer) for layer in module.discriminator] == kinds
    sizes = [module.featurizer.out_features, *[100] * (1 + hidden_layers), 1]
    found = [tuple(param.shape) for param in module.discriminator.parameters() if param.ndim == 2]
    assert found == list(zip(sizes[1:], sizes[:-1], strict=True))


def test_noise_is_not_rounded_under_mixed_precision():
    module, kinds = URM(MLP((8,)), 3), []
    module.discriminator.register_forward_pre_hook(lambda _, seen: kinds.append(seen[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        module.objective(domain_batch())
    assert kinds == [torch.bfloat16, torch.float32, torch.bfloat16]  # features, noise, features


def test_predictions_go_through_the_activation():
    module, (x, y) = URM(MLP((8,)), 3), domain_batch()["art"]
    expected = module.classifier(module.featurizer(x).tanh())
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module.domain_loss((x, y)), cross_entropy(expected, y))


def test_no_weight_leaves_the_network_alone():
    module = URM(MLP((8,)), 3, adversary_weight=0.0)
    batch = domain_batch()
    inside = list(module.featurizer.parameters())
    found = torch.autograd.grad(module.objective(batch), inside)
    expected = torch.autograd.grad(module.domain_losses(batch).mean(), inside)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"adversary_weight": -1}, "not be negative, got -1"),
        ({"hidden_layers": -1}, "not be negative, got -1"),
        ({"activation": "sigmoid"}, "be 'tanh' or 'relu', got 'sigmoid'"),
    ],
)
def test_wrong_settings(settings, rule):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must {rule}"):
        URM(MLP((8,)), 3, **settings)
