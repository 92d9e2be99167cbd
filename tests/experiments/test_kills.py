"""A sweep that is ended again and again, at random moments, ends as an uninterrupted one does.

`GGA_KILLS=100 GGA_SECONDS=20 pytest -m slow tests/experiments/test_kills.py` does it a hundred
times, late enough to fall into the training on a slow machine too.
"""

import itertools
import json
import os
import random
import signal
import subprocess

import pytest

from tests.experiments.killed import start_training

KILLS = int(os.environ.get("GGA_KILLS", "6"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SECONDS = float(os.environ.get("GGA_SECONDS", "6"))  # that a process may live at most
SWEEP = ("-m", "data=toy", "annealing=gga_l", "callbacks=checkpoint", "hydra.sweep.dir=s")
SWEEP += ("seed=0,1", f"trainer.max_steps={200 * KILLS}", "data.steps_per_epoch=100")


def outcome(folder):
    """What must not depend on interruptions, of each job."""
    found = {}
    for path in sorted(file.parent for file in (folder / "s").glob("*/job.json")):
        result = json.loads((path / "result.json").read_text())
        kept = sorted(file.name for file in (path / "checkpoints").glob("*.ckpt"))
        same = {name: result[name] for name in ("selections", "evaluations", "steps", "diverged")}
        found[path.name] = (same, kept, (path / "metrics.csv").read_bytes())
    return found


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_sweep_survives_kills(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = start_training(tmp_path / "whole", *SWEEP)
    _, errors = whole.communicate()
    assert whole.returncode == 0, errors

    folder, draw, statuses = tmp_path / "killed", random.Random(0), []
    for number in itertools.islice(itertools.cycle(SIGNALS), KILLS):
        process = start_training(folder, *SWEEP)
        try:
            process.communicate(timeout=draw.uniform(0.0, SECONDS))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            process.communicate()
        statuses.append(process.returncode)
    # a signal before the command has set its handlers ends it as Python does
    assert set(statuses) <= {0, 1, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
    last = start_training(folder, *SWEEP)
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert outcome(folder) == outcome(tmp_path / "whole")
