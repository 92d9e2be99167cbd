"""A resumed training equals the uninterrupted one, whatever its checkpoint was saved by."""

import itertools
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.warnings import PossibleUserWarning
from torch.utils.data import TensorDataset

from gga_lightning import RandomState
from gga_lightning.data import DomainDataModule
from tests.helpers import Classifier, same, trainer

STEPS = 4  # batches in an epoch
BATCHES = 12  # three epochs
LENGTHS = {
    "max_steps": {"max_steps": 12},
    "max_steps and max_epochs": {"max_steps": 100, "max_epochs": 3},
    "max_epochs": {"max_steps": -1, "max_epochs": 3},
}
VALIDATIONS = {
    "none": {"limit_val_batches": 0},
    "each epoch": {"limit_val_batches": 1},
    "each second epoch": {"limit_val_batches": 1, "check_val_every_n_epoch": 2},
    "twice an epoch": {"limit_val_batches": 1, "val_check_interval": 2},
}


class Drawn:
    """Domains whose training and validation transforms draw random numbers."""

    name, num_classes, input_shape = "drawn", 3, (8,)

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.domains = {
            name: TensorDataset(torch.randn(40, 8, generator=generator), torch.arange(40) % 3)
            for name in "abc"
        }

    @staticmethod
    def train_transform(x):
        return x + 0.1 * (torch.rand(()).item() + np.random.rand() + random.random())


class Model(Classifier):
    """Draws random numbers, in training and in validation."""

    one_cycle = False

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        torch.rand(())

    def configure_optimizers(self):
        adam = super().configure_optimizers()
        if not self.one_cycle:
            return adam
        # asks for the length of the training loader before the checkpoint is loaded
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 0.1, total_steps=steps)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Sees(Callback):
    """Notes what happens, with the batches, and at which steps what is logged would be."""

    def __init__(self):
        self.events = []
        self.batches = []

    def note(self, trainer, *event):
        self.events.append((*event, trainer.current_epoch, trainer.global_step))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.note(trainer, batch_idx, trainer.fit_loop.epoch_loop._batches_that_stepped)
        self.batches.append(torch.cat([x.flatten() for x, _ in batch.values()]))

    def on_train_epoch_start(self, trainer, pl_module):
        self.note(trainer, "start")

    def on_train_epoch_end(self, trainer, pl_module):
        self.note(trainer, "end")

    def on_validation_end(self, trainer, pl_module):
        self.note(trainer, "validated")


class Saves(Checkpoint):
    """Saves a checkpoint wherever Lightning's ModelCheckpoint can.

    They are named by the hook and the number of batches trained on.
    """

    def __init__(self, folder):
        self.folder = folder

    def save(self, trainer, hook):
        path = self.folder / f"{hook}-{trainer.fit_loop.total_batch_idx + 1}.ckpt"
        if not trainer.fit_loop._should_accumulate():
            trainer.save_checkpoint(path)

    def on_train_batch_end(self, trainer, *args):
        self.save(trainer, "batch")

    def on_validation_end(self, trainer, pl_module):
        self.save(trainer, "validation")

    def on_train_epoch_end(self, trainer, pl_module):
        self.save(trainer, "epoch")


def module_and_data(*, one_cycle=False, rank=None, **settings):
    torch.manual_seed(3)
    module = Model()
    module.one_cycle = one_cycle
    settings = {"batch_size": 4, "steps_per_epoch": STEPS, "seed": 1, **settings}
    data = DomainDataModule(Drawn(), "c", augment_validation=True, **settings)
    if rank is not None:
        data._ranks = lambda: (rank, 2)
    return module, data


def train(length, *callbacks, checkpoint=None, data=None, **settings):
    """Trains, and gives what there is to compare."""
    module, own = module_and_data(**(data or {}))
    sees = Sees()
    fit = trainer(
        RandomState(),
        sees,
        *callbacks,
        enable_checkpointing=any(isinstance(found, Checkpoint) for found in callbacks),
        num_sanity_val_steps=0,
        **length,
        **settings,
    )
    fit.fit(module, datamodule=own, ckpt_path=checkpoint, weights_only=checkpoint and True)
    return {
        "steps": fit.global_step,
        "weights": dict(module.state_dict()),
        "optimizer": fit.optimizers[0].state_dict(),
        "batches": sees.batches,
        "events": sees.events,
    }


