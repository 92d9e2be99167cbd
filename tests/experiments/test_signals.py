import signal
import time

import pytest

from gga_lightning.experiments.jobs import Job
from tests.experiments.killed import start_training

SETTINGS = ("data=toy", "annealing=none", "callbacks=checkpoint", "data.steps_per_epoch=5")
SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130}


def wait_for(pattern, folder, process):
    while process.poll() is None and not list(folder.glob(pattern)):
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_single_run_says_how_to_resume(tmp_path, number):
    process = start_training(
        tmp_path, *SETTINGS, "trainer.max_steps=1000000", "hydra.run.dir=my run"
    )
    wait_for("my run/checkpoints/last.ckpt", tmp_path, process)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == SIGNALS[number], errors
    assert f"stopped by {number.name}" in errors
    assert "to resume the training: gga-train data=toy" in " ".join(errors.split())
    assert "hydra.run.dir=" in errors
    assert not (tmp_path / "my run" / "result.json").exists()
    log = (tmp_path / "my run" / "train.log").read_text()
    assert "to resume the training" in log


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_sweep_ends_too(tmp_path, number):
    sweep = ("trainer.max_steps=1000000", "seed=0,1", "hydra.sweep.dir=s")
    process = start_training(tmp_path, "-m", *SETTINGS, *sweep)  # Hydra takes options first
    wait_for("s/*/checkpoints/last.ckpt", tmp_path, process)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == SIGNALS[number], errors
    assert "to resume the training: gga-train -m data=toy" in " ".join(errors.split())
    assert len(list((tmp_path / "s").glob("*/job.json"))) == 1, "the second job must not begin"


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_what_a_signal_ended_resumes(tmp_path, number):
    settings = ("trainer.max_steps=2000", "hydra.run.dir=run")
    process = start_training(tmp_path, *SETTINGS, *settings)
    wait_for("run/checkpoints/last.ckpt", tmp_path, process)
    process.send_signal(number)
    process.communicate()
    again = start_training(tmp_path, *SETTINGS, *settings)
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    assert len(Job(tmp_path / "run").starts) == 2
