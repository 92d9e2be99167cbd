"""What holds for all of them, as the configuration makes them."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from gga_lightning import GradientGuidedAnnealing, Guided
from gga_lightning.backbones import MLP
from gga_lightning.data import Digits, DomainDataModule
from gga_lightning.train import config_directory
from tests.helpers import same, trainer

NAMES = sorted(path.stem for path in (Path(config_directory()) / "algorithm").glob("*.yaml"))
MILD = {  # penalties that suit so short a training
    "mmd": {"gamma": 0.1},
    "irm": {"penalty_weight": 0.1, "anneal_steps": 4},
    "vrex": {"penalty_weight": 1.0, "anneal_steps": 4},
    "iga": {"penalty_weight": 0.01},
}


def make(name):
    with initialize_config_dir(config_directory(), version_base="1.3"):
        config = compose("train", [f"algorithm={name}"]).algorithm
    config.update(MILD.get(name, {}))
    seed_everything(0, verbose=False)
    return instantiate(config, featurizer=MLP((1, 8, 8)), num_classes=10)


def data(steps=6):
    return DomainDataModule(Digits("rotation"), -1, batch_size=8, steps_per_epoch=steps)


@pytest.mark.parametrize("name", NAMES)
class TestEvery:
    @pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
    def test_resumes_bit_for_bit(self, name, tmp_path):
        def run(module, epochs, folder, **settings):
            saved = ModelCheckpoint(tmp_path / folder, save_last=True)
            seeds = {"max_steps": -1, "max_epochs": epochs, "limit_val_batches": 0}
            fit = trainer(saved, Reseeds(), enable_checkpointing=True, **seeds)
            fit.fit(module, datamodule=data(), **settings)
            return fit

        straight, resumed = make(name), make(name)
        run(straight, 2, "straight")
        run(make(name), 1, "first")
        path = tmp_path / "first" / "last.ckpt"
        fit = run(resumed, 2, "first", ckpt_path=path, weights_only=True)
        assert fit.global_step == 12
        assert same(dict(straight.state_dict()), dict(resumed.state_dict()))

    def test_learns(self, name):
        module = make(name)
        fit = trainer(max_steps=200, check_val_every_n_epoch=1)
        fit.fit(module, datamodule=data(200))
        assert fit.callback_metrics["val/acc"] > 0.5  # chance is 0.1

    def test_in_mixed_precision_with_a_search_on_top(self, name):
        module, gga = make(name), GradientGuidedAnnealing(1, 3, proposal=Guided(1e-3))
        fit = trainer(gga, max_steps=4, precision="bf16-mixed", limit_val_batches=0)
        fit.fit(module, datamodule=data())
        assert all(param.isfinite().all() for param in module.parameters())
        assert len(gga.records) == 2
        assert "train/loss" in fit.callback_metrics


class Reseeds(Callback):
    """Lightning keeps no random state: gives every step random numbers of its own."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.manual_seed(trainer.global_step)
