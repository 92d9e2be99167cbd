import math

import pytest
import torch

from gga_lightning.alignment.proposals import (
    Ball,
    Climb,
    Guided,
    Place,
    Proposal,
    Walk,
    uniform_noise,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_noise_fills_its_box():
    noise = uniform_noise(torch.zeros(100_000), 0.5, generator())
    assert noise.abs().max() <= 0.5
    assert abs(noise.mean()) < 0.01
    assert noise.std().item() == pytest.approx(0.5 / math.sqrt(3), rel=0.01)


def test_noise_repeats_from_its_seed():
    draws = [uniform_noise(torch.zeros(5), 1.0, generator(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_noise_keeps_the_memory_format():
    param = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert uniform_noise(param, 1.0, generator()).stride() == param.stride()


@pytest.mark.parametrize("kind", [Walk, Ball, Climb, Guided])
class TestEveryProposal:
    def test_absolute_radius(self, kind):
        assert kind(0.2).radii([torch.ones(3), torch.zeros(2)]) == [0.2, 0.2]

    def test_relative_radius_is_a_share_of_the_root_mean_square(self, kind):
        radii = kind(0.1, relative=True).radii([torch.tensor([3.0, -4.0]), torch.zeros(2)])
        assert radii == pytest.approx([0.1 * math.sqrt(12.5), 0.0])

    def test_scaled(self, kind):
        assert kind(0.2, relative=True).scaled(0.5) == kind(0.1, relative=True)

    @pytest.mark.parametrize("radius", [-1.0, math.nan, math.inf])
    def test_radius_out_of_range(self, kind, radius):
        with pytest.raises(ValueError, match=f"`radius` must be .* got {radius}"):
            kind(radius)


def test_a_proposal_says_how():
    with pytest.raises(TypeError, match=r"Proposal must define `candidates\(place\)`"):
        next(Proposal(1.0).candidates(Place([torch.zeros(1)])))


def test_guided_steps_out_of_range():
    with pytest.raises(ValueError, match="`steps` must be at least 1, got 0"):
        Guided(1.0, steps=0)


class TestPlace:
    def test_every_way_leads_back_bit_for_bit(self):
        params = [torch.randn(50), torch.randn(3, 4, dtype=torch.float64)]
        start = [param.clone() for param in params]
        place = Place(params, generator())
        place.add_noise(uniform_noise, [0.1, 0.2])
        place.shift([torch.randn(50), torch.randn(3, 4, dtype=torch.float64)], 0.3)
        place.add_noise(uniform_noise, [0.1, 0.0])
        accepted, path = [param.clone() for param in params], place.path
        place.accept(best=True)
        place.add_noise(uniform_noise, [1.0, 1.0])
        place.to_accepted()
        assert all(map(torch.equal, params, accepted))
        place.to_start()
        assert all(map(torch.equal, params, start))
        place.follow(path)
        assert all(map(torch.equal, params, accepted))
        place.to_start()
        place.settle()
        assert all(map(torch.equal, params, accepted))

    def test_settles_at_the_start_if_nothing_was_best(self):
        param = torch.randn(5)
        start, place = param.clone(), Place([param])
        place.add_noise(uniform_noise, [1.0])
        place.accept(best=False)
        place.settle()
        assert torch.equal(param, start)


class TestGuidedSteps:
    """How far a step goes: full, half, and so on from the accepted point."""

    def walked(self, proposal, direction, accept=()):
        param = torch.tensor([3.0, 4.0])
        place = Place([param])
        place.ascent = lambda orthogonal: [torch.tensor(direction)]
        moves, seen, answers = proposal.candidates(place), [], iter(accept)
        try:
            next(moves)
            while True:
                seen.append((param - place.start[0]).tolist())
                taken = next(answers, False)
                if taken:
                    place.accept(best=True)
                moves.send(taken)
        except StopIteration:
            return seen

    def test_absolute_goes_to_the_corner_of_the_box(self):
        seen = self.walked(Guided(0.5), [0.3, -7.0])
        assert seen[0] == [0.5, -0.5]
        assert seen[1] == [0.25, -0.25]
        assert len(seen) == 10

    def test_relative_goes_a_share_of_the_parameters_length(self):
        assert self.walked(Guided(0.1, relative=True), [0.0, 2.0])[0] == pytest.approx([0.0, 0.5])

    def test_orthogonal_is_scaled_into_the_box(self):
        seen = self.walked(Guided(0.5, orthogonal=True), [1.0, -4.0])
        assert seen[0] == pytest.approx([0.125, -0.5])

    def test_goes_on_from_an_accepted_step(self):
        accept = [False, False, True, False, True]
        seen = self.walked(Guided(1.0, steps=2), [1.0, 1.0], accept=accept)
        assert seen == [[1.0] * 2, [0.5] * 2, [0.25] * 2, [0.75] * 2, [0.5] * 2]

    def test_begins_where_it_is_told_to(self):
        seen = self.walked(Guided(1.0, first=0.25), [1.0, 1.0], accept=[False, True])
        assert seen == [[0.25, 0.25], [0.125, 0.125]]
        with pytest.raises(ValueError, match="`first` must be in"):
            Guided(1.0, first=0.0)

    @pytest.mark.parametrize("relative", [False, True])
    @pytest.mark.parametrize("orthogonal", [False, True])
    def test_stays_where_there_is_no_slope(self, relative, orthogonal):
        proposal = Guided(0.5, relative=relative, orthogonal=orthogonal)
        assert self.walked(proposal, [0.0, 0.0]) == []
