import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from gga_lightning.alignment.ascent import agreement_ascent
from gga_lightning.alignment.evaluator import DomainEvaluator
from gga_lightning.alignment.gradients import cosine_matrix, domain_gradients, gram_matrix
from tests.helpers import copies, same


class Once(torch.autograd.Function):
    """An operation that cannot be differentiated twice."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class Network(nn.Module):
    def __init__(self, once=False, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.featurizer = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 8), nn.Tanh())
        self.head = nn.Linear(8, 4)
        self.unused = nn.Parameter(torch.ones(3))
        self.once = once
        self.to(dtype)

    def forward(self, inputs):
        found = self.head(self.featurizer(inputs))
        return Once.apply(found) if self.once else found


def batches(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(n, 6, generator=generator, dtype=torch.float64).to(dtype),
            torch.randint(4, (n,), generator=generator),
        )
        for n in (8, 5, 12)
    ]


def losses(network):
    dtype = network.head.weight.dtype
    return [lambda x=x, y=y: functional.cross_entropy(network(x), y) for x, y in batches(dtype)]


def ascent(network, objective="min", moved=None, **settings):
    params = list(network.parameters())
    evaluator = DomainEvaluator(losses(network), params)
    return agreement_ascent(evaluator, params if moved is None else moved, objective, **settings)


def by_autograd(network, objective, moved):
    """The whole objective with one graph, left to autograd."""
    params = [param for name, param in network.named_parameters() if name != "unused"]
    flat = []
    for loss in losses(network):
        gradient = torch.autograd.grad(loss(), params, create_graph=True)
        flat.append(torch.cat([g.flatten() for g in gradient]))
    values = [functional.cosine_similarity(a, b, dim=0) for a, b in itertools.combinations(flat, 2)]
    value = min(values) if objective == "min" else sum(values) / len(values)
    return torch.autograd.grad(value, moved)


@pytest.mark.parametrize("objective", ["min", "mean"])
class TestDirection:
    def test_is_the_objectives_gradient(self, objective):
        network = Network()
        before, moved = copies(network), list(network.featurizer.parameters())
        found = ascent(network, objective, moved)
        for ours, theirs in zip(found, by_autograd(network, objective, moved), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)
        assert same(before, copies(network))

    def test_in_float32(self, objective):
        ours = torch.cat([p.flatten() for p in ascent(Network(dtype=torch.float32), objective)])
        network = Network()
        params = [param for name, param in network.named_parameters() if name != "unused"]
        exact = torch.cat([p.flatten() for p in by_autograd(network, objective, params)])
        assert functional.cosine_similarity(ours[3:].double(), exact, dim=0) > 0.9999

    def test_needs_no_double_backward(self, objective):
        plain, once = ascent(Network(), objective), ascent(Network(once=True), objective)
        assert same(plain, once)

    def test_orthogonal_to_every_domains_gradient(self, objective):
        network = Network()
        moved = list(network.featurizer.parameters())
        plain = ascent(network, objective, moved)
        found = ascent(network, objective, moved, orthogonal=True)
        gradients = domain_gradients([loss() for loss in losses(network)], moved)
        cosines = cosine_matrix(gram_matrix([found, *gradients]))
        assert cosines[0, 1:].abs().max() < 1e-9
        assert 0.1 < cosine_matrix(gram_matrix([found, plain]))[0, 1] < 1.0

    def test_scaled_losses_change_nothing(self, objective):
        network = Network()
        params = list(network.parameters())
        scaled = [
            lambda loss=loss, s=s: s * loss()
            for loss, s in zip(losses(network), (1, 5, 0.1), strict=True)
        ]
        ours = agreement_ascent(DomainEvaluator(scaled, params), params, objective)
        for one, other in zip(ours, ascent(network, objective), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_gradients_of_the_last_score_are_used_again():
    network, calls = Network(), []
    params = list(network.parameters())
    counted = [
        lambda i=i, loss=loss: calls.append(i) or loss() for i, loss in enumerate(losses(network))
    ]
    evaluator = DomainEvaluator(counted, params)
    evaluator.score("min")
    first = agreement_ascent(evaluator, params, "min")
    assert len(calls) == 3 + 2  # a score, and one more gradient for two domains
    with torch.no_grad():
        params[1].add_(0.1)
    moved = agreement_ascent(evaluator, params, "min")
    assert len(calls) == 3 + 2 + 3 + 2
    assert not same(first, moved)


def test_no_slope_where_a_gradient_is_zero():
    network = nn.Linear(3, 1, bias=False)
    inputs = torch.randn(4, 3)
    evaluator = DomainEvaluator(
        [lambda: network(inputs).mean(), lambda: (0.0 * network(inputs)).sum()],
        [network.weight],
    )
    for orthogonal in (False, True):
        found = agreement_ascent(evaluator, [network.weight], "min", orthogonal=orthogonal)
        assert found[0].tolist() == [[0.0, 0.0, 0.0]]


def test_parallel_gradients_can_be_projected_off():
    network = Network()
    x, y = batches()[0]
    params = list(network.parameters())
    evaluator = DomainEvaluator([lambda: functional.cross_entropy(network(x), y)] * 2, params)
    found = agreement_ascent(evaluator, params, "min", orthogonal=True)
    assert all(part.isfinite().all() for part in found)


def test_parameters_that_are_not_differentiated():
    network = Network()
    evaluator = DomainEvaluator(losses(network), list(network.featurizer.parameters()))
    with pytest.raises(ValueError, match="moves only parameters that gradients are taken for"):
        agreement_ascent(evaluator, list(network.parameters()), "min")


def test_an_error_of_the_loss_is_not_swallowed():
    network = Network()

    def fails():
        raise RuntimeError("mine")

    evaluator = DomainEvaluator([fails, fails], list(network.parameters()))
    with pytest.raises(RuntimeError, match="mine"):
        agreement_ascent(evaluator, list(network.parameters()), "min")
