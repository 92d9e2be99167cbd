import math

import pytest
import torch

from gga_lightning.alignment import Climb, Greedy, Metropolis, Score, annealing_search


def accepted(points, acceptance):
    """Which candidates are accepted, none of them ending the search."""
    points = list(points)
    found = []

    def evaluate():
        cosine, loss = points[len(found)]
        found.append(None)
        return torch.tensor(loss), torch.tensor([[1.0, cosine], [cosine, 1.0]])

    result = annealing_search(
        [torch.zeros(3)],
        evaluate,
        proposal=Climb(0.1),
        num_candidates=len(points) - 1,
        acceptance=acceptance,
        generator=torch.Generator().manual_seed(0),
    )
    return result.accepted


# (cosine, loss): the start, then a better point of low loss, a worse one of high loss within the
# tolerance of neither but its own predecessor, and so on
POINTS = [(0.0, 1.0), (0.5, 0.5), (0.4, 0.59), (0.45, 0.65), (0.6, 0.58)]


class TestReference:
    """What a candidate's loss is compared with; a hot Metropolis accepts any objective."""

    def test_best_is_the_accepted_point_with_the_highest_objective(self):
        # 0.59 < 0.5 + 0.1, then 0.65 is not (it would be below 0.59 + 0.1), 0.58 again
        found = accepted(POINTS, Metropolis(1e9, reference="best"))
        assert found == [0, 1, 3]

    def test_start(self):
        assert accepted(POINTS, Metropolis(1e9, reference="start")) == [0, 1, 2, 3]

    def test_of_greedy_best_is_also_the_last_accepted(self):
        rising = [(0.0, 1.0), (0.1, 1.09), (0.2, 1.18), (0.3, 1.27)]
        assert accepted(rising, Greedy(0.1)) == [0, 1, 2]  # a tolerance an accept
        assert accepted(rising, Greedy(0.1, reference="start")) == [0]

    def test_of_ones_own(self):
        """The arguments are positional, so that their names are the user's."""

        class LossFalls:
            def objective_above(self, accepted, index, draw):
                return -math.inf

            def loss_below(self, best, start):
                return min(best.loss, start.loss)

        assert accepted(POINTS, LossFalls()) == [0]


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
        for reference, expected in (("best", best), ("start", start)):
            greedy = Greedy(0.1, reference)
            passes = objective > greedy.objective_above(self.BEST, 0, 0.5)
            passes &= loss < greedy.loss_below(self.BEST, self.START)
            assert passes is expected

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="`loss_tolerance` must be a number, got nan"):
            Greedy(math.nan)
        with pytest.raises(ValueError, match="`reference` must be 'best' or 'start', got 'last'"):
            Greedy(reference="last")


class TestMetropolis:
    POINT = Score(1.0, 0.1, 0.1, 0.1)

    def test_worse_points_are_accepted_with_the_boltzmann_probability(self):
        metropolis = Metropolis(temperature=0.2, cooling=0.5)
        draws = torch.rand(20_000, generator=torch.Generator().manual_seed(0)).tolist()
        for index, temperature in enumerate((0.2, 0.1, 0.05)):
            taken = [metropolis.objective_above(self.POINT, index, u) < 0.0 for u in draws]
            share = sum(taken) / len(taken)
            assert share == pytest.approx(math.exp(-0.1 / temperature), abs=0.01)

    def test_better_points_always(self):
        metropolis = Metropolis(1.0)
        assert all(metropolis.objective_above(self.POINT, 0, u) <= 0.1 for u in (0.0, 0.5, 1.0))

    @pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
    def test_temperature_out_of_range(self, temperature):
        with pytest.raises(ValueError, match=f"`temperature` must be positive, got {temperature}"):
            Metropolis(temperature)

    @pytest.mark.parametrize("cooling", [0.0, 1.1, math.nan])
    def test_cooling_out_of_range(self, cooling):
        with pytest.raises(ValueError, match=rf"`cooling` must be in \(0, 1\], got {cooling}"):
            Metropolis(1.0, cooling)

    def test_the_rest_as_for_greedy(self):
        with pytest.raises(ValueError, match="`reference`"):
            Metropolis(1.0, reference="last")
