"""Distances are small differences of large numbers: half precision would leave nothing of them."""

import pytest
import torch

from gga_lightning.algorithms import CORAL, MMD, RDM, CausIRLCORAL, CausIRLMMD
from gga_lightning.backbones import MLP
from tests.helpers import domain_batch


@pytest.mark.parametrize("kind", [MMD, CORAL, CausIRLMMD, CausIRLCORAL])
@pytest.mark.parametrize("given", [torch.bfloat16, torch.float32])
def test_the_penalty_under_autocast_is_that_in_float32(kind, given):
    def penalty(features):
        torch.manual_seed(1)  # for the cuts of CausIRL
        return module.penalty(features)

    torch.manual_seed(0)
    module = kind(MLP((8,)), 3)
    features = [(4 + torch.randn(8, 6) + 0.1 * domain).bfloat16().to(given) for domain in range(3)]
    expected = penalty([own.float() for own in features])
    assert expected > 0.01
    with torch.autocast("cpu", torch.bfloat16):
        found = penalty(features)
    assert found.dtype == torch.float32
    assert found == expected


@pytest.mark.parametrize("autocast", [True, False])
def test_the_penalty_of_losses_in_half_precision_is_that_in_float32(autocast, monkeypatch):
    module = RDM(MLP((8,)), 3, anneal_steps=0, penalty_weight=1.0, variance_weight=1.0)
    losses = [(4 + torch.randn(8) + 0.1 * domain).bfloat16() for domain in range(3)]

    def objective(losses):
        left = iter(losses)
        monkeypatch.setattr(module.task, "losses", lambda outputs, targets: next(left))
        return module.objective(domain_batch()) - torch.stack([own.mean() for own in losses]).mean()

    expected = objective([own.float() for own in losses])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        torch.testing.assert_close(objective(losses), expected)
