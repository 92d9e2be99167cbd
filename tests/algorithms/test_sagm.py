from functools import partial

import pytest

from gga_lightning.algorithms import SAGM
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check_update, descend
from tests.algorithms.test_sam import two_gradients


def test_three_updates_by_the_papers_formula():
    def update(*arguments):
        *networks, parts, _ = arguments
        here, there = two_gradients(networks, parts, lambda norm: 0.5 / norm - 0.2)
        descend(networks, [(a + b) / 2 for a, b in zip(here, there, strict=True)])

    check_update(partial(SAGM, rho=0.5, alpha=0.2), update)


def test_alpha():
    with pytest.raises(ValueError, match="`alpha` must not be negative, got -1"):
        SAGM(MLP((8,)), 3, alpha=-1)
