import errno
import http.client
import re
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

from gga_lightning.backbones import TorchvisionFeaturizer
from tests.helpers import mostly_slow


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
        network = torchvision.models.resnet18()
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        five = TorchvisionFeaturizer("resnet18", (5, 64, 64), weights=str(tmp_path / "weights.pt"))
        first = five.network.conv1.weight
        assert torch.equal(first, network.conv1.weight[:, [0, 1, 2, 0, 1]])
        assert set(five.network.state_dict()) == set(whole)

    def test_weights_from_a_file(self, tmp_path):
        network = torchvision.models.resnet18()
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        featurizer = TorchvisionFeaturizer("resnet18", weights=str(tmp_path / "weights.pt"))
        ours, theirs = featurizer.network.layer4[1], network.layer4[1]
        assert torch.equal(ours.conv2.weight, theirs.conv2.weight)


@pytest.fixture
def network():
    return torchvision.models.resnet18()


@pytest.fixture
def load(tmp_path):
    """Saves a content and makes a featurizer from it."""

    def load(content, name="resnet18", shape=(3, 64, 64)):
        torch.save(content, tmp_path / "weights.pt")
        return TorchvisionFeaturizer(name, shape, weights=str(tmp_path / "weights.pt"))

    return load


def assert_loaded(featurizer, state):
    for name, tensor in featurizer.network.state_dict().items():
        assert torch.equal(tensor, state[name]), name


class TestFiles:
    @pytest.mark.parametrize("classes", mostly_slow([None, 7, 1000], None, 7))
    def test_the_head_does_not_matter(self, load, classes):
        state = torchvision.models.resnet18(num_classes=classes or 3).state_dict()
        if classes is None:
            del state["fc.weight"], state["fc.bias"]
        featurizer = load(state)
        assert_loaded(featurizer, state)
        unused = () if classes is None else ("fc.weight", "fc.bias")
        assert featurizer.loaded_weights.unused == unused
        assert featurizer.loaded_weights.count == 120

    @pytest.mark.parametrize("channels", mostly_slow([1, 2, 5], 1))
    def test_of_this_number_of_channels(self, load, channels):
        first = TorchvisionFeaturizer("resnet18", (channels, 64, 64))
        again = load(first.state_dict(), shape=(channels, 64, 64))
        assert_loaded(again, first.network.state_dict())

    def test_of_another_number_of_channels(self, load):
        state = TorchvisionFeaturizer("resnet18", (4, 64, 64)).state_dict()
        shapes = re.escape("conv1.weight [64, 4, 7, 7] for [64, 2, 7, 7]")
        with pytest.raises(ValueError, match=f"119 of 120 .* of another shape: {shapes}"):
            load(state, shape=(2, 64, 64))

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("googlenet", {"init_weights": True}),
            ("mnasnet0_5", {}),
            ("shufflenet_v2_x0_5", {}),
            pytest.param("swin_t", {}, marks=pytest.mark.slow),
        ],
    )
    def test_networks_with_their_own_ways(self, load, name, options):
        state = torchvision.models.get_model(name, **options).state_dict()
        assert_loaded(load(state, name), state)

    def test_densenets_old_names(self, load):
        state = torchvision.models.densenet121().state_dict()
        dotted = r"(denselayer\d+\.(?:norm|relu|conv))([12]\.)"
        old = {re.sub(dotted, r"\1.\2", name): tensor for name, tensor in state.items()}
        assert old.keys() != state.keys()
        assert_loaded(load(old, "densenet121"), state)

    @pytest.mark.parametrize(
        ("name", "other"),
        [("resnet18", "resnet34"), pytest.param("resnet50", "resnet101", marks=pytest.mark.slow)],
    )
    def test_of_a_deeper_network(self, load, name, other):
        with pytest.raises(ValueError, match=r"only in the file: layer\d\.\d\.conv1\.weight"):
            load(torchvision.models.get_model(other).state_dict(), name)


class TestDownloads:
    URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"

    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    @pytest.mark.parametrize(
        "error",
        [
            URLError(OSError(errno.ENETUNREACH, "Network is unreachable")),
            TimeoutError("timed out"),
            http.client.RemoteDisconnected("Remote end closed connection"),
            RuntimeError("invalid hash value"),
        ],
    )
    def test_without_internet(self, tmp_path, monkeypatch, error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
        with pytest.raises(ValueError, match="cannot be downloaded") as caught:
            TorchvisionFeaturizer("resnet18", weights="IMAGENET1K_V1")
        said = str(caught.value)
        assert self.URL in said
        assert f"'{tmp_path / 'hub/checkpoints/resnet18-f37072fd.pth'}'" in said
        assert "`backbone.weights=FILE`" in said
        assert "\n" not in said

    @pytest.mark.parametrize("content", mostly_slow([b"", b"<html>", bytes(100)], b"<html>"))
    def test_a_damaged_cache_is_named(self, tmp_path, content):
        cached = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
        cached.parent.mkdir(parents=True)
        cached.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged .* Delete it") as caught:
            TorchvisionFeaturizer("resnet18", weights="DEFAULT")
        assert str(cached) in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "name",
        mostly_slow(["DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V1"], "DEFAULT"),
    )
    def test_what_the_message_says_works(self, tmp_path, network, name):
        cached = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
        cached.parent.mkdir(parents=True)
        torch.save(network.state_dict(), cached)
        featurizer = TorchvisionFeaturizer("resnet18", weights=name)
        assert_loaded(featurizer, network.state_dict())
        assert featurizer.loaded_weights is None
