from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from gga_lightning.algorithms import ERM, pool
from gga_lightning.backbones import MLP
from tests.helpers import combined_loader, domain_batch, domain_data, trainer


def erm(**settings):
    return ERM(MLP((8,)), 3, **settings)


def test_pool_joins_in_order():
    batch = domain_batch()
    inputs, targets = pool(batch)
    assert torch.equal(inputs, torch.cat([part[0] for part in batch.values()]))
    assert torch.equal(targets, torch.cat([part[1] for part in batch.values()]))


def test_domain_loss_is_the_mean_cross_entropy():
    module, (inputs, targets) = erm(), domain_batch()["art"]
    logits = module.classifier(module.featurizer(inputs))
    assert logits.shape == (8, 3)
    torch.testing.assert_close(
        module.domain_loss((inputs, targets)), functional.cross_entropy(logits, targets)
    )


def test_optimizer_is_the_users():
    module = erm(optimizer=partial(torch.optim.SGD, lr=0.3))
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["lr"] == 0.3


def test_featurizer_must_say_its_length():
    with pytest.raises(ValueError, match="`out_features`, .*; Linear has None"):
        layer = nn.Linear(8, 4)
        del layer.out_features
        layer.out_features = None
        ERM(layer, 3)


class TestEvaluation:
    def loaders(self, names):
        data = domain_data(size=20)
        return {
            name: DataLoader(TensorDataset(*data[name.rpartition("/")[2]]), batch_size=8)
            for name in names
        }

    def test_named_loaders(self):
        names = ["val/art", "val/photo", "test/sketch", "oracle/sketch"]
        module, data = erm(), domain_data(size=20)
        fit = trainer(max_steps=2, check_val_every_n_epoch=1, limit_train_batches=2)
        fit.fit(module, combined_loader(), self.loaders(names))
        module.eval()
        expected = {}
        with torch.no_grad():
            for name in names:
                inputs, targets = data[name.rpartition("/")[2]]
                logits = module(inputs)
                expected[f"{name}/acc"] = (logits.argmax(1) == targets).float().mean()
                expected[f"{name}/loss"] = functional.cross_entropy(logits, targets)
        for kind in ("acc", "loss"):
            both = expected[f"val/art/{kind}"], expected[f"val/photo/{kind}"]
            expected[f"val/{kind}"] = torch.stack(both).mean()
            expected[f"test/{kind}"] = expected[f"test/sketch/{kind}"]
        for name, value in expected.items():
            torch.testing.assert_close(fit.callback_metrics[name], value)

    @pytest.mark.parametrize(
        ("loaders", "names"),
        [
            (dict, ["test/art", "test/photo"]),
            (lambda named: list(named.values()), ["test/0", "test/1"]),
            (lambda named: named["art"], ["test/all"]),
        ],
    )
    def test_other_loaders(self, loaders, names):
        fit = trainer()
        fit.test(erm(), loaders(self.loaders(["art", "photo"])), verbose=False)
        found = {name for name in fit.callback_metrics if name.count("/") == 2}
        assert found == {f"{name}/{kind}" for name in names for kind in ("acc", "loss")}

    def test_learns(self):
        torch.manual_seed(0)
        inputs = torch.randn(300, 8)
        data = {name: (inputs, inputs[:, :3].argmax(1)) for name in ("art", "photo")}
        fit = trainer(max_steps=-1, max_epochs=5)
        names = {"val/art": DataLoader(TensorDataset(*data["art"]), batch_size=100)}
        fit.fit(erm(optimizer=partial(torch.optim.Adam, lr=0.03)), combined_loader(data), names)
        assert fit.callback_metrics["val/acc"] > 0.9
