"""Two processes (gloo): equal decisions, equal parameters, and those of one process.

The scenarios of distributed_worker.py run once, in a process of their own; the tests read what
its ranks left.
"""

import pytest
import torch

from tests.helpers import mostly_slow, same
from tests.ranks import TIMEOUT, chosen, work

pytestmark = TIMEOUT

SEARCHES = ("walk", "climb", "guided", "orthogonal")
SCENARIOS = ("dicts", "accumulated", "mixed", "lopsided", *SEARCHES)
QUICK = ("dicts", "accumulated", "mixed", "lopsided", "climb", "guided")


@pytest.fixture(scope="module")
def left(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    names = {*chosen(request), "mixed", "lopsided"}  # the last test has no parameter
    work("tests.callbacks.distributed_worker", folder, sorted(names))

    def load(name, ranks, rank):
        return torch.load(folder / f"{name}-{ranks}-{rank}.pt", weights_only=False)

    return load


@pytest.mark.parametrize("name", mostly_slow([*SCENARIOS, "shuffled"], *QUICK))
def test_ranks_end_alike(left, name):
    first, second = left(name, 2, 0), left(name, 2, 1)
    assert same(first["state"], second["state"])
    assert first["records"] == second["records"]
    assert same(first["cosines"], second["cosines"])
    assert first["alpha"] == second["alpha"] > 0
    assert first["votes"] == second["votes"]


@pytest.mark.parametrize("name", mostly_slow(SCENARIOS, *QUICK))
def test_two_processes_decide_as_one_on_the_joined_batches(left, name):
    one, two = left(name, 1, 0), left(name, 2, 0)
    assert len(one["records"]) == 3
    accepted = [record[5] for record in one["records"]]
    assert sum(accepted) > 0
    assert accepted == [record[5] for record in two["records"]]
    for mine, other in zip(one["records"], two["records"], strict=True):
        assert mine == pytest.approx(other, abs=1e-9)
    torch.testing.assert_close(one["cosines"], two["cosines"])
    for mine, other in zip(one["votes"], two["votes"], strict=True):
        assert mine == pytest.approx(other)
    assert len(one["votes"]) > 0


@pytest.mark.parametrize("name", mostly_slow(SCENARIOS, *QUICK))
def test_two_processes_end_as_one(left, name):
    one, two = left(name, 1, 0), left(name, 2, 0)
    torch.testing.assert_close(one["state"], two["state"])


def test_a_domain_missing_on_a_rank_is_said_once(left):
    said = [text for text in left("lopsided", 2, 0)["warnings"] if "GradientGuidedAnn" in text]
    assert said == [
        "GradientGuidedAnnealing: rank 1 has no sample of '2' in its part of a batch; its "
        "gradient comes from the other ranks alone there."
    ]
    assert not any("no sample" in text for text in left("mixed", 2, 0)["warnings"])
