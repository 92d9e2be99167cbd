import contextlib
import copy
import itertools

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn import functional

from gga_lightning import GradientGuidedNoise, LinearProbe
from gga_lightning.algorithms import ERM, SAM, Fish, Fishr, PGrad, SagNet, Transfer
from gga_lightning.backbones import MLP
from gga_lightning.data import Digits, DomainDataModule
from tests.helpers import Classifier, combined_loader, same, trainer

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")


class Weights(Callback):
    """Copies of the weights as each batch begins, and after the last."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(copy.deepcopy(pl_module.state_dict()))

    def on_train_end(self, trainer, pl_module):
        self.seen.append(copy.deepcopy(pl_module.state_dict()))

    def changed(self, start):
        """For each step, whether any weight whose name begins like that changed."""
        names = [name for name in self.seen[0] if name.startswith(start)]
        return [
            any(not torch.equal(before[name], after[name]) for name in names)
            for before, after in itertools.pairwise(self.seen)
        ]


def fitted(module, *callbacks, **settings):
    torch.manual_seed(0)
    weights = Weights()
    run = trainer(*callbacks, weights, **settings)
    run.fit(module, combined_loader())
    return weights, run


@pytest.mark.parametrize("algorithm", [ERM, SAM, Fishr, Fish, PGrad, SagNet, Transfer])
def test_the_network_stays_until_the_end_step(algorithm):
    with_decay = lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.1)  # noqa: E731
    module = algorithm(MLP((8,), widths=[16]), 3, optimizer=with_decay)
    weights, _ = fitted(module, LinearProbe(3))
    featurizer = weights.changed("featurizer.")
    if algorithm is SAM:  # leaves the weights, and comes back to within rounding
        for before, after in itertools.pairwise(weights.seen[:4]):
            for name in before:
                if name.startswith("featurizer."):
                    torch.testing.assert_close(before[name], after[name])
        assert featurizer[3:] == [True] * 3
    else:
        assert featurizer == [False] * 3 + [True] * 3
    assert weights.changed("classifier.") == [True] * 6


def test_the_steps_are_those_of_a_classifier_on_fixed_features_and_then_of_all():
    torch.manual_seed(1)
    module = ERM(MLP((8,), widths=[16]), 3, optimizer=lambda params: torch.optim.Adam(params, 0.01))
    copied = copy.deepcopy(module)
    fitted(module, LinearProbe(2), max_steps=5)
    head = list(copied.classifier.parameters())
    optimizer = torch.optim.Adam(list(copied.featurizer.parameters()) + head, 0.01)
    for step, (batch, _, _) in zip(range(5), combined_loader(), strict=False):
        if step == 2:  # begun anew
            optimizer = torch.optim.Adam(copied.parameters(), 0.01)
        inputs = torch.cat([inputs for inputs, _ in batch.values()])
        targets = torch.cat([targets for _, targets in batch.values()])
        with torch.set_grad_enabled(step >= 2):
            features = copied.featurizer(inputs)
        optimizer.zero_grad()
        functional.cross_entropy(copied.classifier(features), targets).backward()
        optimizer.step()
    for found, expected in zip(module.parameters(), copied.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "choice", [r"featurizer\.0", lambda name, param: name.startswith("featurizer.0")]
)
def test_other_parameters_in_any_module(choice):
    weights, _ = fitted(Classifier(), LinearProbe(4, parameters=choice))
    assert weights.changed("featurizer.0.") == [False] * 4 + [True] * 2
    assert weights.changed("featurizer.1.weight") == [True] * 6


class Modes(Callback):
    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        training = {name for name, part in pl_module.named_modules() if part.training}
        self.seen.append(training)


def test_statistics_and_dropout_wait_too():
    modes = Modes()
    module = Classifier()
    weights, _ = fitted(module, LinearProbe(2), modes, max_steps=4)
    everything = {name for name, _ in module.named_modules()}
    held = {name for name in everything if name.startswith("featurizer")}
    assert "featurizer.3" in held  # the dropout
    assert modes.seen == [everything - held] * 2 + [everything] * 2
    assert weights.changed("featurizer.1.running_mean") == [False] * 2 + [True] * 2
    assert module.featurizer.training


@pytest.mark.parametrize("breaks_off", [False, True])
def test_the_optimizer_is_not_watched_after_the_training(breaks_off):
    class Breaks(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if breaks_off:
                raise RuntimeError("broken")

    module = Fish(MLP((8,), widths=[16]), 3)
    run = trainer(LinearProbe(9), Breaks(), limit_val_batches=0)
    with pytest.raises(RuntimeError, match="broken") if breaks_off else contextlib.nullcontext():
        run.fit(module, combined_loader(), [])
    for param in module.parameters():
        param.grad = torch.ones_like(param)
    start = copy.deepcopy(module.featurizer.state_dict())
    run.optimizers[0].step()
    assert not same(module.featurizer.state_dict(), start)


def test_modes_are_put_back_after_an_error():
    module = Classifier()

    def breaks(*_):
        raise RuntimeError("broken")

    module.on_before_optimizer_step = breaks
    with pytest.raises(RuntimeError, match="broken"):
        fitted(module, LinearProbe(2))
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("first", [True, False])
def test_noise_on_gradients_does_not_reach_what_is_held(first):
    callbacks = [LinearProbe(3), GradientGuidedNoise(0.1)]
    weights, _ = fitted(Classifier(), *(callbacks if first else callbacks[::-1]))
    assert weights.changed("featurizer.0.") == [False] * 3 + [True] * 3


def test_gradients_are_accumulated_for_steps_not_batches():
    weights, _ = fitted(Classifier(), LinearProbe(1), max_steps=2, accumulate_grad_batches=3)
    assert weights.changed("featurizer.0.weight") == [False] * 5 + [True]


@pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:Be aware that when using `ckpt_path`",
)
@pytest.mark.parametrize("stop", [2, 5])
def test_a_resumed_run_equals_the_straight_one(tmp_path, stop):
    def run(steps, **settings):
        torch.manual_seed(3)
        module = ERM(MLP((1, 8, 8), widths=[8]), 10)
        saved = ModelCheckpoint(tmp_path, save_last=True)
        data = DomainDataModule(Digits("rotation"), -1, batch_size=8, steps_per_epoch=4)
        limits = {"max_steps": steps, "limit_val_batches": 0, "enable_checkpointing": True}
        trainer(LinearProbe(4), saved, **limits).fit(module, datamodule=data, **settings)
        return copy.deepcopy(module.state_dict())

    run(stop)
    resumed = run(7, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert same(resumed, run(7))


@pytest.mark.parametrize("end_step", [0, -1, 1.5, True, None])
def test_steps_out_of_range(end_step):
    with pytest.raises(ValueError, match="`end_step` must be an integer of at least 1"):
        LinearProbe(end_step)


@pytest.mark.parametrize("choice", ["(", 3, None])
def test_a_choice_that_is_none(choice):
    with pytest.raises(ValueError, match="`parameters` must be a regular expression"):
        LinearProbe(5, parameters=choice)


def test_a_choice_that_selects_nothing():
    with pytest.raises(MisconfigurationException, match=r"selects none.*'featurizer.0.weight'"):
        fitted(Classifier(), LinearProbe(5, parameters="backbone"))


def test_modes_are_put_back_after_a_skipped_batch():
    class Skips(Classifier):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if self.trainer.global_step == 1 else None  # ends the epoch

    module = Skips()
    fitted(module, LinearProbe(5), max_steps=-1, max_epochs=1)
    assert all(part.training for part in module.modules())
