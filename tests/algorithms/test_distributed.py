"""Every algorithm on two processes: alike on both, and where it can be, as one process does."""

import pytest
import torch

from tests.algorithms.distributed_worker import AS_ONE
from tests.algorithms.test_every_algorithm import NAMES
from tests.helpers import same
from tests.ranks import TIMEOUT, work

pytestmark = TIMEOUT


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    work("tests.algorithms.distributed_worker", folder)

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
