import argparse
import logging
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gga_lightning.backbones.weights import (
    find_file,
    find_weights,
    load_weights,
)


def network(width=3):
    return nn.Sequential(
        nn.Linear(2, width), nn.BatchNorm1d(width), nn.Sequential(nn.Linear(width, 4), nn.ReLU())
    )


STATE = network().state_dict()


@pytest.fixture
def load(tmp_path):
    """Saves a content, and loads it into a network."""

    def load(content, made=None):
        torch.save(content, tmp_path / "weights.pt")
        made = network() if made is None else made
        return made, load_weights(made, "net", find_weights(tmp_path / "weights.pt", made))

    return load


def prefixed(prefix, state=STATE, shift=0.0):
    return {
        prefix + name: tensor + shift if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


def assert_loaded(made, state=STATE):
    assert all(torch.equal(tensor, state[name]) for name, tensor in made.state_dict().items())


class TestPrefixes:
    @pytest.mark.parametrize(
        "prefix",
        ["", "module.", "model.", "featurizer.network.", "module.encoder_q.", "a.0.b.c."],
    )
    def test_are_found(self, load, prefix):
        made, loaded = load({**prefixed(prefix), "other": torch.ones(1)})
        assert_loaded(made)
        assert (loaded.prefix, loaded.count) == (prefix, 9)
        assert loaded.unused == ("other",)

    @pytest.mark.parametrize(
        "names",
        [
            lambda name: f"_orig_mod.{name}",
            lambda name: f"module._orig_mod.{name}",
            lambda name: name.replace("2.0.", "2._orig_mod.0."),
            lambda name: name.replace("2.", "2._fsdp_wrapped_module."),
        ],
    )
    def test_wrappers_leave_names(self, load, names):
        made, _ = load({names(name): tensor for name, tensor in STATE.items()})
        assert_loaded(made)

    @pytest.mark.parametrize(
        "containers",
        [["state_dict"], ["model"], ["model_state_dict"], ["weights", "net"], [0, "student"]],
    )
    def test_containers_are_opened(self, load, containers):
        content = prefixed("module.")
        for name in reversed(containers):
            content = [content] if name == 0 else {name: content, "epoch": 3}
        made, loaded = load(content)
        assert_loaded(made)
        assert loaded.prefix == "/".join(map(str, containers)) + "/module."

    def test_optimizer_states_are_not_in_the_way(self, load):
        made = network()
        optimizer = torch.optim.Adam(made.parameters())
        made(torch.ones(4, 2)).sum().backward()
        optimizer.step()
        again, loaded = load({"optimizer": optimizer.state_dict(), "model": made.state_dict()})
        assert_loaded(again, made.state_dict())
        assert len(loaded.unused) == 3 * 6
        assert str(loaded).endswith("('model/'); not used: 18 tensors")

    @pytest.mark.parametrize("average", ["state_dict_ema", "model_ema", "ema"])
    def test_an_average_is_preferred(self, load, average):
        made, loaded = load({"state_dict": STATE, average: prefixed("", shift=1.0)})
        assert_loaded(made, prefixed("", shift=1.0))
        assert loaded.prefix == f"{average}/"
        assert "schema." not in loaded.prefix

    @pytest.mark.parametrize(("first", "second"), [("online.", "target."), ("a.", "schema.")])
    def test_otherwise_the_first(self, load, first, second):
        made, loaded = load({**prefixed(first), **prefixed(second, shift=1.0)})
        assert_loaded(made)
        assert len(loaded.unused) == 9

    def test_shapes_count(self, load):
        made, _ = load({**prefixed("small.", network(5).state_dict()), **prefixed("big.")})
        assert_loaded(made)


class TestRefusals:
    @pytest.mark.parametrize("lacking", ["0.weight", "1.running_var", "2.0.bias"])
    def test_missing(self, load, lacking):
        made, before = network(), {}
        before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
        rest = {name: tensor for name, tensor in STATE.items() if name != lacking}
        with pytest.raises(ValueError, match=f"8 of 9 .* under 'm.'; missing: {lacking}"):
            load(prefixed("m.", rest), made)
        assert_loaded(made, before)

    def test_all_three_kinds_in_one_line(self, load):
        state = {**STATE, "0.weight": torch.ones(3, 9), "head.weight": torch.ones(1)}
        del state["2.0.bias"]
        with pytest.raises(ValueError, match="does not fit") as caught:
            load(state)
        assert str(caught.value).endswith(
            "weights.pt' does not fit net: 7 of 9 tensors match; missing: 2.0.bias; of another "
            "shape: 0.weight [3, 9] for [3, 2]; only in the file: head.weight. Give a file with "
            "the weights of net, or the `name` of the network in the file."
        )

    def test_many_names_are_cut_short(self, load):
        with pytest.raises(
            ValueError, match=r"0 of 8 .* missing: 0.weight, 0.bias, 1.weight and 5"
        ):
            load({f"x.{n}": torch.ones(n) for n in range(20)})

    def test_deeper_networks(self, load):
        with pytest.raises(ValueError, match=r"9 of 9 tensors match; only in the file: 2\.3\.bias"):
            load({**STATE, "2.3.bias": torch.ones(4)})

    def test_old_files_have_no_counters(self, load):
        old = {name: tensor for name, tensor in STATE.items() if "num_batches" not in name}
        made, loaded = load(old)
        assert_loaded(made, {**STATE, "1.num_batches_tracked": torch.tensor(0)})
        assert loaded.count == 8


class Own:
    """An object of a user's."""


class TestFiles:
    @pytest.mark.parametrize("suffix", [".safetensors"])
    def test_safetensors(self, tmp_path, suffix):
        file, made = tmp_path / f"weights{suffix}", network()
        save_file(prefixed("module."), file)
        load_weights(made, "net", find_weights(file, made))
        assert_loaded(made)

    def test_without_safetensors(self, tmp_path, monkeypatch):
        (tmp_path / "x.safetensors").write_bytes(b"")
        monkeypatch.setitem(sys.modules, "safetensors.torch", None)
        with pytest.raises(ImportError, match="pip install safetensors"):
            find_weights(tmp_path / "x.safetensors", network())

    def test_the_older_format_of_torch(self, tmp_path):
        torch.save(STATE, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
        assert len(find_weights(tmp_path / "x.pt", network()).tensors) == 9

    @pytest.mark.parametrize("value", [argparse.Namespace(lr=1), Path("data")])
    def test_arguments_beside_the_weights(self, load, value):
        assert_loaded(load({"args": value, "model": STATE})[0])

    @pytest.mark.parametrize("value", [Own(), network(), print, np.float64(1)])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_pickled_objects_are_refused(self, tmp_path, value, zipped):
        content = {"state_dict": STATE, "extra": value}
        torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(
            ValueError, match="holds pickled objects such as .* If you trust it"
        ) as e:
            find_weights(tmp_path / "x.pt", network())
        assert "\n" not in str(e.value)

    @pytest.mark.filterwarnings("ignore")
    def test_programs_are_refused(self, tmp_path):
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "x.pt")
        with pytest.raises(ValueError, match="holds a TorchScript program"):
            find_weights(tmp_path / "x.pt", network())

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"some text\n",
            b"<!DOCTYPE html>",
            bytes(500),
            bytes(range(256)),
            pickle.dumps([1]),
            b"PK\3\4 a zip, or its beginning",
        ],
    )
    def test_foreign_files_are_named(self, tmp_path, suffix, content):
        file = tmp_path / f"x{suffix}"
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged or no weights file") as caught:
            find_weights(file, network())
        assert f"'{file}' ({len(content)} bytes)" in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("share", [0.3, 0.9])
    def test_truncated_files_are_named(self, tmp_path, zipped, share):
        file = tmp_path / "x.pt"
        torch.save(STATE, file, _use_new_zipfile_serialization=zipped)
        os.truncate(file, int(share * file.stat().st_size))
        with pytest.raises(ValueError, match="x.pt' .* is damaged"):
            find_weights(file, network())

    @pytest.mark.parametrize("content", [{}, [1, "a"], {"epoch": 3}, torch.ones(2)])
    def test_no_tensors(self, load, content):
        with pytest.raises(ValueError, match="holds no tensors"):
            load(content)


