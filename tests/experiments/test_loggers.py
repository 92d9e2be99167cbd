import csv
import os
import sqlite3
import sys
from contextlib import closing

import pytest
import yaml

from gga_lightning.experiments import train
from tests.helpers import on_digits

NAMES = {"train/loss", "val/acc", "test/left/acc"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs gga-train with a logger, and returns its run folder."""

    def run(logger, *overrides):
        small = ["data=toy", "trainer.max_steps=4", "trainer.log_every_n_steps=1"]
        small += ["data.steps_per_epoch=2", "annealing=none", "callbacks=checkpoint"]
        argv = ["gga-train", f"logger={logger}", *small, f"hydra.run.dir={tmp_path / 'run'}"]
        monkeypatch.setattr(sys, "argv", on_digits([*argv, *overrides]))
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        train.main()
        with open(tmp_path / "run/metrics.csv", newline="") as file:
            assert set(next(csv.reader(file))) >= NAMES
        assert os.listdir(tmp_path) == ["run"]
        return tmp_path / "run"

    return run


def test_tensorboard(run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run("tensorboard") / "tensorboard")).Reload()
    assert set(found.Tags()["scalars"]) >= NAMES
    assert [event.step for event in found.Scalars("val/acc")] == [1, 3]
    told = yaml.safe_load((tmp_path / "run/tensorboard/hparams.yaml").read_text())
    assert (told["algorithm"], told["test_domain"], told["seed"]) == ("erm", "left", 0)
    assert told["trainer.max_steps"] == 4
    assert told["backbone.widths"] == [32]
    assert told["algorithm.optimizer.lr"] == 1e-3


def test_wandb(run, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "")  # Lightning sets it
    folder = run("wandb")
    (recorded,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    wandb.teardown()
    assert b"val/acc" in recorded.read_bytes()
    assert b"trainer.max_steps" in recorded.read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_mlflow(run, monkeypatch):
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # mlflow sets it
    folder = run("mlflow")
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        rows = database.execute("select key, step from metrics").fetchall()
        assert {key for key, _ in rows} >= NAMES
        assert sorted(step for key, step in rows if key == "val/acc") == [1, 3]
        told = dict(database.execute("select key, value from params").fetchall())
        assert (told["algorithm"], told["test_domain"], told["trainer.max_steps"]) == (
            "erm",
            "left",
            "4",
        )
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]
