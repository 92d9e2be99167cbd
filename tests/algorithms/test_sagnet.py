from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import SagNet
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check_update, descend, gradients
from tests.helpers import combined_loader, trainer


class Normalized(nn.Sequential):
    out_features = 16

    def __init__(self):
        super().__init__(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU())


def draw():
    return torch.rand(24, 1).double(), torch.randperm(24)


def standardized(z):
    mean, variance = z.mean(1, keepdim=True), z.var(1, keepdim=True)
    return (z - mean) / (variance + 1e-5) ** 0.5, mean, variance


@pytest.mark.parametrize("adversary", ["featurizer", "normalization"])
def test_three_updates_by_the_papers_algorithm(adversary):
    def update(featurizer, classifier, styler, parts, step):
        x, y = (torch.cat(values) for values in zip(*parts, strict=True))
        share, other = draw()
        content, mean, variance = standardized(featurizer(x))
        mean = share * mean + (1 - share) * mean[other]
        variance = share * variance + (1 - share) * variance[other]
        logits = classifier(content * (variance + 1e-5) ** 0.5 + mean)
        networks = featurizer, classifier
        descend(networks, gradients(cross_entropy(logits, y), networks))

        def style_logits():
            _, other = draw()
            content, mean, variance = standardized(featurizer(x))
            return styler(content[other].detach() * (variance + 1e-5) ** 0.5 + mean)

        descend([styler], gradients(cross_entropy(style_logits(), y), [styler]))
        loss = -style_logits().log_softmax(1).mean(1).mean()
        moved = [featurizer] if adversary == "featurizer" else [featurizer[1]]
        descend(moved, [0.7 * g for g in gradients(loss, moved)])

    make = partial(SagNet, adversary_weight=0.7, adversary=adversary)
    check_update(make, update, featurizer=Normalized(), networks=["style_classifier"])


def test_three_steps_count_once_and_each_has_its_own_state():
    module = SagNet(MLP((8,)), 3)
    fit = trainer(max_steps=4, limit_val_batches=0)
    fit.fit(module, combined_loader(), [])
    assert fit.global_step == 4
    state = fit.optimizers[0].state
    counts = {
        name: {int(state[param]["step"]) for param in part.parameters()}
        for name, part in module.named_children()
    }
    assert counts == {"featurizer": {8}, "classifier": {4}, "style_classifier": {4}}


def test_wrong_settings():
    with pytest.raises(ValueError, match="`adversary_weight` must not be negative, got -1"):
        SagNet(MLP((8,)), 3, adversary_weight=-1)
    with pytest.raises(ValueError, match="`adversary` must be .* got 'all'"):
        SagNet(MLP((8,)), 3, adversary="all")
    with pytest.raises(ValueError, match=r"without normalization layers \(MLP\)"):
        SagNet(MLP((8,)), 3, adversary="normalization")
