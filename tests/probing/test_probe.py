import math

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from gga_lightning.callbacks._reader import DomainReader
from tests.helpers import Classifier, combined_loader, step_start, trainer


class Look(Callback):
    """Opens the first batch and keeps what it is asked to find there."""

    def __init__(self, look, **settings):
        unset = {"domain_loss": None, "split": None}
        plain = {"full_precision": False, "redraw_randomness": False}
        self.reader = DomainReader("Look", **unset | plain | settings)
        self.look, self.found = look, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        start, params = (
            step_start(trainer, pl_module, batch, batch_idx),
            list(pl_module.parameters()),
        )
        with self.reader.open(start, params, None) as opened:
            self.found.append(self.look(opened, pl_module, batch))


def look(function, module=None, loader=None, precision="32-true", **settings):
    seen = Look(function, **settings)
    fit = trainer(seen, max_steps=1, precision=precision)
    fit.fit(module or Plain(), loader or combined_loader())
    return seen.found[0]


class Plain(LightningModule):
    """Without anything random, so that losses can be computed again."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))

    def training_step(self, batch, batch_idx):
        losses = [functional.cross_entropy(self.net(x), y) for x, y in batch.values()]
        return {"loss": torch.stack(losses).mean(), "extra": 1}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class TestEvaluation:
    def test_losses_and_gradients(self):
        def check(opened, module, batch):
            evaluation = opened.evaluate()
            for index, (x, y) in enumerate(batch.values()):
                loss = functional.cross_entropy(module.net(x), y)
                torch.testing.assert_close(evaluation.losses[index], loss.detach())
                gradient = torch.autograd.grad(loss, list(module.parameters()))
                torch.testing.assert_close(evaluation.gradients[index], gradient)
            assert all(param.grad is None for param in module.parameters())
            return opened.domains

        assert look(check) == ("art", "photo", "sketch")

    def test_loss_is_that_of_the_joined_batch(self):
        class Pairs(Plain):
            def training_step(self, batch, batch_idx):
                inputs, targets = batch
                return functional.cross_entropy(self.net(inputs), targets)

        def split(batch):
            inputs, targets = (part.split([3, 8, 5]) for part in batch)
            return dict(zip("abc", zip(inputs, targets, strict=True), strict=True))

        def check(opened, module, batch):
            evaluation, loss = opened.evaluate(), module.training_step(batch, 0).detach()
            torch.testing.assert_close(evaluation.loss, loss)
            assert opened.score("min").loss == pytest.approx(loss.item())
            assert evaluation.cosines.shape == (3, 3)

        data = TensorDataset(torch.randn(16, 8), torch.randint(3, (16,)))
        look(check, Pairs(), DataLoader(data, batch_size=16), split=split)

    def test_dropout_masks_are_the_same_unless_redrawn(self):
        def twice(opened, module, batch):
            return [opened.evaluate().losses for _ in range(2)]

        assert torch.equal(*look(twice, Classifier()))
        assert not torch.equal(*look(twice, Classifier(), redraw_randomness=True))

    def test_none_of_training_step_is_nan(self):
        class Skips(Plain):
            def training_step(self, batch, batch_idx):
                return None if "photo" in batch else super().training_step(batch, batch_idx)

        def check(opened, module, batch):
            evaluation = opened.evaluate()
            assert evaluation.losses.isnan().tolist() == [False, True, False]
            assert evaluation.cosines[1].tolist() == [0.0, 0.0, 0.0]
            assert math.isnan(opened.score("min").loss)

        with pytest.warns(UserWarning, match="returned `None`"):
            look(check, Skips())


class TestPrecision:
    @staticmethod
    def dtypes(opened, module, batch):
        seen = []
        net = opened._sandbox.module.net
        net[0].register_forward_hook(lambda m, i, out: seen.append(out.dtype))
        opened.evaluate()
        return set(seen)

    def test_trainers(self):
        assert look(self.dtypes, precision="bf16-mixed") == {torch.bfloat16}
        assert look(self.dtypes, precision="32-true") == {torch.float32}

    def test_full(self):
        assert look(self.dtypes, precision="bf16-mixed", full_precision=True) == {torch.float32}

    def test_full_is_the_same_under_any_trainer(self):
        def values(opened, module, batch):
            evaluation = opened.evaluate()
            return evaluation.loss, evaluation.cosines

        found = []
        for precision in ("bf16-mixed", "32-true"):
            torch.manual_seed(0)
            found.append(look(values, Plain(), precision=precision, full_precision=True))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])

    def test_reduced_float32_products_are_turned_off_and_back(self):
        operation = torch.backends.mkldnn.matmul
        before = operation.fp32_precision

        def during(opened, module, batch):
            return operation.fp32_precision

        operation.fp32_precision = "bf16"
        try:
            assert look(during, full_precision=True) == "ieee"
            assert look(during) == "bf16"
            assert operation.fp32_precision == "bf16"
        finally:
            operation.fp32_precision = before

    def test_loss_scale_cancels(self):
        class Scaled(Look):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                trainer.precision_plugin.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
                super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
                trainer.precision_plugin.scaler = None

        def values(opened, module, batch):
            return opened.evaluate().gradients

        torch.manual_seed(0)
        plain = look(values, Plain())
        torch.manual_seed(0)
        scaled = Scaled(values)
        trainer(scaled, max_steps=1).fit(Plain(), combined_loader())
        torch.testing.assert_close(scaled.found[0], plain)


class TestNothingIsLeftBehind:
    def test_logs_prints_and_loggers(self, tmp_path, capsys):
        class Loud(Classifier):
            def training_step(self, batch, batch_idx):
                self.print("a line")
                self.log_dict({"x": 1.0})
                self.logger.experiment.log_metrics({"direct": 1.0})
                self.logger.log_metrics({"again": 1.0})
                return super().training_step(batch, batch_idx)

        def evaluate(opened, module, batch):
            logger = module.logger
            opened.evaluate()
            return logger, dict(module.trainer.callback_metrics)

        logger = CSVLogger(tmp_path)
        seen = Look(evaluate)
        module = Loud()
        trainer(seen, max_steps=1, logger=logger, log_every_n_steps=1).fit(
            module, combined_loader()
        )
        during, metrics = seen.found[0]
        assert during is not logger
        assert metrics == {}
        assert capsys.readouterr().out == "a line\n"
        assert "log" not in vars(module)
        rows = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
        assert sum("1.0" in row for row in rows[1:]) == 3  # direct, again, and Lightning's own

    def test_no_logger_stays_none(self):
        assert look(lambda opened, module, batch: module.logger) is None

    def test_after_an_error_in_the_body(self):
        class Fails(Look):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                before = torch.get_rng_state()
                with pytest.raises(ZeroDivisionError):
                    super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
                assert torch.equal(torch.get_rng_state(), before)
                assert pl_module.calls == 0
                assert pl_module.accuracy.update_count == 0
                assert "log" not in vars(pl_module)

        def fail(opened, module, batch):
            opened.evaluate()
            return 1 / 0

        trainer(Fails(fail), max_steps=1).fit(Classifier(), combined_loader())


def test_parameters_changed_in_place_are_refused():
    class Moves(Plain):
        def training_step(self, batch, batch_idx):
            with torch.no_grad():
                self.net[0].weight.clamp_(-1, 1)
            return super().training_step(batch, batch_idx)

    with pytest.raises(MisconfigurationException, match=r"changes `self.net.0.weight` in place"):
        look(lambda opened, module, batch: opened.evaluate(), Moves())


def test_no_domains():
    with pytest.raises(MisconfigurationException, match="Found no domains in the batch, a list"):
        data = TensorDataset(torch.randn(4, 8), torch.zeros(4))
        look(lambda *_: None, loader=DataLoader(data, batch_size=4))
