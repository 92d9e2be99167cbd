"""Every algorithm on two processes: alike on both, and where it can be, as one process does."""

import pytest
import torch

from tests.algorithms.distributed_worker import AS_ONE
from tests.algorithms.test_every_algorithm import NAMES
from tests.helpers import mostly_slow, same
from tests.ranks import TIMEOUT, chosen, work

pytestmark = TIMEOUT
# By what they share between processes: the gradients alone, a matrix of them, networks of their
# own, statistics or weights of domains, and running statistics, which they do not share.
QUICK = ("erm", "fish", "agr_rand", "dann", "mtl", "group_dro", "selfreg", "sagnet")


@pytest.fixture(scope="module")
def left(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    work("tests.algorithms.distributed_worker", folder, chosen(request))

    def load(name, devices, rank):
        return torch.load(folder / f"{name}-{devices}-{rank}.pt", weights_only=True)

    return load


@pytest.mark.parametrize("name", mostly_slow(NAMES, *QUICK))
def test_ranks_end_alike(left, name):
    first, second = left(name, 2, 0), left(name, 2, 1)
    # running statistics are each process's own, as always without SyncBatchNorm
    own = [key for key in first if "running_" in key]
    assert bool(own) == (name in ("arm", "selfreg"))
    assert same(*({k: v for k, v in end.items() if k not in own} for end in (first, second)))


@pytest.mark.parametrize("name", mostly_slow(AS_ONE, *QUICK))
def test_two_processes_end_as_one_on_the_joined_batches(left, name):
    torch.testing.assert_close(left(name, 1, 0), left(name, 2, 0))
