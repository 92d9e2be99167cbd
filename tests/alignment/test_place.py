import math

import pytest
import torch

from gga_lightning.alignment.place import Noise, Place, uniform_noise


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


class TestNoiseInOneBuffer:
    def params(self):
        image = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
        gaps = torch.randn(6, 8)[:, ::2]
        return [torch.randn(50), image, gaps, torch.randn(())]

    def test_has_the_numbers_of_single_draws(self):  # on a CPU, which draws one after the other
        params = self.params()
        together = Noise(params).drawn([0.3] * 4, generator())
        again = generator()
        for param, part in zip(params, together, strict=True):
            alone = torch.empty(param.numel()).uniform_(-0.3, 0.3, generator=again)
            layout = torch.empty_like(param, memory_format=torch.preserve_format)
            assert part.shape == param.shape
            assert part.stride() == layout.stride()
            assert sorted(part.flatten().tolist()) == sorted(alone.tolist())

    def test_radii_of_each(self):
        radii = [0.1, 0.0, 2.0, 1.0]
        parts = Noise(self.params()).drawn(radii, generator())
        assert all(part.abs().max() <= radius for part, radius in zip(parts, radii, strict=True))
        assert parts[2].abs().max() > 1.0

    def test_leads_back_bit_for_bit(self):
        params = self.params()[:2]
        place = Place(params, generator())
        place._noise = Noise(params)
        place.add_noise(uniform_noise, [0.1, 0.1])
        place.add_noise(uniform_noise, [0.1, 0.1])
        there, path = [param.clone() for param in params], place.path
        place.to_start()
        place.follow(path)
        assert all(map(torch.equal, params, there))

    def test_is_for_a_gpu(self):
        assert Noise.of(self.params()) is None
