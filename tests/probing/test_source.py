import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from gga_lightning.probing.source import LossSource
from tests.helpers import domain_batch
from tests.probing.test_probe import Plain


def loss_of(source, module=None, part=None):
    return source(module, part, 0, "art")


def one():
    return torch.tensor(1.0, requires_grad=True)


class WithMethod(Plain):
    def domain_loss(self, domain_batch):
        return one()


def test_order():
    given = LossSource(WithMethod(), lambda module, part: 2 * one())
    method, step = LossSource(WithMethod(), None), LossSource(Plain(), None)
    assert (given.name, method.name, step.name) == (
        "`domain_loss=`",
        "`WithMethod.domain_loss`",
        "`Plain.training_step`",
    )
    assert [loss_of(given).item(), loss_of(method, WithMethod()).item()] == [2.0, 1.0]
    assert [given.takes_step, method.takes_step, step.takes_step] == [False, False, True]


def test_a_criterion_of_that_name_is_not_taken_for_it():
    module = Plain()
    module.domain_loss = nn.CrossEntropyLoss()
    assert LossSource(module, None).takes_step


def test_training_step_without_index():
    class Short(Plain):
        def training_step(self, batch):
            return super().training_step(batch, 0)

    assert loss_of(LossSource(Short(), None), Short(), domain_batch()).ndim == 0


class TestOnTrainBatchStart:
    class Prepares(Plain):
        def on_train_batch_start(self, batch, batch_idx):
            self.scale = len(batch)
            return self.skip if hasattr(self, "skip") else None

        def training_step(self, batch, batch_idx):
            return self.scale * one()

    def test_runs_before_the_step(self):
        module = self.Prepares()
        assert loss_of(LossSource(module, None), module, {"a": 0, "b": 0}).item() == 2.0

    def test_may_skip_the_batch(self):
        module = self.Prepares()
        module.skip = -1
        assert loss_of(LossSource(module, None), module, {}) is None

    def test_not_before_a_loss_of_its_own(self):
        module = self.Prepares()
        loss_of(LossSource(module, lambda module, part: one()), module, {})
        assert not hasattr(module, "scale")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (3.0, "must return a scalar tensor, got float"),
        (torch.ones(4, requires_grad=True), r"must return a scalar .*, got shape \[4\]"),
        (
            torch.tensor(1.0),
            "must return a loss that depends on the parameters, got one without a graph",
        ),
        (None, "must return a scalar tensor, got NoneType"),
    ],
)
def test_refused(value, problem):
    with pytest.raises(MisconfigurationException, match=f"`domain_loss=` {problem}"):
        loss_of(LossSource(Plain(), lambda module, part: value))


def test_one_element_is_a_scalar():
    assert loss_of(LossSource(Plain(), lambda module, part: one().view(1, 1))).shape == ()
