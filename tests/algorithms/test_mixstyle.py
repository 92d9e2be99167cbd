from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import MixStyle
from gga_lightning.backbones import MLP, MNISTCNN, TorchvisionFeaturizer
from tests.algorithms.literal import check
from tests.helpers import domain_batch, domain_data


class Small(nn.Sequential):
    """Two convolutions, style mixed after the first."""

    out_features = 5
    stages = ("0", "1")

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )


def images():
    return {name: (x.view(-1, 1, 6, 6), y) for name, (x, y) in domain_data(features=36).items()}


def mixed(maps, share, other):
    mu = maps.mean((2, 3), keepdim=True).detach()
    sigma = (maps.var((2, 3), keepdim=True) + 1e-6).sqrt().detach()
    share = share.view(-1, 1, 1, 1)
    new_mu = share * mu + (1 - share) * mu[other]
    new_sigma = share * sigma + (1 - share) * sigma[other]
    return (maps - mu) / sigma * new_sigma + new_mu


@pytest.mark.parametrize("pairs", ["random", "domains"])
def test_three_updates_by_the_papers_formula(pairs):
    decisions = []

    def others():
        if pairs == "random":
            return torch.randperm(24)
        found = torch.empty(24, dtype=torch.long)
        a, b, c = torch.randperm(3).tolist()
        for domain, following in ((a, b), (b, c), (c, a)):
            found[8 * domain : 8 * domain + 8] = 8 * following + torch.randperm(8)
        return found

    def objective(featurizer, classifier, parts, step):
        x, y = (torch.cat(values) for values in zip(*parts, strict=True))
        first, second, *rest = featurizer
        maps = first(x)
        decisions.append(torch.rand(()).item() < 0.15)
        if decisions[-1]:
            share = torch.distributions.Beta(0.3, 0.3).sample((24,)).double()
            maps = mixed(maps, share, others())
        maps = second(maps)
        for layer in rest:
            maps = layer(maps)
        return cross_entropy(classifier(maps), y)

    make = partial(MixStyle, alpha=0.3, probability=0.15, pairs=pairs)
    check(make, objective, data=images(), featurizer=Small())
    assert set(decisions) == {True, False}


def test_only_the_objective_mixes():
    module = MixStyle(Small(), 3, probability=1.0)
    batch = domain_batch(images())
    x, y = batch["art"]
    plain = module.featurizer(x)
    assert torch.equal(plain, module.featurizer(x))
    assert torch.equal(module.domain_loss((x, y)), cross_entropy(module.classifier(plain), y))
    assert not torch.equal(module.objective(batch), module.objective(batch))
    assert torch.equal(plain, module.featurizer(x))


def test_domains_of_different_sizes():
    module = MixStyle(Small(), 3, probability=1.0, pairs="domains")
    module._sizes = [2, 5, 3]
    domains = torch.tensor([0] * 2 + [1] * 5 + [2] * 3)
    for _ in range(10):
        assert (domains[module._others()] != domains).all()


@pytest.mark.parametrize(
    ("featurizer", "count"),
    [
        (MLP((8,)), 1),
        (MLP((8,), (4, 4, 4)), 2),
        (MNISTCNN((1, 8, 8)), 3),
        (TorchvisionFeaturizer("resnet18"), 3),
    ],
)
def test_default_layers(featurizer, count):
    module = MixStyle(featurizer, 3)
    hooked = [name for name, layer in module.featurizer.named_modules() if layer._forward_hooks]
    assert len(hooked) == count
    if isinstance(featurizer, TorchvisionFeaturizer):
        assert hooked == ["network.layer1", "network.layer2", "network.layer3"]


def test_unknown_layers():
    with pytest.raises(ValueError, match=r"`layers` must name .* got \['layer9'\]"):
        MixStyle(Small(), 3, layers=["layer9"])
    with pytest.raises(ValueError, match=r"`layers` must name .* \(TorchvisionFeaturizer\)"):
        MixStyle(TorchvisionFeaturizer("mobilenet_v3_small"), 3)


@pytest.mark.parametrize("settings", [{"alpha": 0}, {"probability": 1.5}, {"pairs": "all"}])
def test_wrong_settings(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` must be .* got {settings[name]!r}"):
        MixStyle(Small(), 3, **settings)
