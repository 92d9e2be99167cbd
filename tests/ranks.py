"""Runs the same trainings on one process and on two gloo processes, in a fresh interpreter.

One interpreter imports everything once and forks the two ranks once. A slow machine then spends
its time on the trainings, not on starting processes.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.multiprocessing import start_processes

# Minutes on a quiet machine's seconds: at ten busy processes a core, a worker is ten times slower.
SECONDS = 1500
TIMEOUT = pytest.mark.timeout(SECONDS + 100)  # for the modules whose fixture calls `work`


def chosen(request):
    """The names of the parametrized tests, of this fixture's module, that are to run."""
    tests = [item for item in request.session.items if hasattr(item, "callspec")]
    return sorted({t.callspec.params["name"] for t in tests if t.module is request.module})


def work(module, folder, names):
    """Runs `module`, whose main part calls `fork`, for these names, and waits until it ends."""
    root = Path(__file__).resolve().parents[1]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-m", module, str(folder), *names],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def fork(train):
    """Calls `train(folder, 2, names)` in two forked processes, and with 1 in this one."""
    folder, *names = sys.argv[1:]
    folder = Path(folder)
    torch.set_num_threads(1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    two = start_processes(
        _rank, (train, folder, port, names), nprocs=2, join=False, start_method="fork"
    )
    train(folder, 1, names)
    while not two.join():  # raises what a rank raised, and ends the other one
        pass


def _rank(rank, train, folder, port, names):
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ.update(where, LOCAL_RANK=str(rank), NODE_RANK="0")
    train(folder, 2, names)