class TestFindFile:
    @pytest.mark.parametrize("kind", [str, Path])
    def test_paths(self, tmp_path, monkeypatch, kind):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "w.pth").touch()
        assert find_file(kind("~/w.pth"), []) == tmp_path / "w.pth"
        assert find_file(kind("w.pth"), []) == Path("w.pth")

    @pytest.mark.parametrize("text", ["./resnet", "resnet.pth", "a/b", "~/x.ckpt", "x.safetensors"])
    def test_a_file_that_does_not_exist(self, text):
        absolute = os.path.abspath(os.path.expanduser(text))
        with pytest.raises(ValueError, match="there is no file") as caught:
            find_file(text, ["A"])
        assert repr(absolute) in str(caught.value)

    @pytest.mark.parametrize("value", ["BEST", "", "None", True, 3, ["x"]])
    def test_neither_name_nor_path(self, value):
        with pytest.raises(ValueError, match=r"must be one of \['A', 'B'\], an existing file"):
            find_file(value, ["A", "B"])

    def test_folders_and_addresses(self, tmp_path):
        with pytest.raises(ValueError, match="is a folder. Give a file in it"):
            find_file(tmp_path, [])
        with pytest.raises(ValueError, match="Download it and give its path"):
            find_file("https://host/x.pth", [])


@pytest.mark.parametrize("rank", [0, 1])
def test_is_told_once_and_on_one_process(load, caplog, monkeypatch, rank):
    from lightning.pytorch.utilities import rank_zero_only

    logger = logging.getLogger("lightning.pytorch")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    with caplog.at_level(logging.INFO):
        load({"state_dict": {**STATE, "fc.weight": torch.ones(1)}})
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (1 if rank == 0 else 0)
    if told:
        assert told[0].startswith("net: 9 of 9 tensors from ")
        assert told[0].endswith("weights.pt ('state_dict/'); not used: fc.weight")
