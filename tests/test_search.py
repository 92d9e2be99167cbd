import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from gga_lightning.gradients import cosine_matrix, domain_gradients, gram_matrix
from gga_lightning.proposals import Ball, Proposal, Walk
from gga_lightning.search import Greedy, Score, annealing_search
from tests import paper
from tests.helpers import copies, same


def mlp():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)), (6,)


def cnn():
    layers = [nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(nn.Sequential(*layers), nn.Linear(16, 4)), (1, 6, 6)


def frozen_batchnorm_net():
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))
    network[1].running_mean.normal_()
    return network.eval(), (6,)


MODELS = [mlp, cnn, frozen_batchnorm_net]


def setting(make, seed, sizes=(8, 8, 8), dtype=torch.float64):
    """A network, its batches, and a function that evaluates it for the search."""
    torch.manual_seed(seed)
    network, shape = make()
    network.to(dtype)
    batches = [(torch.randn(n, *shape, dtype=dtype), torch.randint(4, (n,))) for n in sizes]
    return network, batches, evaluator(network, batches)


def evaluator(network, batches):
    sizes = torch.tensor([len(targets) for _, targets in batches]).double()

    def evaluate():
        losses = [functional.cross_entropy(network(x), y) for x, y in batches]
        gradients = domain_gradients(losses, list(network.parameters()))
        loss = (torch.stack(losses).double() * sizes / sizes.sum()).sum()
        return loss.detach(), cosine_matrix(gram_matrix(gradients))

    return evaluate


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Recorded(Walk):
    """A walk that keeps a copy of what it draws."""

    def __init__(self, radius):
        super().__init__(radius)
        object.__setattr__(self, "drawn", [])

    def noise(self, param, radius, generator):
        noise = super().noise(param, radius, generator)
        self.drawn.append(noise.clone())
        return noise


class TestLikeThePapersCode:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize("make", MODELS)
    @pytest.mark.parametrize("sizes", [(8, 8, 8), (5, 12, 9, 3)])
    def test_same_decisions_and_same_end(self, make, seed, sizes):
        network, batches, evaluate = setting(make, seed, sizes)
        moved = list(network[0].parameters())  # the featurizer's first part
        before = copies(network)
        proposal = Recorded(0.003)
        result = annealing_search(
            moved,
            evaluate,
            proposal=proposal,
            num_candidates=250,
            acceptance=Greedy(0.1),
            generator=generator(seed),
        )
        ours = copies(network)
        for param, value in zip(network.parameters(), before, strict=True):
            param.data.copy_(value)
        per_candidate = len(moved)
        noises = [
            proposal.drawn[i : i + per_candidate]
            for i in range(0, 250 * per_candidate, per_candidate)
        ]
        assert paper.search(network, moved, batches, noises) == result.accepted
        assert len(result.accepted) > 1
        assert same(ours, copies(network))

    def test_same_decisions_in_float32_at_the_papers_radius(self):
        network, batches, evaluate = setting(mlp, 0, dtype=torch.float32)
        before, proposal, moved = copies(network), Recorded(1e-5), list(network.parameters())
        result = annealing_search(
            moved, evaluate, proposal=proposal, num_candidates=250, generator=generator()
        )
        ours = copies(network)
        for param, value in zip(network.parameters(), before, strict=True):
            param.data.copy_(value)
        noises = [proposal.drawn[i : i + 4] for i in range(0, 1000, 4)]
        assert paper.search(network, moved, batches, noises) == result.accepted
        assert same(ours, copies(network))


