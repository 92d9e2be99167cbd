import json
import math

import pytest
import torch

from gga_lightning.report import cli as report
from tests.experiments.test_evaluate import run

pytestmark = pytest.mark.filterwarnings("always:The training diverged")  # and not an error

SHORT = ("data=toy", "annealing=none", "callbacks=checkpoint", "logger=csv")
SHORT += ("trainer.max_steps=40", "data.steps_per_epoch=5")
# rates at which the network's weights overflow
RATES = ["1e30", "1e36", "3e37"]


def result(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("rate", RATES)
def test_a_diverged_training_ends_and_is_marked(tmp_path, capsys, rate):
    folder = run(tmp_path / "run", *SHORT, f"algorithm.optimizer.lr={rate}")
    found = result(folder)
    assert found["diverged"] is not None
    assert found["diverged"] % 5 == 0
    assert found["steps"] < 40
    assert capsys.readouterr().err.count("The training diverged") == 1
    assert report.main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "erm (1 diverged)" in " ".join(printed.split())
    assert f"loss or weights not finite by step {found['diverged']}" in " ".join(printed.split())


def test_an_ordinary_training_is_not(tmp_path, capsys):
    folder = run(tmp_path / "run", *SHORT)
    assert result(folder)["diverged"] is None
    assert result(folder)["steps"] == 40
    assert "diverged" not in capsys.readouterr().err
    assert report.main([str(folder)]) == 0
    assert "diverged" not in capsys.readouterr().out


def test_a_result_of_an_earlier_version_has_no_mark(tmp_path, capsys):
    folder = run(tmp_path / "run", *SHORT)
    old = result(folder)
    del old["diverged"]
    (folder / "result.json").write_text(json.dumps(old))
    assert report.main([str(folder)]) == 0
    assert "diverged" not in capsys.readouterr().out


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", [0, -1])
def test_a_single_weight_is_enough(value, which):
    from gga_lightning.experiments.divergence import _are_finite

    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    assert _are_finite(module)
    list(module.parameters())[which].data.view(-1)[0] = value
    assert not _are_finite(module)
    for parameter in module.parameters():
        parameter.requires_grad_(False)  # frozen ones may be anything: masks of -inf, for instance
    assert _are_finite(module)
