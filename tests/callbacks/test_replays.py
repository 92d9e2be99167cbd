"""Searches that replay recordings, by the recorder that stands in for CUDA graphs."""

import random

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional

from gga_lightning import Climb, GradientGuidedAnnealing, Guided, Walk
from tests.helpers import Classifier, Decisions, combined_loader, domain_data, same, trainer
from tests.tape import TapeRecorder


class Replaying(GradientGuidedAnnealing):
    """Searches as on a GPU."""

    def on_fit_start(self, trainer, pl_module):
        super().on_fit_start(trainer, pl_module)
        self.recorder = self._reader._recorder = TapeRecorder()


Replaying.__name__ = GradientGuidedAnnealing.__name__  # which its noise depends on


def searched(kind, make, **settings):
    torch.manual_seed(0)
    random.seed(0)
    settings = {"proposal": Walk(0.003), "num_candidates": 15, **settings}
    module, gga = make(), kind(1, 4, **settings)
    data = {name: (inputs.double(), targets) for name, (inputs, targets) in domain_data().items()}
    trainer(gga, precision="64-true").fit(module, combined_loader(data))
    return module, gga, (torch.get_rng_state(), random.getstate())


def both(make, **settings):
    """A search with recordings, after a comparison with one without."""
    module, gga, state = searched(Replaying, make, **settings)
    other, plain, other_state = searched(GradientGuidedAnnealing, make, **settings)
    assert gga.recorder.refusal is None
    assert gga.recorder.replayed > 3 * 15
    assert same(module.state_dict(), other.state_dict())
    assert same(list(state), list(other_state))
    for record, expected in zip(gga.records, plain.records, strict=True):
        assert record.accepted == expected.accepted
        assert record.gain == pytest.approx(expected.gain, abs=1e-9)
    assert any(record.accepted for record in gga.records)
    return module, gga


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))

    def training_step(self, batch, batch_idx):
        return sum(self.risk(*part) for part in batch.values()) / len(batch)

    def risk(self, inputs, targets):
        return functional.cross_entropy(self.net(inputs), targets)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"proposal": Climb(0.01), "objective": "mean"},
        {"measure_transfer": True},
        pytest.param({"control": "scramble"}, marks=pytest.mark.slow),
        pytest.param({"control": "shuffle_domains"}, marks=pytest.mark.slow),
        pytest.param({"patience": 5}, marks=pytest.mark.slow),
    ],
)
def test_batchnorm_dropout_counters_and_metrics(settings):
    both(Classifier, **settings)


def test_dropout_that_is_drawn_anew():
    settings = {"proposal": Walk(0.0), "num_candidates": 20}
    _, gga, _ = searched(Replaying, Classifier, fixed_dropout=False, **settings)
    assert gga.recorder.refusal is None
    assert any(record.gain > 0 for record in gga.records)  # luck with masks
    _, gga, _ = searched(Replaying, Classifier, **settings)
    assert all(record.gain == 0 for record in gga.records)


def test_buffers_that_the_loss_changes_and_reads():
    class Centred(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("centre", torch.zeros(3))
            self.seen = torch.zeros(())

        def risk(self, inputs, targets):
            logits = self.net(inputs)
            self.centre.mul_(0.5).add_(logits.detach().mean(0))
            self.seen = self.seen + 1
            return functional.cross_entropy(logits - self.seen * self.centre, targets)

    both(Centred)


def test_a_batch_that_the_loss_changes():
    class Scales(Net):
        def risk(self, inputs, targets):
            return super().risk(inputs.mul_(2.0), targets)

    both(Scales)


def test_numbers_that_python_draws():
    class Noisy(Net):
        def risk(self, inputs, targets):
            return super().risk(inputs * random.uniform(0.5, 1.5), targets)

    both(Noisy)  # the same for all candidates anyway
    _, gga, _ = searched(Replaying, Noisy, fixed_dropout=False)
    assert "draws random numbers outside the GPU" in gga.recorder.refusal


class Reads(Net):
    def risk(self, inputs, targets):
        loss = super().risk(inputs, targets)
        return loss * 2 if loss.item() > 0.5 else loss


def test_a_value_that_python_reads(caplog):
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        module, gga, _ = searched(Replaying, Reads)
    other, plain, _ = searched(GradientGuidedAnnealing, Reads)
    assert same(module.state_dict(), other.state_dict())
    assert [r.gain for r in gga.records] == [r.gain for r in plain.records]
    lines = [line for line in caplog.messages if "CUDA graphs" in line]
    assert lines == [
        "GGA: evaluates without CUDA graphs: operation not permitted when stream is capturing."
    ]


@pytest.mark.parametrize(
    "settings", [{"num_candidates": 9}, {"proposal": Guided(0.01, relative=True)}]
)
def test_few_candidates_are_not_worth_recordings(settings):
    _, gga, _ = searched(Replaying, Net, **settings)
    assert gga.recorder.recorded == 0


def test_without_graphs():
    class Plain(Replaying):
        cuda_graphs = False

    _, gga, _ = searched(Plain, Net)
    assert gga.recorder.recorded == 0


def test_an_error_in_a_search_frees_the_recordings():
    class Breaks(Decisions):
        def objective_above(self, *arguments):
            raise KeyboardInterrupt

    gga = Replaying(0, 2, num_candidates=20, acceptance=Breaks(True))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer(gga, max_steps=2).fit(Net(), combined_loader())
    assert (gga.recorder.recorded, gga.recorder.released) == (3, 1)
