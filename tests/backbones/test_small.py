from gga_lightning.backbones import MNISTCNN


def test_mnist_cnn_is_domainbeds():
    convolutions = (1 * 9 + 1) * 64 + (64 * 9 + 1) * 128 + 2 * (128 * 9 + 1) * 128
    norms = 2 * (64 + 3 * 128)
    params = MNISTCNN((1, 28, 28)).parameters()
    assert sum(param.numel() for param in params) == convolutions + norms