@pytest.mark.parametrize("proposal", [Walk(0.02), Ball(0.02), Ball(0.1, relative=True)])
@pytest.mark.parametrize("objective", ["min", "mean"])
class TestEverySearch:
    def run(self, proposal, objective, permute=(0, 1, 2), scale=1.0, seed=3, **settings):
        network, batches, _ = setting(mlp, 1)
        batches = [batches[i] for i in permute]
        inner = evaluator(network, batches)
        settings = {"num_candidates": 60, "generator": generator(seed), **settings}
        result = annealing_search(
            network.parameters(),
            lambda: (scale * inner()[0], inner()[1]),
            proposal=proposal,
            objective=objective,
            **settings,
        )
        loss, cosines = inner()
        return network, result, float(loss), cosines

    def test_ends_where_it_says(self, proposal, objective):
        _, result, loss, cosines = self.run(proposal, objective)
        off_diagonal = cosines[torch.triu(torch.ones(3, 3), 1).bool()]
        assert result.end.loss == pytest.approx(loss, abs=1e-12)
        assert result.end.min_cosine == pytest.approx(off_diagonal.min().item(), abs=1e-12)
        assert result.end.mean_cosine == pytest.approx(off_diagonal.mean().item(), abs=1e-12)

    def test_gains_and_keeps_the_loss(self, proposal, objective):
        settings = {"acceptance": Greedy(0.01, reference="start")}
        _, result, *_ = self.run(proposal, objective, **settings)
        assert result.gain > 0
        assert result.end.objective == max(
            [result.start.objective] + [result.scores[i].objective for i in result.accepted]
        )
        assert all(result.scores[i].loss - result.start.loss < 0.01 for i in result.accepted)
        assert result.loss_change < 0.01

    def test_only_better_candidates_are_accepted(self, proposal, objective):
        _, result, *_ = self.run(proposal, objective)
        values = [result.start.objective] + [result.scores[i].objective for i in result.accepted]
        assert values == sorted(set(values))

    def test_same_seed_same_end(self, proposal, objective):
        first, second, other = (self.run(proposal, objective, seed=s)[0] for s in (3, 3, 4))
        assert same(copies(first), copies(second))
        assert not same(copies(first), copies(other))

    def test_permuted_domains_change_nothing(self, proposal, objective):
        plain = self.run(proposal, objective)[1]
        permuted = self.run(proposal, objective, permute=(2, 0, 1))[1]
        assert plain.accepted == permuted.accepted

    def test_scaled_losses_change_nothing(self, proposal, objective):
        plain = self.run(proposal, objective)[1]
        acceptance = Greedy(loss_tolerance=0.1 * 7)
        scaled = self.run(proposal, objective, scale=7.0, acceptance=acceptance)[1]
        assert plain.accepted == scaled.accepted

    def test_nothing_accepted_leaves_every_bit(self, proposal, objective):
        network, _, evaluate = setting(mlp, 1)
        before = copies(network)
        result = annealing_search(
            network.parameters(),
            evaluate,
            proposal=proposal,
            num_candidates=5,
            objective=objective,
            acceptance=lambda *_: False,
        )
        assert same(before, copies(network))
        assert result.accepted == []
        assert result.end == result.start
        assert len(result.scores) == 5

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_error_ends_at_the_best_so_far(self, proposal, objective, error):
        network, _, evaluate = setting(mlp, 1)
        calls, best = [], []

        def failing():
            calls.append(None)
            if len(calls) == 40:
                raise error
            return evaluate()

        with pytest.raises(error):
            annealing_search(
                network.parameters(),
                failing,
                proposal=proposal,
                num_candidates=60,
                objective=objective,
                generator=generator(3),
                on_candidate=lambda _, score: best.append(score),
            )
        loss, cosines = evaluate()
        off_diagonal = cosines[torch.triu(torch.ones(3, 3), 1).bool()]
        value = off_diagonal.min() if objective == "min" else off_diagonal.mean()
        assert value.item() == pytest.approx(best[-1].objective, abs=1e-12)


