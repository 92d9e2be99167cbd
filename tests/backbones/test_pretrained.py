import sys

import pytest
import timm
import torch
import torchvision
from torch import nn

from gga_lightning.backbones import MLP, MNISTCNN, TimmFeaturizer, TorchvisionFeaturizer


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda s: MLP(s), (94,)),
        (lambda s: MLP(s, widths=(16, 8)), (1, 8, 8)),
        (MNISTCNN, (1, 28, 28)),
        (MNISTCNN, (2, 8, 8)),
        (lambda s: TorchvisionFeaturizer("resnet18", s), (3, 64, 64)),
        (lambda s: TorchvisionFeaturizer("resnet18", s), (2, 64, 64)),
        (lambda s: TorchvisionFeaturizer("efficientnet_b0", s), (3, 64, 64)),
        (lambda s: TorchvisionFeaturizer("convnext_tiny", s), (5, 64, 64)),
        (lambda s: TorchvisionFeaturizer("vit_b_16", s), (3, 224, 224)),
        (lambda s: TorchvisionFeaturizer("swin_t", s), (3, 64, 64)),
        (lambda s: TorchvisionFeaturizer("googlenet", s), (2, 64, 64)),
        (lambda s: TimmFeaturizer("resnet10t", s), (3, 64, 64)),
        (lambda s: TimmFeaturizer("vit_tiny_patch16_224", s), (3, 224, 224)),
        (lambda s: TimmFeaturizer("mobilenetv3_small_050", s), (2, 64, 64)),
    ],
)
def test_features_have_the_length_they_say(make, shape):
    featurizer = make(shape)
    with torch.no_grad():
        assert featurizer(torch.randn(2, *shape)).shape == (2, featurizer.out_features)


def test_weights_change_nothing_else(tmp_path):
    """GoogLeNet and Inception of torchvision normalize anew where there are weights."""
    torch.save(
        torchvision.models.googlenet(init_weights=True).state_dict(), tmp_path / "weights.pt"
    )
    own = [
        TorchvisionFeaturizer("googlenet", weights=w) for w in (None, str(tmp_path / "weights.pt"))
    ]
    own[0].load_state_dict(own[1].state_dict())
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(*(featurizer.eval()(inputs) for featurizer in own))
        assert own[0].network.transform_input


def test_mnist_cnn_is_the_reference_suites():
    convolutions = (1 * 9 + 1) * 64 + (64 * 9 + 1) * 128 + 2 * (128 * 9 + 1) * 128
    norms = 2 * (64 + 3 * 128)
    params = MNISTCNN((1, 28, 28)).parameters()
    assert sum(param.numel() for param in params) == convolutions + norms


class TestTorchvision:
    def test_frozen_batchnorm_keeps_statistics_and_trains_weights(self):
        featurizer = TorchvisionFeaturizer("resnet18", freeze_batchnorm=True).train()
        before = {name: value.clone() for name, value in featurizer.named_buffers()}
        featurizer(torch.randn(2, 3, 64, 64)).sum().backward()
        assert all(torch.equal(value, before[name]) for name, value in featurizer.named_buffers())
        norms = [m for m in featurizer.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert all(norm.weight.grad is not None for norm in norms)
        assert featurizer.training

    def test_dropout_while_training_only(self):
        featurizer = TorchvisionFeaturizer("resnet18", dropout=0.5, freeze_batchnorm=True)
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            dropped = (featurizer.train()(images) == 0).float().mean()
            kept = (featurizer.eval()(images) == 0).float().mean()
        assert dropped - kept > 0.3

    def test_more_or_fewer_channels_repeat_the_filters(self, tmp_path):
        torch.manual_seed(0)
        whole = torch.nn.Module.state_dict(TorchvisionFeaturizer("resnet18").network)
        import torchvision

        network = torchvision.models.resnet18()
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        five = TorchvisionFeaturizer("resnet18", (5, 64, 64), weights=str(tmp_path / "weights.pt"))
        first = five.network.conv1.weight
        assert torch.equal(first, network.conv1.weight[:, [0, 1, 2, 0, 1]])
        assert set(five.network.state_dict()) == set(whole)

    def test_weights_from_a_file(self, tmp_path):
        import torchvision

        network = torchvision.models.resnet18()
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        featurizer = TorchvisionFeaturizer("resnet18", weights=str(tmp_path / "weights.pt"))
        ours, theirs = featurizer.network.layer4[1], network.layer4[1]
        assert torch.equal(ours.conv2.weight, theirs.conv2.weight)


class TestTimm:
    def test_weights_from_a_file(self, tmp_path):
        network = timm.create_model("resnet10t", num_classes=11)
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        settings = {"weights": str(tmp_path / "weights.pt")}
        featurizer = TimmFeaturizer("resnet10t", **settings)
        ours, theirs = featurizer.network.layer4[0], network.layer4[0]
        assert torch.equal(ours.conv1.weight, theirs.conv1.weight)
        two = TimmFeaturizer("resnet10t", (2, 64, 64), **settings)
        assert two.network.conv1[0].weight.shape[1] == 2

    def test_what_the_suites_need(self):
        featurizer = TimmFeaturizer("resnet10t", freeze_batchnorm=True, dropout=0.5).train()
        norms = [m for m in featurizer.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert not any(norm.training for norm in norms)
        assert featurizer.stages == tuple(f"network.layer{number}" for number in range(1, 5))
        assert featurizer.dropout.p == 0.5

    def test_without_timm(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(ImportError, match=r"pip install 'gga-lightning\[timm\]'"):
            TimmFeaturizer("resnet10t")


def test_normalization_is_that_of_the_weights():
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert TorchvisionFeaturizer("resnet18").normalization == imagenet
    assert TorchvisionFeaturizer("resnet18", (2, 64, 64)).normalization is None
    halves = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    assert TimmFeaturizer("vit_tiny_patch16_224").normalization == halves


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: MLP((4,), widths=()), "`widths` must hold at least one layer's width"),
            (lambda: MNISTCNN((94,)), r"must be that of an image, .*got \(94,\). .* take MLP"),
            (lambda: TorchvisionFeaturizer("resnet19"), "`name` must be one of .* got 'resnet19'"),
            (lambda: TorchvisionFeaturizer("squeezenet1_1"), "linear layer, got a SqueezeNet"),
            (
                lambda: TorchvisionFeaturizer("resnet18", weights="BEST"),
                r"`weights` must be one of \['IMAGENET1K_V1'.*\], an existing file .* got 'BEST'",
            ),
            (lambda: TimmFeaturizer("resnet19"), "`name` must be a model of timm .* 'resnet19'"),
            (
                lambda: TimmFeaturizer("resnet10t", weights="BEST"),
                "`weights` must be 'pretrained', an existing file or None, got 'BEST'",
            ),
            (
                lambda: TorchvisionFeaturizer("resnet18", dropout=1.0),
                "`dropout` must be in .0, 1.",
            ),
        ],
    )
    def test_are_refused_at_once(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()
