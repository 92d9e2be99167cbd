"""Each task trains, resumes, evaluates, predicts and is reported, with GGA on top."""

import json
import sys

import pytest
from PIL import Image

from gga_lightning.experiments import evaluate, predict, train
from gga_lightning.experiments.checkpoints import read_checkpoint
from gga_lightning.report.cli import main as report
from tests.helpers import same

METRICS = {"multi_label": "f1", "regression": "rmse", "segmentation": "miou"}
TITLES = {"multi_label": "F1 in %", "regression": "RMSE", "segmentation": "mIoU in %"}
SMALL = (
    "data=segmentation_toy",
    "data.dataset.pictures=12",
    "data.batch_size=4",
    "data.steps_per_epoch=3",
    "trainer.max_steps=6",
    "trainer.log_every_n_steps=1",
    "backbone.widths=[8,8]",
    "callbacks=checkpoint",
)
ANNEALINGS = {
    "none": (),
    "gga_guided": ("annealing.start_step=1", "annealing.end_step=5", "annealing.num_candidates=2"),
    "voting": ("annealing.end_step=4",),
}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    def run(task, annealing, *overrides, folder):
        words = (*SMALL, f"task={task}", f"annealing={annealing}", *ANNEALINGS[annealing])
        words = (*words, *overrides, f"hydra.run.dir={tmp_path / folder}")
        monkeypatch.setattr(sys, "argv", ["gga-train", *words])
        train.main()
        capsys.readouterr()
        return tmp_path / folder

    return run


def weights(folder):
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.mark.parametrize(
    ("task", "annealing"),
    [
        ("segmentation", "gga_guided"),
        *[
            pytest.param(task, annealing, marks=pytest.mark.slow)
            for task in METRICS
            for annealing in ANNEALINGS
            if (task, annealing) != ("segmentation", "gga_guided")
        ],
    ],
)
def test_from_training_to_report(task, annealing, run, monkeypatch, tmp_path, capsys):
    folder = run(task, annealing, folder="runs/straight")
    metric = METRICS[task]

    # its result
    result = json.loads((folder / "result.json").read_text())
    assert (result["task"], result["metric"]["name"]) == (task, metric)
    assert set(result["selections"]["last"]) == {
        "step", f"val_{metric}", f"oracle_{metric}", f"test_{metric}",
    }  # fmt: skip
    better = max if result["metric"]["higher_is_better"] else min
    found = [
        sum(value for name, value in passed["values"].items() if name.startswith("val/")) / 3
        for passed in result["evaluations"]
    ]
    chosen = result["selections"]["training_domain_validation"]
    assert chosen[f"val_{metric}"] == pytest.approx(better(found))
    assert f"val/plain/{metric}" in (folder / "metrics.csv").read_text()

    # resumed after an interruption
    def interrupted(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 4:
            raise RuntimeError("interrupted")

    with monkeypatch.context() as patched:
        patched.setattr(train.ValidationHistory, "on_train_batch_end", interrupted, raising=False)
        patched.setenv("HYDRA_FULL_ERROR", "1")
        with pytest.raises(RuntimeError, match="interrupted"):
            run(task, annealing, folder="other/resumed")
    resumed = run(task, annealing, folder="other/resumed")
    assert json.loads((resumed / "result.json").read_text())["starts"] == [0, 3]
    assert same(weights(folder), weights(resumed))

    # evaluated
    [score] = evaluate.evaluate(folder, device="cpu")
    assert (score.domain, score.metric) == ("textured", metric)
    assert score.value == pytest.approx(chosen[f"test_{metric}"], abs=1e-5)

    # predicts
    Image.new("RGB", (40, 50), "red").save("red.png")  # in tmp_path
    model = evaluate.load_model(folder)
    one = model.predict("red.png")
    assert predict.main([str(folder), "red.png", "--format", "json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row.pop("file") == "red.png"
    assert row == one.entries()
    for kind in ("csv", "table"):
        assert predict.main([str(folder), "red.png", "--format", kind]) == 0
        assert "red.png" in capsys.readouterr().out

    # reported
    assert report([str(tmp_path / "runs"), "--format", "markdown"]) == 0
    text = capsys.readouterr().out
    assert f"Held-out {TITLES[task]}, " in text
    test = chosen[f"test_{metric}"]
    assert f"| {test:.4g} |" in text if task == "regression" else f"| {100 * test:.1f} |" in text


def test_targets_of_another_task_end_the_command(run, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run("segmentation", "none", "data.dataset.task=regression", folder="wrong")
    message = capsys.readouterr().err
    assert "the targets of domain 'plain' of 'segmentation_toy' must be integers" in message


def test_segmentation_needs_feature_maps(run, capsys):
    with pytest.raises(SystemExit):
        run("segmentation", "none", "backbone=mlp", folder="wrong")
    assert "`backbone=small_cnn`" in capsys.readouterr().err


def test_the_identity_of_classification_does_not_name_the_task():
    from hydra import compose, initialize_config_dir

    from gga_lightning.experiments.identity import config_hash, settings

    with initialize_config_dir(train.config_directory(), version_base="1.3"):
        config = compose("train", ["data=toy"])
        other = compose("train", ["data=toy", "task=regression"])
    found = settings(config)[0]
    assert not any("task" in name for name in found)
    del config.task
    del config.data.dataset.task  # as in the configurations of earlier versions
    assert settings(config)[0] == found
    assert config_hash(config) != config_hash(other)
    assert settings(other)[0]["task.metric"] == "rmse"
