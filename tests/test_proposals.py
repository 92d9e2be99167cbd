import math

import pytest
import torch

from gga_lightning.proposals import Ball, Proposal, Walk


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", [Walk, Ball])
class TestEveryProposal:
    def test_noise_fills_its_box(self, kind):
        noise = kind(0.5).noise(torch.zeros(100_000), 0.5, generator())
        assert noise.abs().max() <= 0.5
        assert abs(noise.mean()) < 0.01
        assert noise.std().item() == pytest.approx(0.5 / math.sqrt(3), rel=0.01)

    def test_noise_repeats_from_its_seed(self, kind):
        draws = [kind(1.0).noise(torch.zeros(5), 1.0, generator(seed)) for seed in (3, 3, 4)]
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])

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


def test_origins():
    assert (Proposal.origin, Walk.origin, Ball.origin) == ("start", "last", "start")


def test_noise_keeps_the_memory_format():
    param = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert Ball(1.0).noise(param, 1.0, generator()).stride() == param.stride()
