import itertools
import re

import pytest
import timm
import torch
from torch import nn

from gga_lightning.backbones import TimmFeaturizer
from tests.helpers import mostly_slow

NAME = "resnet10t"


@pytest.fixture
def load(tmp_path):
    """Saves a content and makes a featurizer from it."""

    def load(content, name=NAME, shape=(3, 64, 64)):
        torch.save(content, tmp_path / "weights.pt")
        return TimmFeaturizer(name, shape, weights=str(tmp_path / "weights.pt"))

    return load


@pytest.fixture(scope="module")
def state():
    return timm.create_model(NAME, num_classes=11).state_dict()


def assert_loaded(featurizer, state, but=()):
    for name, tensor in featurizer.network.state_dict().items():
        assert name in but or torch.equal(tensor, state[name]), name


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


class TestFiles:
    @pytest.mark.parametrize(
        "prefix",
        mostly_slow(["", "model.", "module.", "featurizer.network."], "", "featurizer.network."),
    )
    def test_under_a_prefix(self, load, state, prefix):
        featurizer = load({prefix + name: tensor for name, tensor in state.items()})
        assert_loaded(featurizer, state)
        assert featurizer.loaded_weights.prefix == prefix
        assert featurizer.loaded_weights.unused == ("fc.weight", "fc.bias")

    @pytest.mark.parametrize("channels", mostly_slow([1, 2, 5], 2))
    def test_filters_for_other_channels(self, load, state, channels):
        wrapped = {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
        featurizer = load(wrapped, shape=(channels, 64, 64))
        assert_loaded(featurizer, state, but=("conv1.0.weight",))
        expected = timm.models.adapt_input_conv(channels, state["conv1.0.weight"])
        assert torch.equal(featurizer.network.conv1[0].weight, expected)
        assert featurizer.loaded_weights.unused == ("fc.weight", "fc.bias")
        again = load(featurizer.state_dict(), shape=(channels, 64, 64))
        assert_loaded(again, featurizer.network.state_dict())

    @pytest.mark.parametrize(
        ("lacking", "channels"),
        mostly_slow(
            [*itertools.product(["layer2", "conv1.1", "layer4.0.bn2.running_var"], [3, 2])],
            *[("layer2", 3), ("conv1.1", 2), ("layer4.0.bn2.running_var", 3)],
        ),
    )
    def test_what_is_missing_is_named(self, load, state, channels, lacking):
        rest = {name: tensor for name, tensor in state.items() if not name.startswith(lacking)}
        with pytest.raises(ValueError, match=rf"tensors match; missing: {re.escape(lacking)}"):
            load(rest, shape=(channels, 64, 64))

    @pytest.mark.parametrize("channels", [3, 2])
    def test_without_counters(self, load, state, channels):
        old = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
        assert load(old, shape=(channels, 64, 64)).loaded_weights.count >= 70

    @pytest.mark.parametrize(
        ("other", "channels"),
        mostly_slow(
            [*itertools.product(["resnet14t", "mobilenetv3_small_050"], [3, 2])],
            *[("resnet14t", 3), ("mobilenetv3_small_050", 2)],
        ),
    )
    def test_of_another_network(self, load, channels, other):
        with pytest.raises(ValueError, match=f"does not fit {NAME}: .* tensors match"):
            load(timm.create_model(other).state_dict(), shape=(channels, 64, 64))

    @pytest.mark.parametrize("channels", mostly_slow([3, 2], 3))
    def test_of_a_deeper_network(self, load, channels):
        with pytest.raises(ValueError, match=r"only in the file: layer1\.2\.conv1\.weight"):
            load(timm.create_model("resnet34").state_dict(), "resnet18", (channels, 64, 64))

    def test_position_embeddings_of_another_size(self, load):
        name = "vit_tiny_patch16_224"
        state = timm.create_model(name, img_size=64).state_dict()
        featurizer = load(state, name, (3, 224, 224))
        assert_loaded(featurizer, state, but=("pos_embed",))
        assert featurizer.network.pos_embed.shape == (1, 197, 192)
        assert torch.equal(featurizer.network.pos_embed[:, 0], state["pos_embed"][:, 0])
        del state["blocks.3.norm1.weight"]
        with pytest.raises(ValueError, match=r"missing: blocks\.3\.norm1\.weight; of an"):
            load(state, name, (3, 224, 224))

    def test_convnexts_original_layout(self, load):
        state = timm.create_model("convnext_atto").state_dict()
        original = {_as_published(name): tensor for name, tensor in state.items()}
        assert len(original.keys() & state.keys()) < 3
        featurizer = load({"model": original, "optimizer": {}}, "convnext_atto")
        assert_loaded(featurizer, state)
        del original["stages.2.0.dwconv.weight"]
        with pytest.raises(ValueError, match="does not fit convnext_atto"):
            load({"model": original}, "convnext_atto")

    def test_nothing_else_is_printed(self, load, capfd):
        with pytest.raises(ValueError, match="does not fit"):
            load({"conv1.weight": torch.ones(3)})
        assert capfd.readouterr().err == ""


def _as_published(name):
    name = name.replace("stem.", "downsample_layers.0.")
    name = re.sub(r"stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
    name = re.sub(r"stages\.(\d)\.blocks\.", r"stages.\1.", name)
    for ours, theirs in {"conv_dw": "dwconv", "mlp.fc": "pwconv", "head.fc": "head"}.items():
        name = name.replace(ours, theirs)
    return name.replace("head.norm", "norm")


class TestDownloads:
    @pytest.mark.parametrize(
        "error",
        [
            FileNotFoundError("cannot find the requested files\nin the local cache"),
            ConnectionError("offline mode is enabled"),
            RuntimeError("invalid hash value"),
        ],
    )
    def test_without_internet(self, monkeypatch, error):
        create = timm.create_model

        def fail(*arguments, pretrained=False, **settings):
            if pretrained:
                raise error
            return create(*arguments, **settings)

        monkeypatch.setattr(timm, "create_model", fail)
        with pytest.raises(
            ValueError, match="timm cannot load the weights of 'resnet10t'"
        ) as caught:
            TimmFeaturizer(NAME, weights="pretrained")
        said = str(caught.value)
        assert (
            "https://huggingface.co/timm/resnet10t.c3_in1k/resolve/main/model.safetensors" in said
        )
        assert "`backbone.weights=FILE`" in said
        assert "\n" not in said

    def test_a_network_without_weights(self):
        name = next(
            name
            for name in timm.list_models("vit_*")
            if not timm.get_pretrained_cfg(name).has_weights
        )
        with pytest.raises(ValueError, match=f"timm has none for '{name}'"):
            TimmFeaturizer(name, weights="pretrained")
