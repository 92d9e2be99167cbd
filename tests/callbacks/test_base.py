"""What the callbacks share and no real trainer on a CPU can show."""

import warnings
from types import SimpleNamespace

import pytest
from torch import nn

from gga_lightning.callbacks._reader import DomainReader
from tests.helpers import Classifier

LACKING = SimpleNamespace(domains=("a", "b"), missing={1: ["b"]}, left_out=())


@pytest.fixture
def reader():
    settings = dict.fromkeys(("domain_loss", "split", "full_precision", "redraw_randomness"))
    return DomainReader("Monitor", **settings)


def test_domain_missing_on_a_rank_is_no_obstacle(reader):
    with pytest.warns(UserWarning, match="rank 1 has no sample of 'b' .* other ranks alone there"):
        assert reader._is_usable(Classifier(), LACKING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reader._is_usable(Classifier(), LACKING)  # said once


def test_but_for_synchronized_batchnorm_which_would_wait_for_that_rank(reader):
    module = Classifier()
    module.featurizer[1] = nn.SyncBatchNorm(16)
    with pytest.warns(UserWarning, match="trained on as usual, since SyncBatchNorm needs every"):
        assert not reader._is_usable(module, LACKING)
