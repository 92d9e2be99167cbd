"""Modules that know nothing of us train with the callback added and nothing else changed."""

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.demos.boring_classes import (
    BoringModel,
    DemoModel,
    ManualOptimBoringModel,
    RandomDataset,
)
from lightning.pytorch.demos.transformer import LightningTransformer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from gga_lightning import (
    GradientConflictMonitor,
    GradientGuidedAnnealing,
    GradientGuidedNoise,
    Walk,
)
from tests.helpers import Classifier, combined_loader, trainer

LABELS = torch.arange(48) % 3


def halves(batch):
    return {"even": batch[::2], "odd": batch[1::2]}


def check(module, loader, make=trainer, radius=0.03, **settings):
    """Trains with all three callbacks and sees that each did its work."""
    search = GradientGuidedAnnealing(
        1, 4, proposal=Walk(radius), num_candidates=20, objective="mean", **settings
    )
    noise, monitor = GradientGuidedNoise(1e-4, **settings), GradientConflictMonitor(2, **settings)
    fit = make(search, noise, monitor, max_steps=5)
    fit.fit(module, loader)
    assert fit.global_step == 5
    assert len(search.records) == 3
    assert sum(record.accepted for record in search.records) > 0
    assert len(monitor.records) == 3
    assert fit.callback_metrics["gga_l/alpha"] > 0
    return search


class TestLightningsDemos:
    def test_boring_model(self):
        check(BoringModel(), DataLoader(RandomDataset(32, 64), batch_size=8), split=halves)

    def test_demo_model(self):
        def loss(module, part):
            return module(part).pow(2).mean()

        data = DataLoader(RandomDataset(32, 64), batch_size=8)
        check(DemoModel(), data, split=halves, domain_loss=loss)

    def test_manual_optimization_with_a_domain_loss(self):
        module = ManualOptimBoringModel()
        data = DataLoader(RandomDataset(32, 64), batch_size=8)
        check(module, data, split=halves, domain_loss=lambda module, part: module.step(part))

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:.*nested tensors")
    def test_transformer(self):
        module = LightningTransformer(vocab_size=20)
        module.prepare_data = lambda: None  # it would download a corpus
        tokens = torch.randint(20, (48, 7))

        def split(batch):
            tokens, targets = batch
            return {"first": (tokens[:4], targets[:4]), "second": (tokens[4:], targets[4:])}

        check(
            module,
            DataLoader(TensorDataset(tokens[:, :-1], tokens[:, 1:]), 8),
            radius=0.001,
            split=split,
        )


class TestBatchForms:
    def test_triples(self):
        class Triples(Classifier):
            def training_step(self, batch, batch_idx):
                inputs, targets, _ = batch
                return functional.cross_entropy(self(inputs), targets)

        inputs = torch.randn(48, 8)
        data = TensorDataset(inputs, inputs[:, 0].gt(0).long(), LABELS)
        check(Triples(), DataLoader(data, batch_size=12))

    def test_mappings(self):
        class Mapped(Dataset):
            def __len__(self):
                return 48

            def __getitem__(self, index):
                name = ("art", "photo", "sketch")[LABELS[index]]
                return {"image": torch.randn(8), "label": index % 3, "domain": name}

        class Reads(Classifier):
            def training_step(self, batch, batch_idx):
                assert len(batch["domain"]) == len(batch["image"])
                return functional.cross_entropy(self(batch["image"]), batch["label"])

        search = check(Reads(), DataLoader(Mapped(), batch_size=12))
        assert search.records[0].candidates == 20

    def test_combined_loader(self):
        check(Classifier(), combined_loader())

    def test_max_size_cycle(self):
        from lightning.pytorch.utilities import CombinedLoader

        loaders = {
            name: DataLoader(TensorDataset(torch.randn(size, 8), torch.randint(3, (size,))), 8)
            for name, size in {"a": 64, "b": 16}.items()
        }
        check(Classifier(), CombinedLoader(loaders, "max_size_cycle"))


def test_token_sequences_with_a_mask():
    class Tagger(LightningModule):
        """A small transformer classifier on padded sequences."""

        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(20, 16, padding_idx=0)
            layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.head = nn.Linear(16, 3)

        def training_step(self, batch):
            tokens = batch["tokens"]
            hidden = self.encoder(self.embedding(tokens), src_key_padding_mask=tokens == 0)
            loss = functional.cross_entropy(self.head(hidden[:, 0]), batch["label"])
            self.log("loss", loss)
            return {"loss": loss}

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": schedule, "interval": "step"},
            }

    class Sequences(Dataset):
        def __len__(self):
            return 60

        def __getitem__(self, index):
            tokens = torch.randint(1, 20, (9,))
            tokens[5 + index % 4 :] = 0
            return {"tokens": tokens, "label": index % 3, "source": index % 2}

    check(Tagger(), DataLoader(Sequences(), batch_size=12), split="source")


def test_regression_on_tables():
    class Regression(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

        def training_step(self, batch, batch_idx):
            table, target, _ = batch
            return functional.mse_loss(self.net(table).squeeze(1), target)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    table = torch.randn(48, 4)
    data = TensorDataset(table, table.sum(1), LABELS)
    check(Regression(), DataLoader(data, batch_size=12))


class TestTheOtherNameOfLightning:
    @pytest.fixture
    def make(self):
        pytorch_lightning = pytest.importorskip("pytorch_lightning")

        def make(*callbacks, **settings):
            return pytorch_lightning.Trainer(
                callbacks=list(callbacks),
                accelerator="cpu",
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                **settings,
            )

        return make

    def test_trainer_and_module(self, make):
        import pytorch_lightning

        class Module(pytorch_lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.inner = Classifier()

            def training_step(self, batch, batch_idx):
                losses = [functional.cross_entropy(self.inner(x), y) for x, y in batch.values()]
                self.log("loss", sum(losses))
                return sum(losses)

            def configure_optimizers(self):
                return torch.optim.Adam(self.parameters(), lr=0.01)

        from pytorch_lightning.utilities import CombinedLoader

        loaders = {
            name: DataLoader(TensorDataset(torch.randn(48, 8), torch.randint(3, (48,))), 8)
            for name in ("a", "b")
        }
        check(Module(), CombinedLoader(loaders, "min_size"), make)

    def test_its_demo(self, make):
        from pytorch_lightning.demos.boring_classes import BoringModel, RandomDataset

        check(BoringModel(), DataLoader(RandomDataset(32, 64), batch_size=8), make, split=halves)
