"""The search for hyperparameters by Optuna, as the configuration advertises it."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")

SMALL = ("data=toy", "annealing=none", "callbacks=checkpoint", "trainer.max_steps=4")
SMALL += ("data.steps_per_epoch=2", "hydra.sweep.dir=s")


def search(folder, trials, *overrides):
    """Runs a search in a process of its own and returns what it printed."""
    command = [sys.executable, "-m", "gga_lightning.experiments.train", "-m"]
    command += ["hydra/sweeper=optuna_validation", f"hydra.sweeper.n_trials={trials}"]
    command += [*SMALL, *overrides]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, check=False, cwd=folder
    )
    return done.returncode, done.stdout, done.stderr


def rates(folder):
    """The learning rates tried, from their run folders."""
    found = [json.loads(p.read_text()) for p in (folder / "s").glob("*/result.json")]
    return {result["settings"]["algorithm.optimizer.lr"] for result in found}


@pytest.mark.slow
def test_the_same_command_continues_a_search(tmp_path):
    assert search(tmp_path, 2)[0] == 0
    first = rates(tmp_path)
    status, output, _ = search(tmp_path, 4)
    assert status == 0
    assert output.count("already finished") == 2
    assert first < rates(tmp_path)
    assert len(rates(tmp_path)) == 4


@pytest.mark.slow
def test_failed_trials_do_not_end_a_search(tmp_path):
    status, _, errors = search(tmp_path, 4, "data.batch_size=choice(8,0,16)")
    assert status == 0
    failed = errors.count("`batch_size` must be at least 1, got 0.")
    assert failed >= 1
    assert len(rates(tmp_path)) + len(list((tmp_path / "s").glob("*/failure.json"))) == 4
    assert rates(tmp_path)


@pytest.mark.slow
def test_a_search_whose_trials_all_fail_fails(tmp_path):
    status, _, errors = search(tmp_path, 2, "data.batch_size=choice(0,-1)")
    assert status == 1
    assert "`batch_size` must be at least 1" in errors
