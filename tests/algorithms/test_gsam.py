from functools import partial

import pytest
import torch

from gga_lightning.algorithms import GSAM
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check_update, descend
from tests.algorithms.test_sam import two_gradients


def test_three_updates_by_the_papers_formula():
    def update(*arguments):
        *networks, parts, _ = arguments
        here, there = two_gradients(networks, parts, lambda norm: 0.5 / norm)
        g, new = (torch.cat([part.flatten() for part in own]) for own in (here, there))
        orthogonal = g - (g @ new) / (new @ new) * new
        step = (new - 0.7 * orthogonal).split([part.numel() for part in here])
        descend(networks, [s.view_as(part) for s, part in zip(step, here, strict=True)])

    check_update(partial(GSAM, rho=0.5, alpha=0.7), update)


def test_alpha():
    with pytest.raises(ValueError, match="`alpha` must not be negative, got -1"):
        GSAM(MLP((8,)), 3, alpha=-1)
