import functools
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from gga_lightning.alignment import proposals
from gga_lightning.alignment.acceptance import Greedy, Metropolis
from gga_lightning.alignment.evaluator import DomainEvaluator
from gga_lightning.alignment.gradients import cosine_matrix, domain_gradients, gram_matrix
from gga_lightning.alignment.place import uniform_noise
from gga_lightning.alignment.proposals import Ball, Climb, Guided, Walk
from gga_lightning.alignment.search import annealing_search
from tests.alignment import paper
from tests.helpers import Decisions, copies, mostly_slow, same


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
    """A network and the batches of its domains."""
    torch.manual_seed(seed)
    network, shape = make()
    network.to(dtype)
    batches = [(torch.randn(n, *shape, dtype=dtype), torch.randint(4, (n,))) for n in sizes]
    return network, batches


def losses(network, batches, scale=1.0):
    return [lambda x=x, y=y: scale * functional.cross_entropy(network(x), y) for x, y in batches]


def evaluator(network, batches, scale=1.0, **settings):
    """What the callbacks search with: breaks off evaluations that cannot be accepted."""
    sizes = [len(targets) for _, targets in batches]
    params = list(network.parameters())
    return DomainEvaluator(losses(network, batches, scale), params, sizes=sizes, **settings)


def function(network, batches, scale=1.0):
    """The same as a plain function, which computes everything for every candidate."""
    sizes = torch.tensor([len(targets) for _, targets in batches]).double()

    def evaluate():
        found = [loss() for loss in losses(network, batches, scale)]
        gradients = domain_gradients(found, list(network.parameters()))
        loss = (torch.stack(found).double() * sizes / sizes.sum()).sum()
        return loss.detach(), cosine_matrix(gram_matrix(gradients))

    return evaluate


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Recorded(Walk):
    """A walk that keeps a copy of what it draws."""

    def __init__(self, radius):
        super().__init__(radius)
        object.__setattr__(self, "drawn", [])

    def candidates(self, place):
        def draw(param, radius, generator):
            noise = uniform_noise(param, radius, generator)
            self.drawn.append(noise.clone())
            return noise

        while True:
            place.add_noise(draw, self.radii(place.params))
            if (yield):
                place.to_start()


