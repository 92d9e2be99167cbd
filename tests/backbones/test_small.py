import pytest
import torch

from gga_lightning.backbones import MLP, MNISTCNN


def test_mnist_cnn_is_domainbeds():
    convolutions = (1 * 9 + 1) * 64 + (64 * 9 + 1) * 128 + 2 * (128 * 9 + 1) * 128
    norms = 2 * (64 + 3 * 128)
    params = MNISTCNN((1, 28, 28)).parameters()
    assert sum(param.numel() for param in params) == convolutions + norms


def test_mlp_refuses_tokens():
    with pytest.raises(ValueError, match=r"floats, got int64.*inputs=tfidf"):
        MLP((4,))(torch.zeros(2, 4, dtype=torch.int64))


def test_mlp_without_layers_gives_its_inputs():
    model = MLP((2, 3), widths=())
    inputs = torch.randn(5, 2, 3)
    assert torch.equal(model(inputs), inputs.flatten(1))
    assert (model.out_features, model.stages) == (6, ())