def check_is_rest_of(resumed, whole, checkpoint):
    """Compares a resumed training with the uninterrupted one, up to where it was resumed."""
    for key in ("steps", "weights", "optimizer"):
        assert same(resumed[key], whole[key]), (checkpoint, key)
    trained = int(Path(checkpoint).stem.partition("-")[2])
    assert len(resumed["batches"]) == len(whole["batches"]) - trained, checkpoint
    for key in ("batches", "events"):
        count = len(resumed[key])
        expected = whole[key][len(whole[key]) - count :]
        assert same(resumed[key], expected), (checkpoint, key, resumed[key], expected)


def saved_in(folder, *names):
    """All checkpoints but those of a training that has ended, or those of the given names."""
    found = [folder / f"{name}.ckpt" for name in names] or sorted(folder.glob("*.ckpt"))
    return [path for path in found if not path.stem.endswith(f"-{BATCHES}")]


@pytest.mark.parametrize(
    ("length", "validation"),
    [
        *itertools.product(LENGTHS, ("none", "each epoch")),
        ("max_steps and max_epochs", "each second epoch"),
        ("max_steps", "twice an epoch"),
    ],
)
def test_resumes_from_an_epochs_end_and_within_an_epoch(length, validation, tmp_path):
    settings = VALIDATIONS[validation]
    whole = train(LENGTHS[length], Saves(tmp_path), **settings)
    names = ["epoch-4", "batch-4", "batch-6"]
    names += ["validation-8"] if validation != "none" else []
    names += ["validation-6"] if validation == "twice an epoch" else []
    for path in saved_in(tmp_path, *names):
        resumed = train(LENGTHS[length], checkpoint=path, **settings)
        check_is_rest_of(resumed, whole, path)


@pytest.mark.slow
@pytest.mark.parametrize("validation", VALIDATIONS)
@pytest.mark.parametrize("length", LENGTHS)
def test_resumes_twice_from_any_checkpoint(length, validation, tmp_path):
    length, settings = LENGTHS[length], VALIDATIONS[validation]
    (tmp_path / "whole").mkdir()
    whole = train(length, Saves(tmp_path / "whole"), **settings)
    for path in saved_in(tmp_path / "whole"):
        folder = tmp_path / path.stem
        folder.mkdir()
        check_is_rest_of(train(length, Saves(folder), checkpoint=path, **settings), whole, path)
        for second in saved_in(folder):
            check_is_rest_of(train(length, checkpoint=second, **settings), whole, second)


@pytest.mark.parametrize("steps", [4, 5])  # with 5, an epoch's last step has one batch
def test_resumes_with_accumulated_gradients(steps, tmp_path):
    settings = {"limit_val_batches": 1, "accumulate_grad_batches": 2}
    settings["data"] = {"steps_per_epoch": steps}
    length = {"max_steps": 8}
    whole = train(length, Saves(tmp_path), **settings)
    for path in saved_in(tmp_path, f"epoch-{steps}", f"batch-{steps}", f"batch-{steps + 2}"):
        check_is_rest_of(train(length, checkpoint=path, **settings), whole, path)


@pytest.mark.parametrize(
    "data", [{"num_workers": 1, "one_cycle": True}, {"rank": 1}, {"shuffle_domains": True}], ids=str
)
def test_resumes_with_workers_on_several_processes_and_with_shuffled_domains(data, tmp_path):
    settings = {"limit_val_batches": 0, "data": data}
    whole = train(LENGTHS["max_steps"], Saves(tmp_path), **settings)
    for path in saved_in(tmp_path, "epoch-4", "batch-6"):
        resumed = train(LENGTHS["max_steps"], checkpoint=path, **settings)
        check_is_rest_of(resumed, whole, path)
    if "rank" in data:
        other = train(LENGTHS["max_steps"], limit_val_batches=0, data={"rank": 0})
        assert not any(map(torch.equal, other["batches"], whole["batches"]))


