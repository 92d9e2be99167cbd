"""With one source domain, what compares domains is refused before it has trained."""

import functools
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, TensorDataset

from gga_lightning import GradientAgreementVoting, GradientConflictMonitor
from gga_lightning.algorithms import ERM
from gga_lightning.backbones import MLP
from gga_lightning.data import Digits, DomainDataModule
from gga_lightning.experiments.train import config_directory
from tests.helpers import Classifier, combined_loader, domain_data, trainer

PRESETS = sorted(path.stem for path in (Path(config_directory()) / "annealing").glob("*.yaml"))
WAYS_OUT = r"`data\.pseudo_domains=3` .* `data\.views=\[edges\]`.*\(`annealing=none`\)"
ART = {"art": domain_data()["art"]}


@functools.cache
def composed():
    everyone = [f"+annealing@every.{name}={name}" for name in PRESETS]
    others = ["callbacks=[swad,linear_probe,conflict,ema]", "callbacks.linear_probe.end_step=2"]
    with initialize_config_dir(config_directory(), version_base="1.3"):
        return compose("train", ["backbone=mlp", *others, *everyone])


def one_source(**settings):
    dataset = Digits("rotation")
    return DomainDataModule(
        dataset, list(dataset.domains)[1:], batch_size=8, steps_per_epoch=2, **settings
    )


def fit(*callbacks, data):
    module = ERM(MLP((1, 8, 8)), 10)
    before = [param.detach().clone() for param in module.parameters()]
    run = trainer(*callbacks, max_steps=2, limit_val_batches=1, check_val_every_n_epoch=1)
    try:
        run.fit(module, datamodule=data)
    finally:
        moved = not all(map(torch.equal, before, module.parameters()))
        assert moved is (run.global_step > 0)
    return run


@pytest.mark.parametrize("name", sorted({*PRESETS} - {"none"}))
def test_every_preset_is_refused(name):
    callback = instantiate(composed().every[name])
    with pytest.raises(MisconfigurationException, match=rf"only \['0'\]\. .*{WAYS_OUT}") as found:
        fit(callback, data=one_source())
    assert str(found.value).startswith(f"{type(callback).__name__} compares the gradients of at")


def test_pseudo_domains_are_enough():
    voting = GradientAgreementVoting(0, 2)
    assert fit(voting, data=one_source(pseudo_domains=2)).global_step == 2
    assert len(voting.records) == 2


@pytest.mark.filterwarnings("ignore:SWAD")
def test_what_compares_no_domains_trains():
    """The monitor, which gga-train has by default, warns and changes nothing."""
    names = ("swad", "linear_probe", "conflict", "ema")
    callbacks = [instantiate(composed().callbacks[name]) for name in names]
    monitor = next(found for found in callbacks if isinstance(found, GradientConflictMonitor))
    with pytest.warns(UserWarning, match=r"Monitor: a batch shows fewer than two .*pseudo_domains"):
        assert fit(*callbacks, data=one_source()).global_step == 2
    assert monitor.records == []


class TestOwnLoaders:
    @pytest.mark.parametrize("kind", ["CombinedLoader", "dict"])
    def test_a_single_loader_in_a_mapping_is_refused(self, kind):
        loader = combined_loader(ART)
        run = trainer(GradientAgreementVoting(0, 2))
        with pytest.raises(MisconfigurationException, match=rf"only \['art'\]\. .*{WAYS_OUT}"):
            run.fit(Classifier(), loader if kind == "CombinedLoader" else dict(loader.iterables))
        assert run.global_step == 0

    def test_split_can_find_domains_in_it(self):
        def halves(batch):
            x, y = batch["art"]
            return {"first": (x[:4], y[:4]), "second": (x[4:], y[4:])}

        voting = GradientAgreementVoting(0, 2, split=halves, domain_loss=loss)
        trainer(voting, max_steps=2).fit(Classifier(), combined_loader(ART))
        assert len(voting.records) == 2

    def test_labels_are_known_batch_by_batch_and_warned_of(self):
        x, y = ART["art"]
        loader = DataLoader(TensorDataset(x, y, torch.zeros(len(y)).long()), batch_size=8)

        class Labelled(Classifier):
            def training_step(self, batch, batch_idx):
                return super().training_step({"all": batch[:2]}, batch_idx)

        with pytest.warns(UserWarning, match=r"only '0', by the labels batch\[2\].*pseudo_domains"):
            trainer(GradientAgreementVoting(0, 2), max_steps=2).fit(Labelled(), loader)


def loss(module, part):
    return torch.nn.functional.cross_entropy(module(part[0]), part[1])
