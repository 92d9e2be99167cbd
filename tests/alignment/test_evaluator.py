import contextlib
import itertools
import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from gga_lightning.alignment.evaluator import DomainEvaluator


def setting(sizes=(8, 5, 12, 7)):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4)).double()
    data = [(torch.randn(n, 6, dtype=torch.float64), torch.randint(4, (n,))) for n in sizes]
    losses = [lambda x=x, y=y: functional.cross_entropy(network(x), y) for x, y in data]
    return network, losses, data


def evaluator(**settings):
    network, losses, data = setting()
    sizes = [len(y) for _, y in data]
    return DomainEvaluator(losses, list(network.parameters()), sizes=sizes, **settings)


class TestScore:
    def test_is_that_of_an_evaluation(self):
        found, score = evaluator().evaluate(), evaluator().score("min")
        pairs = [found.cosines[i, j].item() for i, j in itertools.combinations(range(4), 2)]
        assert score.loss == pytest.approx(found.loss.item())
        assert score.min_cosine == pytest.approx(min(pairs))
        assert score.mean_cosine == pytest.approx(sum(pairs) / 6)
        assert score.objective == score.min_cosine
        assert evaluator().score("mean").objective == pytest.approx(sum(pairs) / 6)

    def test_loss_is_that_of_the_joined_batch(self):
        network, _, data = setting()
        joined = (torch.cat(parts) for parts in zip(*data, strict=True))
        x, y = joined
        assert evaluator().score("min").loss == pytest.approx(
            functional.cross_entropy(network(x), y).item()
        )

    @pytest.mark.parametrize("margin", [-0.1, -1e-6, 1e-6, 0.1])
    @pytest.mark.parametrize("warm", [False, True])
    def test_a_bound_decides_as_the_whole_score_would(self, margin, warm):
        lowest = evaluator().score("min").objective
        found = evaluator()
        if warm:  # knows which pair is the lowest
            found.score("min")
        score = found.score("min", lowest + margin)
        assert (score is not None) == (margin < 0)

    def test_knowing_the_lowest_pair_two_domains_suffice(self):
        network, losses, _ = setting()
        calls = []
        counted = [lambda i=i, f=f: calls.append(i) or f() for i, f in enumerate(losses)]
        found = DomainEvaluator(counted, list(network.parameters()))
        lowest = found.score("min").objective
        calls.clear()
        assert found.score("min", lowest + 1e-9) is None
        assert len(calls) == 2
        assert found.score("mean", 2.0) is not None  # only the lowest can be broken off

    def test_not_a_number(self):
        network, losses, _ = setting()
        losses[1] = lambda: functional.cross_entropy(
            network(torch.full((2, 6), math.nan).double()), torch.zeros(2).long()
        )
        found = DomainEvaluator(losses, list(network.parameters()))
        score = found.score("min")
        assert not score.finite
        assert math.isnan(score.min_cosine)
        assert found.score("min", -1.5) is None


def test_loss_scale_changes_nothing():
    plain, scaled = evaluator().evaluate(), evaluator(loss_scale=2.0**10).evaluate()
    torch.testing.assert_close(plain.losses, scaled.losses)
    torch.testing.assert_close(plain.gradients, scaled.gradients)


def test_every_domain_is_surrounded():
    told = []

    class Surrounded(DomainEvaluator):
        @contextlib.contextmanager
        def around(self, index):
            told.append(("before", index))
            yield
            told.append(("after", index))

    param = nn.Parameter(torch.ones(1))
    Surrounded([lambda: (param**2).sum()] * 4, [param]).evaluate()
    assert told == [(when, index) for index in range(4) for when in ("before", "after")]


def test_float16_is_accumulated_in_float32():
    network = nn.Linear(3, 1).to(torch.bfloat16)
    inputs = torch.ones(2, 3, dtype=torch.bfloat16)
    found = DomainEvaluator([lambda: network(inputs).mean()] * 2, list(network.parameters()))
    assert found.evaluate().losses.dtype is torch.float32


def test_no_parameters():
    with pytest.raises(ValueError, match="`params` must hold at least one tensor, got none"):
        DomainEvaluator([], [])


@pytest.mark.slow
def test_float32_cosines_of_resnet18_are_those_of_float64():
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=7).eval()  # frozen BatchNorm, as DomainBed'
    batches = [(torch.randn(4, 3, 224, 224) + i, torch.randint(7, (4,))) for i in range(3)]

    def cosines(network, dtype):
        losses = [
            lambda x=x, y=y: functional.cross_entropy(network(x.to(dtype)), y) for x, y in batches
        ]
        return DomainEvaluator(losses, list(network.parameters())).evaluate().cosines

    single = cosines(network, torch.float32)
    double = cosines(network.double(), torch.float64)
    assert (single - double).abs().max() < 1e-4
    assert (single - double).abs().max() > 0
