import copy

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gga_lightning import SWAD, GradientGuidedAnnealing, SimpleMovingAverage, Walk
from tests.callbacks.test_swad import Remembers, assert_average, validation
from tests.helpers import Classifier, Flat, combined_loader, same, trainer


class Seen(Callback):
    """The weights that each validation evaluates, by step."""

    def __init__(self):
        self.weights = {}

    def on_validation_batch_start(self, trainer, pl_module, *_):
        self.weights[trainer.global_step] = copy.deepcopy(pl_module.state_dict())


class Validates(Classifier):
    def validation_step(self, batch, batch_idx):
        self.log("val/loss", float(self.global_step))


def fitted(*callbacks, **settings):
    torch.manual_seed(0)
    remembers, module = Remembers(), Validates()
    settings = {"val_check_interval": 2, "max_steps": 8, **settings}
    trainer(*callbacks, remembers, **settings).fit(module, combined_loader(), validation())
    return module, remembers


def test_the_mean_of_the_weights_after_each_step_next_to_a_search():
    search = GradientGuidedAnnealing(1, 5, proposal=Walk(0.02), num_candidates=4)
    module, remembers = fitted(search, SimpleMovingAverage(3), max_steps=6)
    assert any(record.accepted for record in search.records)
    assert_average(module, remembers, 4, 7)
    assert module.featurizer[1].num_batches_tracked == 6


@pytest.mark.parametrize("start", [0, 5])
def test_validations_evaluate_the_average_and_before_it_the_weights(start):
    seen = Seen()
    module, remembers = fitted(SimpleMovingAverage(start), seen)
    assert set(seen.weights) >= {2, 4, 6, 8}
    for step in (2, 4, 6, 8):
        mean = remembers.mean(min(start + 1, step), step + 1)
        for key, value in mean.items():
            torch.testing.assert_close(seen.weights[step][key], value)


def test_steps_are_counted_where_gradients_are_accumulated():
    module, remembers = fitted(SimpleMovingAverage(1), max_steps=3, accumulate_grad_batches=2)
    assert_average(module, remembers, 2, 4)


@pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:Be aware that when using `ckpt_path`",
)
@pytest.mark.parametrize("stop", [2, 6])
def test_a_resumed_training_averages_as_the_uninterrupted_one(stop, tmp_path):
    """From before the start, and from within the average."""

    class Stops(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.global_step == stop

    def run(*more, **settings):
        saved = ModelCheckpoint(tmp_path, save_last=True)
        length = {"max_steps": -1, "max_epochs": 4, "limit_train_batches": 2}
        torch.manual_seed(0)
        module = Flat()  # without dropout: Lightning keeps no random state
        run = trainer(SimpleMovingAverage(3), saved, *more, enable_checkpointing=True, **length)
        run.fit(module, combined_loader(), **settings)
        return module

    if stop < 3:
        with pytest.warns(UserWarning, match="SimpleMovingAverage: the training ended before `sta"):
            run(Stops())
    else:
        run(Stops())
    resumed = run(ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert same(dict(run().state_dict()), dict(resumed.state_dict()))


@pytest.mark.parametrize(("start", "held"), [(6, (4, 5)), (2, (3, 5))])
def test_checkpoints_hold_the_average_and_before_it_the_weights(start, held, tmp_path):
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=4, save_top_k=-1)
    _, remembers = fitted(SimpleMovingAverage(start), saved, enable_checkpointing=True)
    state = torch.load(tmp_path / "epoch=0-step=4.ckpt", weights_only=True)
    for key, value in remembers.mean(*held).items():
        torch.testing.assert_close(state["state_dict"][key], value)
        assert torch.equal(state["current_model_state"][key], remembers.weights[4][key])


@pytest.mark.parametrize("length", [{}, {"max_steps": -1, "max_epochs": 4}])
def test_a_start_after_the_training_is_refused_before_it(length):
    seen = Seen()
    length = {"limit_train_batches": 2, **length}
    with pytest.raises(MisconfigurationException, match=r"`start_step` .* steps \(8\), got 8"):
        fitted(SimpleMovingAverage(8), seen, **length)
    assert not seen.weights
    fitted(SimpleMovingAverage(7), **length)


def test_a_training_that_ends_before_the_start_keeps_its_weights():
    class Stops(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 3

    with pytest.warns(UserWarning, match="the training ended before `start_step=5`, so"):
        module, remembers = fitted(SimpleMovingAverage(5), Stops(), min_epochs=0)
    assert max(remembers.weights) < 6
    assert_average(module, remembers, max(remembers.weights), max(remembers.weights) + 1)


def test_a_further_training_begins_a_new_average():
    average = SimpleMovingAverage(2)
    fitted(average)
    module, remembers = fitted(average, max_steps=5)
    assert_average(module, remembers, 3, 6)


def test_fast_dev_run():
    fitted(SimpleMovingAverage(100), fast_dev_run=True, max_steps=-1)


@pytest.mark.parametrize("other", [SWAD, EMAWeightAveraging])
def test_two_averages_are_refused(other):
    with pytest.raises(MisconfigurationException, match="must be the only callback that averages"):
        fitted(SimpleMovingAverage(2), other())


@pytest.mark.parametrize("start", [-1, 1.5, True, None])
def test_steps_out_of_range(start):
    with pytest.raises(ValueError, match="`start_step` must be an integer of at least 0, got"):
        SimpleMovingAverage(start)
