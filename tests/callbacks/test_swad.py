import math
import warnings

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, TensorDataset

from gga_lightning import SWAD
from tests.helpers import Classifier, Flat, combined_loader, copies, same, trainer

EVERY = 2  # steps between validations


class Scripted(Classifier):
    """Logs the validation losses that it is told to."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.losses[self.global_step // EVERY - 1])


class Remembers(Callback):
    """The weights after every step."""

    def __init__(self):
        self.weights = {}

    def on_train_batch_end(self, trainer, pl_module, *args):
        state = pl_module.state_dict()
        floats = {k: v.clone() for k, v in state.items() if v.is_floating_point()}
        self.weights.setdefault(trainer.global_step, floats)

    def mean(self, start, end):
        taken = [self.weights[step] for step in range(start, end)]
        return {key: torch.stack([own[key] for own in taken]).mean(0) for key in taken[0]}


def validation():
    return DataLoader(TensorDataset(torch.zeros(2)))


def run(losses, *, steps=None, module=None, **settings):
    torch.manual_seed(0)
    swad, remembers = SWAD(**settings), Remembers()
    module = module or Scripted(losses)
    steps = steps or EVERY * len(losses)
    length = {"max_steps": steps, "val_check_interval": EVERY, "num_sanity_val_steps": 0}
    fit = trainer(remembers, swad, **length)
    fit.fit(module, combined_loader(), validation())
    return swad, remembers, module, fit


def assert_average(module, remembers, start, end):
    state = module.state_dict()
    for key, value in remembers.mean(start, end).items():
        torch.testing.assert_close(state[key], value)


class TestAverage:
    """A validation every two steps: the n-th, counted from 1, is at step 2 n."""

    def test_begins_where_the_next_losses_are_no_lower_and_ends_with_the_training(self):
        swad, remembers, module, _ = run([5, 4, 3, 3.1, 3.2, 3.1], patience=3)
        assert (swad.start_step, swad.end_step) == (7, 13)
        assert_average(module, remembers, 7, 13)

    def test_equal_losses_begin_it_too(self):
        assert run([5, 4, 4, 4], patience=3)[0].start_step == 5

    def test_ends_before_losses_above_the_bound_and_stops_the_training(self):
        losses = [5, 3, 3.1, 3.2, 3.3, 9, 9, 9, 9]
        swad, remembers, module, fit = run(losses, patience=3, overfit_patience=2)
        assert (swad.start_step, swad.end_step) == (5, 11)
        assert fit.global_step == 14
        assert_average(module, remembers, 5, 11)

    def test_goes_on_where_losses_come_back(self):
        losses = [5, 3, 3.1, 3.2, 9, 3, 9, 3, 9]
        swad, remembers, module, _ = run(losses, patience=3, overfit_patience=2)
        assert (swad.start_step, swad.end_step) == (5, 19)
        assert_average(module, remembers, 5, 19)

    def test_without_stopping(self):
        losses = [5, 3, 3.1, 3.2, 3.3, 9, 9, 9, 9]
        swad, remembers, module, fit = run(losses, overfit_patience=2, stop=False)
        assert (swad.end_step, fit.global_step) == (11, 18)
        assert_average(module, remembers, 5, 11)

    def test_ends_where_it_began(self):
        swad, remembers, module, _ = run([3, 3.1, 90, 90], patience=2, overfit_patience=2)
        assert (swad.start_step, swad.end_step) == (3, 5)
        assert_average(module, remembers, 3, 5)

    def test_tolerance(self):
        losses = [3, 3.1, 4.2, 4.2, 4.2, 4.2]
        assert run(losses, patience=2, overfit_patience=2, tolerance=0.4)[0].end_step == 13
        assert run(losses, patience=2, overfit_patience=2, tolerance=0.3)[0].end_step == 5

    def test_look_back(self):
        losses = [9, 3.4, 3.3, 3, 3.1, 3.2, 3.1]
        assert run(losses)[0].start_step == 9
        swad, remembers, module, _ = run(losses, look_back=True)
        assert swad.start_step == 5
        assert_average(module, remembers, 5, 15)

    def test_losses_that_are_no_numbers(self):
        swad, *_ = run([math.nan, math.nan, math.nan, 3, 3.1, 3.2], patience=3)
        assert swad.start_step == 9

    def test_no_beginning(self):
        with pytest.warns(UserWarning, match="SWAD: no validation loss was as low as the 2 after"):
            swad, remembers, module, _ = run([5, 4, 3, 2], steps=9)
        assert (swad.start_step, swad.end_step) == (7, 10)
        assert_average(module, remembers, 7, 10)


def test_accumulated_gradients_count_once():
    swad, remembers = SWAD(patience=1), Remembers()
    module = Scripted([1.0] * 9)
    fit = trainer(remembers, swad, max_steps=6, accumulate_grad_batches=2, val_check_interval=4)
    fit.fit(module, combined_loader(), validation())
    assert swad.end_step == 7
    assert_average(module, remembers, swad.start_step, 7)


def test_no_validation_leaves_the_weights():
    module, swad = Classifier(), SWAD()
    remembers = Remembers()
    with pytest.warns(UserWarning, match="SWAD: there was no validation"):
        trainer(remembers, swad).fit(module, combined_loader())
    assert_average(module, remembers, 6, 7)


@pytest.mark.parametrize("batches", [True, 3])
def test_fast_dev_run_averages_nothing_and_says_nothing(batches, caplog):
    module = Scripted([1.0])
    settings = {"fast_dev_run": batches, "max_steps": -1}
    swad = SWAD()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*(LeafSpec|many workers|logging interval)")
        trainer(swad, **settings).fit(module, combined_loader(), validation())
    assert not any("SWAD" in record.getMessage() for record in caplog.records)


def test_fast_dev_run_finds_an_unknown_monitor():
    with pytest.raises(MisconfigurationException, match="`monitor` must be"):
        trainer(SWAD(monitor="x"), fast_dev_run=True, max_steps=-1).fit(
            Scripted([1.0]), combined_loader(), validation()
        )


def test_unknown_monitor():
    with pytest.raises(MisconfigurationException, match=r"`monitor` must .* 'val/loss'; it logs"):
        run([1.0], module=type("Silent", (Classifier,), {"validation_step": lambda *args: None})())


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_training_that_it_ended_stays_ended(tmp_path):
    losses = [3, 3.1, 9, 9, 9, 9]

    def fit(**settings):
        module, swad = Scripted(losses), SWAD(patience=2, overfit_patience=2)
        saved = ModelCheckpoint(tmp_path, save_last=True)
        length = {"max_steps": -1, "max_epochs": 6, "limit_train_batches": EVERY}
        run = trainer(swad, saved, enable_checkpointing=True, **length)
        run.fit(module, combined_loader(), validation(), **settings)
        return run.global_step, swad.start_step, swad.end_step, copies(module)

    *straight, weights = fit()
    assert straight[0] == 8
    *again, resumed = fit(ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert again == straight
    assert same(weights, resumed)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_resuming_counts_no_step_of_gradients_that_are_accumulated(tmp_path):
    def fit(folder, *more, **settings):
        swad, saved = SWAD(patience=1, stop=False), ModelCheckpoint(folder, save_last=True)
        length = {"max_steps": -1, "max_epochs": 4, "accumulate_grad_batches": 2}
        length["limit_train_batches"] = 2 * EVERY
        run = trainer(swad, saved, *more, enable_checkpointing=True, **length)
        run.fit(Scripted([1.0] * 9), combined_loader(), validation(), **settings)
        return swad._average.count

    class Stops(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 1

    straight = fit(tmp_path / "straight")
    fit(tmp_path, Stops())
    assert fit(tmp_path, ckpt_path=tmp_path / "last.ckpt", weights_only=True) == straight


@pytest.mark.parametrize("epochs", [2, 5, 7])
def test_resumes_bit_for_bit(epochs, tmp_path):
    """Before the beginning, in the average, and after its end."""
    losses = [5, 3, 3.1, 3.2, 9, 9, 3.2, 9]

    class Stops(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch + 1 == epochs

    class Steady(Scripted):
        """Without dropout: Lightning keeps no random state."""

        def __init__(self, losses):
            super().__init__(losses)
            torch.manual_seed(0)
            self.featurizer, self.head = Flat().featurizer, Flat().head

    def fit(*more, **settings):
        module, swad = Steady(losses), SWAD(overfit_patience=2, stop=False)
        saved = ModelCheckpoint(tmp_path / "last", save_last=True)
        length = {"max_steps": -1, "max_epochs": 8, "limit_train_batches": EVERY}
        run = trainer(swad, saved, *more, enable_checkpointing=True, **length)
        run.fit(module, combined_loader(), validation(), **settings)
        return swad, module

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stopped before it could begin
        fit(Stops())
        path = tmp_path / "last" / "last.ckpt"
        resumed, again = fit(ckpt_path=path, weights_only=True)
        straight, module = fit()
    assert (resumed.start_step, resumed.end_step) == (straight.start_step, straight.end_step)
    assert (straight.start_step, straight.end_step) == (5, 9)
    assert same(dict(module.state_dict()), dict(again.state_dict()))


def test_checkpoints_hold_the_plain_weights(tmp_path):
    saved = ModelCheckpoint(tmp_path, save_last=True)
    module, remembers = Scripted([3, 4, 5]), Remembers()
    length = {"max_steps": 6, "val_check_interval": EVERY, "enable_checkpointing": True}
    trainer(remembers, SWAD(), saved, **length).fit(module, combined_loader(), validation())
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    for key, value in remembers.weights[6].items():
        assert torch.equal(state[key], value)
    assert not same(copies(module), [state[key] for key, _ in module.named_parameters()])


@pytest.mark.parametrize(
    "settings",
    [{"patience": 0}, {"overfit_patience": 0}, {"tolerance": -0.1}, {"tolerance": math.inf}],
)
def test_wrong_settings(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` must be .* got {settings[name]!r}"):
        SWAD(**settings)