class TestPositions:
    """Where candidates lie, seen by an evaluation that only looks."""

    class Constant(Proposal):
        """Moves by one, so that a point tells how many moves led to it."""

        def noise(self, param, radius, generator):
            return torch.ones_like(param)

    def visited(self, origin, accept):
        param = torch.zeros(1)
        seen = []

        def evaluate():
            seen.append(param.item())
            value = math.tanh(0.01 * len(seen))  # ever better
            return torch.tensor(0.0), torch.tensor([[1.0, value], [value, 1.0]])

        proposal = type("One", (self.Constant,), {"origin": origin})(1.0)
        decisions = iter(accept)
        annealing_search(
            [param],
            evaluate,
            proposal=proposal,
            num_candidates=len(accept),
            acceptance=lambda *_: next(decisions),
        )
        return seen[1:], param.item()

    def test_walk_goes_back_to_the_start_after_an_accept(self):
        assert self.visited("last", [0, 0, 1, 0, 0]) == ([1, 2, 3, 1, 2], 3)

    def test_ball_stays_around_the_start(self):
        assert self.visited("start", [0, 1, 0, 0]) == ([1, 1, 1, 1], 1)

    def test_climb_goes_on_from_the_accepted(self):
        assert self.visited("accepted", [0, 1, 0, 1, 0]) == ([1, 1, 2, 2, 3], 2)


class TestGreedy:
    START, BEST = Score(1.0, 0.1, 0.1, 0.1), Score(1.05, 0.2, 0.2, 0.2)

    @pytest.mark.parametrize(
        ("loss", "objective", "best", "start"),
        [
            (1.0, 0.3, True, True),
            (1.0, 0.2, False, False),  # no better
            (1.12, 0.3, True, False),  # within the tolerance of the last accept, not of the start
            (1.2, 0.3, False, False),
        ],
    )
    def test_references(self, loss, objective, best, start):
        candidate = Score(loss, objective, objective, objective)
        assert Greedy(0.1)(candidate, self.BEST, self.START) is best
        assert Greedy(0.1, "start")(candidate, self.BEST, self.START) is start

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="`loss_tolerance` must be a number, got nan"):
            Greedy(math.nan)
        with pytest.raises(ValueError, match="`reference` must be 'best' or 'start', got 'last'"):
            Greedy(reference="last")


class TestNotFinite:
    def search(self, values):
        param, values = torch.zeros(2), iter(values)
        result = annealing_search(
            [param],
            lambda: next(values),
            proposal=Ball(1.0),
            num_candidates=3,
            acceptance=lambda *_: True,
        )
        return param, result

    @staticmethod
    def point(loss, cosine):
        return torch.tensor(loss), torch.tensor([[1.0, cosine], [cosine, 1.0]])

    @pytest.mark.parametrize(
        "bad", [(math.nan, 0.5), (math.inf, 0.5), (-math.inf, 0.5), (0.0, math.nan)]
    )
    def test_candidates_are_never_taken(self, bad):
        param, result = self.search([self.point(1.0, 0.1)] + 3 * [self.point(*bad)])
        assert result.accepted == []
        assert param.tolist() == [0.0, 0.0]

    def test_start_ends_the_search(self):
        param, result = self.search([self.point(math.nan, 0.1)])
        assert not result.start.finite
        assert result.scores == []


class TestWrongArguments:
    def search(self, params=None, **settings):
        settings = {"proposal": Ball(1.0), "num_candidates": 1, **settings}
        annealing_search([torch.zeros(1)] if params is None else params, lambda: 1 / 0, **settings)

    def test_no_parameters(self):
        with pytest.raises(ValueError, match=r"`params` must be one or more .* got \[\]"):
            self.search([])

    def test_integer_parameters(self):
        with pytest.raises(ValueError, match="`params` .* got .'torch.int64'."):
            self.search([torch.arange(3)])

    def test_candidates(self):
        with pytest.raises(ValueError, match="`num_candidates` must not be negative, got -1"):
            self.search(num_candidates=-1)

    def test_objective(self):
        with pytest.raises(ValueError, match="`objective` must be 'min' or 'mean', got 'max'"):
            self.search(objective="max")


def test_default_generator_is_the_global_one():
    ends = []
    for _ in range(2):
        torch.manual_seed(5)
        network, _, evaluate = setting(mlp, 1)
        annealing_search(network.parameters(), evaluate, proposal=Ball(0.05), num_candidates=10)
        ends.append(copies(network))
    assert same(*ends)