def test_resumes_with_fewer_batches_an_epoch_than_the_loader_has(tmp_path):
    length, settings = LENGTHS["max_steps"], {"limit_val_batches": 0}
    whole = train(length, Saves(tmp_path), limit_train_batches=3, **settings)
    for path in saved_in(tmp_path, "epoch-3", "batch-5"):
        resumed = train(length, checkpoint=path, limit_train_batches=3, **settings)
        check_is_rest_of(resumed, whole, path)
    unlimited = train(length, **settings)["batches"]
    assert same(whole["batches"][3:6], unlimited[STEPS : STEPS + 3])  # the second epoch's


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("first", [6, 8])  # within an epoch, and at the end of one
def test_a_training_that_ended_continues_with_more_steps(first, length, tmp_path):
    settings = {"limit_val_batches": 1}
    whole = train(LENGTHS[length], **settings)
    train({"max_steps": first}, Saves(tmp_path), **settings)
    path = tmp_path / f"epoch-{first}.ckpt"
    check_is_rest_of(train(LENGTHS[length], checkpoint=path, **settings), whole, path)


class Breaks(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 6:
            raise ConnectionError


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(
    ("saved", "step"),
    [({"every_n_epochs": 1}, 4), ({"every_n_train_steps": 5}, 5), ({"save_on_exception": True}, 6)],
    ids=str,
)
@pytest.mark.parametrize("validation", ["none", "each epoch"])
def test_resumes_after_an_exception_from_the_last_checkpoint(saved, step, validation, tmp_path):
    settings = VALIDATIONS[validation]

    def fit(*callbacks, **checkpoint):
        last = ModelCheckpoint(tmp_path, save_last=True, **saved)
        return train(LENGTHS["max_steps"], last, *callbacks, **settings, **checkpoint)

    with pytest.raises(ConnectionError):
        fit(Breaks())
    path = (tmp_path / "last.ckpt").rename(tmp_path / f"last-{step}.ckpt")
    whole = train(LENGTHS["max_steps"], **settings)
    resumed = fit(checkpoint=path)
    for each in (whole, resumed):  # as documented, later rows of loggers are numbered differently
        if "save_on_exception" in saved:
            each["events"] = [event[:1] + event[-2:] for event in each["events"]]
    check_is_rest_of(resumed, whole, path)


def test_a_second_fit_of_a_trainer_continues_and_another_trainer_starts_again():
    module, data = module_and_data()
    seen, settings = Sees(), {"limit_val_batches": 0, "max_steps": 6}
    first = trainer(seen, **settings)
    first.fit(module, datamodule=data)
    first.fit_loop.epoch_loop.max_steps = 12
    first.fit(module, datamodule=data)
    again = Sees()
    trainer(again, limit_val_batches=0, max_steps=12).fit(module, datamodule=data)
    assert same(seen.batches, again.batches)
    assert sum(type(found).__name__ == "EpochRestart" for found in first.callbacks) == 1


@pytest.mark.parametrize("alone", [True, False])
def test_only_a_loader_passed_alone_is_not_resumable(alone, tmp_path):
    """As the documentation says: then Lightning warns, and the epoch's batches are repeated."""

    def fit(callback, **settings):
        _, data = module_and_data()
        given = {"train_dataloaders": data.train_dataloader()} if alone else {"datamodule": data}
        module = (Classifier if alone else Model)()
        fitted = trainer(callback, limit_val_batches=0, enable_checkpointing=True, max_steps=8)
        fitted.fit(module, **given, **settings)

    fit(Saves(tmp_path))
    seen = Sees()
    checkpoint = {"ckpt_path": tmp_path / "batch-6.ckpt", "weights_only": True}
    with warnings.catch_warnings(record=True) as found:
        warnings.filterwarnings("always", category=PossibleUserWarning)
        fit(seen, **checkpoint)
    said = [warning for warning in found if "dataloader is not resumable" in str(warning.message)]
    assert bool(said) == alone
    assert len(seen.batches) == 2
