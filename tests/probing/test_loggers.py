import importlib

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from gga_lightning.probing.loggers import Silence, silent_logger


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_reads_like_the_real_one_and_writes_nothing(kind, tmp_path):
    if kind is TensorBoardLogger:
        importlib.import_module("tensorboard")
    logger = kind(tmp_path, name="name", version=3)
    silent = silent_logger(logger)
    assert isinstance(silent, kind)
    for name in ("name", "version", "log_dir", "root_dir", "save_dir"):
        assert getattr(silent, name) == getattr(logger, name)
    silent.log_metrics({"a": 1.0}, step=0)
    silent.log_hyperparams({"a": 1})
    silent.experiment.log_metrics({"a": 1.0})
    silent.experiment.add_histogram("w", torch.ones(2), 0)
    silent.save()
    silent.finalize("success")
    assert list(tmp_path.iterdir()) == []
    assert logger._experiment is None


def test_plain_values_of_the_experiment_are_the_real_ones(tmp_path):
    logger = CSVLogger(tmp_path)
    experiment = logger.experiment
    silent = silent_logger(logger)
    assert silent.experiment.log_dir == experiment.log_dir
    silent.experiment.log_metrics({"a": 1.0})
    assert experiment.metrics == []


def test_anything_can_be_done_with_silence():
    silence = Silence()
    with silence.run(1).deep["key"] as inner:
        inner.value = 3
        inner["x"] = 4
        inner.config.update({"a": 1})
    assert list(silence) == []
    assert len(silence) == 0
    assert silence
