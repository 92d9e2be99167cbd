import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from gga_lightning import RandomState
from gga_lightning.algorithms import ERM
from gga_lightning.backbones import MLP
from gga_lightning.data import Digits, DomainDataModule
from tests.helpers import same, trainer


class Draws(Callback):
    """Draws from every generator in every step, and adds it to a weight."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        noise = torch.rand(()).item() + np.random.rand() + random.random()
        pl_module.classifier.bias.grad += noise


class Stops(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


def run(folder, *callbacks, **settings):
    seed_everything(3, verbose=False)
    module = ERM(MLP((1, 8, 8), widths=[8]), 10)
    saved = ModelCheckpoint(folder, save_last=True)
    length = {"max_steps": -1, "max_epochs": 3, "limit_val_batches": 0}
    fit = trainer(saved, Draws(), *callbacks, enable_checkpointing=True, **length)
    data = DomainDataModule(Digits("rotation"), -1, batch_size=8, steps_per_epoch=4)
    fit.fit(module, datamodule=data, **settings)
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("kept", [True, False])
def test_a_resumed_run_draws_what_the_straight_one_draws(tmp_path, kept):
    callbacks = (RandomState(),) if kept else ()
    straight = run(tmp_path / "straight", *callbacks)
    run(tmp_path / "first", Stops(), *callbacks)
    path = tmp_path / "first" / "last.ckpt"
    resumed = run(tmp_path / "first", *callbacks, ckpt_path=path, weights_only=True)
    assert same(straight, resumed) == kept  # without it the generators begin anew


def test_changes_nothing_but_where_epochs_begin(tmp_path):
    without, kept = run(tmp_path / "a", Stops()), run(tmp_path / "b", Stops(), RandomState())
    assert same(without, kept)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_leaves_states_of_other_processes_alone(tmp_path):
    run(tmp_path, Stops(), RandomState())
    path = tmp_path / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["random_states"] *= 2  # of a run on two processes
    torch.save(checkpoint, path)
    without = run(tmp_path, ckpt_path=path, weights_only=True)
    assert same(without, run(tmp_path, RandomState(), ckpt_path=path, weights_only=True))
