"""Every algorithm trains on a task, or refuses it when it is made."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from torch.utils.data import DataLoader

from gga_lightning.experiments.train import config_directory, make_algorithm
from tests.algorithms.test_every_algorithm import NAMES
from tests.helpers import mostly_slow, trainer

SHAPE = (3, 8, 8)
TARGETS = {
    "multi_label": lambda: torch.randint(0, 2, (4, 3)),
    "regression": lambda: torch.randn(4, 3),
    "segmentation": lambda: torch.randint(0, 3, (4, 8, 8)),
}
CLASSES = {"cdann", "cond_cad", "cutmix", "rsc", "sagnet", "selfreg"}
VECTORS = {"cad", "causirl_coral", "causirl_mmd", "coral", "dann", "fishr", "mmd", "mtl"}
REFUSED = {
    "multi_label": CLASSES,
    "regression": {*CLASSES, "sd"},
    "segmentation": {*CLASSES, *VECTORS, "transfer", "urm"},
}
QUICK = ("arith", "cad", "cdann", "dann", "erm", "fishr", "ib_irm", "miro", "mixup", "rdm", "sd")


@pytest.fixture(scope="module")
def config():
    everyone = [f"+algorithm@every.{name}={name}" for name in NAMES]
    every_task = [f"+task@tasks.{name}={name}" for name in TARGETS]
    with initialize_config_dir(config_directory(), version_base="1.3"):
        return compose("train", ["backbone=small_cnn", "data=toy", *everyone, *every_task])


class Facts:
    training_domains = ("art", "photo")
    input_shape = SHAPE
    num_classes = 3


@pytest.mark.parametrize("task", TARGETS)
@pytest.mark.parametrize("name", mostly_slow(NAMES, *QUICK))
def test_trains_or_refuses(name, task, config):
    with open_dict(config):
        config.algorithm, config.task = config.every[name], config.tasks[task]
    if name in REFUSED[task]:
        with pytest.raises(Exception, match=rf"needs .*, which the task {task} .*: .*\bERM, "):
            make_algorithm(config, Facts)
        return
    module = make_algorithm(config, Facts)
    before = [param.detach().clone() for param in module.parameters()]
    batch = {n: (torch.randn(4, *SHAPE), TARGETS[task]()) for n in Facts.training_domains}
    fit = trainer(max_steps=2, limit_val_batches=0)
    fit.fit(module, DataLoader([batch, batch], batch_size=None), [])
    assert fit.global_step == 2
    assert fit.callback_metrics["train/loss"].isfinite()
    pairs = zip(before, module.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in pairs)
    assert all(param.isfinite().all() for param in module.parameters())
