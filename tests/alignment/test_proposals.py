import math

import pytest
import torch

from gga_lightning.alignment.place import Place
from gga_lightning.alignment.proposals import Ball, Climb, Guided, Proposal, Walk


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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