class TestLikeThePapersCode:
    @pytest.mark.parametrize(
        "seed",
        [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)],
    )
    @pytest.mark.parametrize("make", MODELS)
    @pytest.mark.parametrize(
        "sizes", mostly_slow([((8, 8, 8),), ((5, 12, 9, 3),)], ((5, 12, 9, 3),))
    )
    @pytest.mark.parametrize("engine", [evaluator, function])
    def test_same_decisions_and_same_end(self, make, seed, sizes, engine):
        network, batches = setting(make, seed, sizes)
        moved = list(network[0].parameters())  # the featurizer's first part
        before = copies(network)
        proposal = Recorded(0.003)
        result = annealing_search(
            moved,
            engine(network, batches),
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
        assert result.accepted
        assert same(ours, copies(network))

    def test_same_decisions_in_float32_at_the_papers_radius(self):
        network, batches = setting(mlp, 0, dtype=torch.float32)
        before, proposal, moved = copies(network), Recorded(1e-5), list(network.parameters())
        result = annealing_search(
            moved,
            evaluator(network, batches),
            proposal=proposal,
            num_candidates=250,
            generator=generator(),
        )
        ours = copies(network)
        for param, value in zip(network.parameters(), before, strict=True):
            param.data.copy_(value)
        noises = [proposal.drawn[i : i + 4] for i in range(0, 1000, 4)]
        assert paper.search(network, moved, batches, noises) == result.accepted
        assert same(ours, copies(network))


def test_evaluations_are_broken_off_where_nothing_can_come_of_it():
    network, batches = setting(mlp, 0, sizes=(8, 8, 8, 8, 8))
    calls = []
    counted = [
        lambda i=i, loss=loss: calls.append(i) or loss()
        for i, loss in enumerate(losses(network, batches))
    ]
    result = annealing_search(
        network.parameters(),
        DomainEvaluator(counted, list(network.parameters())),
        proposal=Ball(0.01),
        num_candidates=100,
        generator=generator(),
    )
    assert 0 < len(result.accepted) < 50
    assert len(calls) < 0.6 * 5 * 100
    assert result.scores.count(None) > 50


PROPOSALS = [
    Walk(0.02),
    Ball(0.02),
    Ball(0.1, relative=True),
    Climb(0.01),
    Guided(0.01, steps=3),
    Guided(0.05, relative=True, steps=2),
    Guided(0.01, steps=2, orthogonal=True),
]


@pytest.mark.parametrize("proposal", PROPOSALS, ids=str)
@pytest.mark.parametrize("objective", ["min", "mean"])
class TestEverySearch:
    def run(self, proposal, objective, permute=(0, 1, 2), scale=1.0, seed=3, **settings):
        network, batches = setting(mlp, 1)
        batches = [batches[i] for i in permute]
        settings = {"num_candidates": 60, "generator": generator(seed), **settings}
        result = annealing_search(
            network.parameters(),
            evaluator(network, batches, scale),
            proposal=proposal,
            objective=objective,
            **settings,
        )
        loss, cosines = function(network, batches, scale)()
        return network, result, float(loss), cosines

    def test_ends_where_it_says(self, proposal, objective):
        _, result, loss, cosines = self.run(proposal, objective)
        off_diagonal = cosines[torch.triu(torch.ones(3, 3), 1).bool()]
        assert result.end.loss == pytest.approx(loss, abs=1e-12)
        assert result.end.min_cosine == pytest.approx(off_diagonal.min().item(), abs=1e-12)
        assert result.end.mean_cosine == pytest.approx(off_diagonal.mean().item(), abs=1e-12)

    @pytest.mark.parametrize(
        "acceptance", [Greedy(0.01, reference="start"), Metropolis(0.01, loss_tolerance=0.01)]
    )
    def test_gains_and_keeps_the_loss(self, proposal, objective, acceptance):
        _, result, *_ = self.run(proposal, objective, acceptance=acceptance)
        taken = [result.scores[i] for i in result.accepted]
        assert result.gain > 0
        assert result.end.objective == max(s.objective for s in [result.start, *taken])
        assert all(score.loss - result.start.loss < 0.01 for score in taken)
        assert result.loss_change < 0.01

    def test_only_better_candidates_are_accepted(self, proposal, objective):
        _, result, *_ = self.run(proposal, objective)
        values = [result.start.objective] + [result.scores[i].objective for i in result.accepted]
        assert values == sorted(set(values))

    def test_same_seed_same_end(self, proposal, objective):
        first, second, other = (self.run(proposal, objective, seed=s)[0] for s in (3, 3, 4))
        assert same(copies(first), copies(second))
        assert same(copies(first), copies(other)) == isinstance(proposal, Guided)  # draws nothing

    def test_permuted_domains_change_nothing(self, proposal, objective):
        plain = self.run(proposal, objective)[1]
        permuted = self.run(proposal, objective, permute=(2, 0, 1))[1]
        assert plain.accepted == permuted.accepted
        assert plain.end == pytest.approx(permuted.end, abs=1e-9)

    def test_scaled_losses_change_nothing(self, proposal, objective):
        plain = self.run(proposal, objective)[1]
        acceptance = Greedy(loss_tolerance=0.1 * 7)
        scaled = self.run(proposal, objective, scale=7.0, acceptance=acceptance)[1]
        assert plain.accepted == scaled.accepted
        assert plain.gain == pytest.approx(scaled.gain, abs=1e-9)

    def test_a_radius_of_zero_gains_nothing(self, proposal, objective):
        network, result, *_ = self.run(proposal.scaled(0.0), objective)
        assert result.accepted == []
        assert same(copies(network), copies(setting(mlp, 1)[0]))

    def test_nothing_accepted_leaves_every_bit(self, proposal, objective):
        network, batches = setting(mlp, 1)
        before = copies(network)
        result = annealing_search(
            network.parameters(),
            evaluator(network, batches),
            proposal=proposal,
            num_candidates=5,
            objective=objective,
            acceptance=Decisions(False),
        )
        assert same(before, copies(network))
        assert result.accepted == []
        assert result.end == result.start
        assert len(result.scores) == 5

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("calls", [4, 11, 40])
    def test_error_ends_at_the_best_so_far(self, proposal, objective, error, calls):
        network, batches = setting(mlp, 1)
        before, best, count = copies(network), [], itertools.count()

        def failing(loss):
            def call():
                if next(count) == calls:
                    raise error
                return loss()

            return call

        params = list(network.parameters())
        search = functools.partial(
            annealing_search,
            params,
            DomainEvaluator([failing(loss) for loss in losses(network, batches)], params),
            proposal=proposal,
            num_candidates=60,
            objective=objective,
            generator=generator(3),
            on_candidate=lambda _, score: best.append(score),
        )
        try:
            search()
        except error:
            pass
        else:  # a guided search may be over by then
            assert isinstance(proposal, Guided)
        if not best:
            assert same(before, copies(network))
        else:
            cosines = function(network, batches)()[1]
            off_diagonal = cosines[torch.triu(torch.ones(3, 3), 1).bool()]
            value = off_diagonal.min() if objective == "min" else off_diagonal.mean()
            assert value.item() == pytest.approx(best[-1].objective, abs=1e-12)


def test_patience():
    network, batches = setting(mlp, 1)
    decisions = [0, 1, 0, 0, 1, 0, 0, 0, 1, 1]
    result = annealing_search(
        network.parameters(),
        evaluator(network, batches),
        proposal=Walk(0.01),
        num_candidates=10,
        acceptance=Decisions(*decisions),
        patience=3,
    )
    assert result.accepted == [1, 4]
    assert len(result.scores) == 8


class TestPositions:
    """Where candidates lie, seen by an evaluation that only looks."""

    def visited(self, kind, accept):
        """Each move is by one, so that a point tells how many moves led to it."""
        param = torch.zeros(1)
        seen = []

        def evaluate():
            seen.append(param.item())
            value = math.tanh(0.01 * len(seen))  # ever better
            return torch.tensor(0.0), torch.tensor([[1.0, value], [value, 1.0]])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(proposals, "uniform_noise", lambda param, *_: torch.ones_like(param))
            annealing_search(
                [param],
                evaluate,
                proposal=kind(1.0),
                num_candidates=len(accept),
                acceptance=Decisions(*accept),
            )
        return seen[1:], param.item()

    def test_walk_goes_back_to_the_start_after_an_accept(self):
        assert self.visited(Walk, [0, 0, 1, 0, 0]) == ([1, 2, 3, 1, 2], 3)

    def test_ball_stays_around_the_start(self):
        assert self.visited(Ball, [0, 1, 0, 0]) == ([1, 1, 1, 1], 1)

    def test_climb_goes_on_from_the_accepted(self):
        assert self.visited(Climb, [0, 1, 0, 1, 0]) == ([1, 1, 2, 2, 3], 2)


class TestMetropolis:
    def test_ends_at_the_best_of_what_it_accepted(self):
        network, batches = setting(mlp, 1)
        result = annealing_search(
            network.parameters(),
            evaluator(network, batches),
            proposal=Climb(0.05),
            num_candidates=80,
            acceptance=Metropolis(5.0, cooling=1.0),
            generator=generator(),
        )
        values = [result.scores[i].objective for i in result.accepted]
        assert values != sorted(values)  # it went down too
        assert result.end.objective == max(values) > values[-1]
        _, cosines = function(network, batches)()
        off_diagonal = cosines[torch.triu(torch.ones(3, 3), 1).bool()]
        assert off_diagonal.min().item() == pytest.approx(result.end.objective, abs=1e-12)


class TestNotFinite:
    def search(self, values):
        param, values = torch.zeros(2), iter(values)
        result = annealing_search(
            [param],
            lambda: next(values),
            proposal=Ball(1.0),
            num_candidates=3,
            acceptance=Decisions(True),
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

    @pytest.mark.parametrize("patience", [0, -1])
    def test_patience(self, patience):
        with pytest.raises(ValueError, match=f"`patience` must be at least 1 .* got {patience}"):
            self.search(patience=patience)

    def test_guided_needs_to_differentiate(self):
        with pytest.raises(ValueError, match="`evaluate` to be a DomainEvaluator, got a function"):
            point = torch.tensor(0.0), torch.eye(2)
            annealing_search(
                [torch.zeros(1)], lambda: point, proposal=Guided(1.0), num_candidates=1
            )

    def test_a_single_domain(self):
        lone = DomainEvaluator(
            [lambda: (param * param).sum()], [param := torch.ones(1).requires_grad_()]
        )
        for evaluate in (lone, lambda: (torch.tensor(0.0), torch.eye(1))):
            with pytest.raises(ValueError, match="at least two domains"):
                annealing_search([param], evaluate, proposal=Ball(1.0), num_candidates=1)

    def test_objective(self):
        with pytest.raises(ValueError, match="`objective` must be 'min' or 'mean', got 'max'"):
            self.search(objective="max")


def test_default_generator_is_the_global_one():
    ends = []
    for _ in range(2):
        torch.manual_seed(5)
        network, batches = setting(mlp, 1)
        annealing_search(
            network.parameters(),
            function(network, batches),
            proposal=Ball(0.05),
            num_candidates=10,
        )
        ends.append(copies(network))
    assert same(*ends)
