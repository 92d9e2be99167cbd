import torch

from gga_lightning.algorithms.style import style


def test_feature_maps():
    features = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    mean, deviation = style(features, 1e-6)
    assert mean.shape == deviation.shape == (3, 4, 1, 1)
    own = features[1, 2].flatten()
    torch.testing.assert_close(mean[1, 2, 0, 0], own.sum() / 30)
    variance = ((own - own.sum() / 30) ** 2).sum() / 29
    torch.testing.assert_close(deviation[1, 2, 0, 0], (variance + 1e-6).sqrt())


def test_feature_vectors_are_one_channel():
    features = torch.randn(3, 7)
    mean, deviation = style(features, 0.0)
    torch.testing.assert_close(mean[:, 0], features.mean(1))
    torch.testing.assert_close(deviation[:, 0], features.std(1))


def test_a_single_position():
    mean, deviation = style(torch.ones(2, 3, 1, 1), 1e-4)
    assert torch.equal(mean, torch.ones(2, 3, 1, 1))
    torch.testing.assert_close(deviation, torch.full((2, 3, 1, 1), 1e-2))
