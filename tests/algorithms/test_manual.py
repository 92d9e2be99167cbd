import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from gga_lightning import GradientGuidedNoise
from gga_lightning.algorithms import SAM, ANDMask
from gga_lightning.backbones import MLP
from tests.helpers import combined_loader, copies, domain_batch, same, trainer


class Normalized(nn.Sequential):
    out_features = 16

    def __init__(self):
        super().__init__(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU())


def test_displaced_comes_back_bit_for_bit_also_after_an_error():
    module = ANDMask(Normalized(), 3)
    before, buffers = copies(module), [b.clone() for b in module.buffers()]
    direction = [torch.randn_like(param) for param in module.parameters()]
    with pytest.raises(ZeroDivisionError), module.displaced(direction, 0.1):
        assert not same(before, copies(module))
        module.objective(domain_batch())
        assert same(buffers, list(module.buffers()))  # statistics belong to the parameters
        raise ZeroDivisionError
    assert same(before, copies(module))
    module.objective(domain_batch())
    assert not same(buffers, list(module.buffers()))


def test_half_precision_sees_displaced_parameters():
    """Autocast may hold copies of parameters, which a displacement would make stale."""
    gradients = {}

    class Sees(SAM):
        def combine(self, gradient, displaced):
            gradients[self.trainer.precision] = displaced
            return super().combine(gradient, displaced)

    torch.manual_seed(0)
    initial = Sees(MLP((8,)), 3, rho=3.0).state_dict()
    for precision in ("32-true", "bf16-mixed"):
        module = Sees(MLP((8,)), 3, rho=3.0)
        module.load_state_dict(initial)
        fit = trainer(max_steps=1, precision=precision, limit_val_batches=0)
        fit.fit(module, combined_loader(), [])
    plain, half = (torch.cat([g.flatten() for g in own]) for own in gradients.values())
    assert torch.cosine_similarity(plain, half, dim=0) > 0.99


def test_steps_and_callbacks_see_one_step_a_batch():
    class Sees(GradientGuidedNoise):
        calls = 0

        def on_before_optimizer_step(self, *args):
            type(self).calls += 1
            super().on_before_optimizer_step(*args)

    fit = trainer(Sees(1e-3), max_steps=5, limit_val_batches=0)
    fit.fit(ANDMask(MLP((8,)), 3), combined_loader(), [])
    assert fit.global_step == 5
    assert Sees.calls == 5


def test_frozen_parameters_stay():
    module = ANDMask(MLP((8,)), 3)
    module.featurizer.requires_grad_(False)
    before = copies(module.featurizer)
    head = copies(module.classifier)
    trainer(max_steps=2, limit_val_batches=0).fit(module, combined_loader(), [])
    assert same(before, copies(module.featurizer))
    assert not same(head, copies(module.classifier))


def test_float16_is_refused():
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    fit = trainer(plugins=[plugin], limit_val_batches=0)
    with pytest.raises(MisconfigurationException, match="ANDMask .* float16.* Take 'bf16-mixed'"):
        fit.fit(ANDMask(MLP((8,)), 3), combined_loader(), [])


def test_sharded_parameters_are_refused(monkeypatch):
    fit = trainer(limit_val_batches=0)
    module = ANDMask(MLP((8,)), 3)
    module.trainer = fit
    monkeypatch.setattr(type(fit), "strategy", FSDPStrategy())
    with pytest.raises(MisconfigurationException, match="with DDP, got FSDPStrategy"):
        module.setup("fit")
