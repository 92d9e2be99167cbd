"""Every algorithm on two processes: alike on both, and where it can be, as one process does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.algorithms.test_every_algorithm import NAMES
from tests.helpers import same

# Their objective is a mean over samples, or their gradients are averaged before use; the others'
# is of each process's own part of the batch.
AS_ONE = (
    *("erm", "and_mask", "fish", "group_dro", "jacobian_descent", "mldg", "sam", "gsam", "sagm"),
    *("sd", "dann"),
)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    root = Path(__file__).resolve().parents[2]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    common = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    ranks = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    environments = [{}, *({**ranks, "LOCAL_RANK": r, "NODE_RANK": "0"} for r in "01")]
    command = [sys.executable, "-m", "tests.algorithms.distributed_worker", str(folder)]
    running = [
        subprocess.Popen(command, cwd=root, env=common | own, stderr=subprocess.PIPE, text=True)
        for own in environments
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in running:
            process.kill()
            process.communicate()

    def load(name, devices, rank):
        return torch.load(folder / f"{name}-{devices}-{rank}.pt", weights_only=True)

    return load


@pytest.mark.parametrize("name", NAMES)
def test_ranks_end_alike(left, name):
    first, second = left(name, 2, 0), left(name, 2, 1)
    # running statistics are each process's own, as always without SyncBatchNorm
    own = [key for key in first if "running_" in key]
    assert bool(own) == (name in ("arm", "selfreg"))
    assert same(*({k: v for k, v in end.items() if k not in own} for end in (first, second)))


@pytest.mark.parametrize("name", AS_ONE)
def test_two_processes_end_as_one_on_the_joined_batches(left, name):
    torch.testing.assert_close(left(name, 1, 0), left(name, 2, 0))
