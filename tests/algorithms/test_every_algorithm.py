"""What holds for all of them, as the configuration makes them."""

import copy
import functools
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from gga_lightning import GradientGuidedAnnealing, Guided, LinearProbe
from gga_lightning.data import Digits, DomainDataModule
from gga_lightning.experiments.train import config_directory, make_algorithm
from tests.helpers import mostly_slow, same, trainer

NAMES = sorted(path.stem for path in (Path(config_directory()) / "algorithm").glob("*.yaml"))
# a network and an optimizer of its own, moving averages, weights of domains, embeddings, three
# optimizers
OWN_STATE = ("cdann", "fishr", "group_dro", "mtl", "sagnet")
MILD = {  # penalties that suit so short a training
    "mmd": {"gamma": 0.1},
    "irm": {"penalty_weight": 0.1, "anneal_steps": 4},
    "vrex": {"penalty_weight": 1.0, "anneal_steps": 4},
    "iga": {"penalty_weight": 0.01},
    "and_mask": {"tau": 0.5},
    "fishr": {"penalty_weight": 1.0, "anneal_steps": 4},
    "eqrm": {"burnin_steps": 4},
}
LONG = {"agr_sum": 120, "agr_rand": 120}  # slow learners: most coordinates have no gradient


@functools.cache
def composed():
    """The configuration with all algorithms: one call of Hydra instead of a slow one for each."""
    everyone = [f"+algorithm@every.{name}={name}" for name in NAMES]
    with initialize_config_dir(config_directory(), version_base="1.3"):
        return compose("train", ["backbone=mlp", *everyone])


def make(name, **settings):
    config = copy.deepcopy(composed())
    config.algorithm = config.every[name]
    config.algorithm.update(MILD.get(name, {}))
    config.algorithm.optimizer.update(settings)
    seed_everything(0, verbose=False)
    return make_algorithm(config, data())


def data(steps=6):
    return DomainDataModule(Digits("rotation"), -1, batch_size=8, steps_per_epoch=steps)


class TestEvery:
    @pytest.mark.parametrize("name", mostly_slow(NAMES, *OWN_STATE))
    @pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
    def test_resumes_bit_for_bit(self, name, tmp_path):
        def run(module, folder, *callbacks, **settings):
            saved = ModelCheckpoint(tmp_path / folder, save_last=True)
            length = {"max_steps": -1, "max_epochs": 2, "limit_val_batches": 0}
            fit = trainer(saved, Reseeds(), *callbacks, enable_checkpointing=True, **length)
            fit.fit(module, datamodule=data(), **settings)
            return fit

        straight, resumed = make(name), make(name)
        run(straight, "straight")
        run(make(name), "first", StopsAfterAnEpoch())
        path = tmp_path / "first" / "last.ckpt"
        fit = run(resumed, "first", ckpt_path=path, weights_only=True)
        assert fit.global_step == 12
        assert same(dict(straight.state_dict()), dict(resumed.state_dict()))

    @pytest.mark.parametrize("name", mostly_slow(NAMES, "dann", "erm", "fish", "mldg"))
    def test_learns(self, name):
        module = make(name, lr=5e-3)  # five times the default, to learn in few steps
        steps = LONG.get(name, 60)
        fit = trainer(max_steps=steps, check_val_every_n_epoch=1)
        fit.fit(module, datamodule=data(steps))
        assert fit.callback_metrics["val/acc"] > 0.3  # chance is 0.1

    @pytest.mark.parametrize("name", mostly_slow(NAMES, "erm", "fish", "fishr", "sam"))
    def test_in_mixed_precision_with_a_search_on_top(self, name):
        module, gga = make(name), GradientGuidedAnnealing(1, 3, proposal=Guided(1e-3))
        fit = trainer(gga, max_steps=4, precision="bf16-mixed", limit_val_batches=0)
        fit.fit(module, datamodule=data())
        assert all(param.isfinite().all() for param in module.parameters())
        assert len(gga.records) == 2
        assert "train/loss" in fit.callback_metrics

    @pytest.mark.parametrize("name", mostly_slow(NAMES, "transfer"))
    def test_a_linear_probe_holds_the_network_bit_for_bit(self, name):
        module = make(name, weight_decay=0.1)
        start = copy.deepcopy(module.state_dict())
        fit = trainer(LinearProbe(2), max_steps=2, limit_val_batches=0)
        fit.fit(module, datamodule=data())
        end = module.state_dict()
        network = [entry for entry in start if entry.startswith("featurizer.")]
        assert all(torch.equal(end[entry], start[entry]) for entry in network)
        assert not torch.equal(end["classifier.weight"], start["classifier.weight"])


class StopsAfterAnEpoch(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


class Reseeds(Callback):
    """Lightning keeps no random state: gives every step random numbers of its own."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.manual_seed(trainer.global_step)
