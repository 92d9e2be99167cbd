"""Searches on a GPU, with CUDA graphs and without."""

import gc
import math

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from gga_lightning import Ball, Climb, GradientGuidedAnnealing, Guided, RandomState, Walk
from gga_lightning.alignment import DomainEvaluator, annealing_search
from gga_lightning.alignment.place import Place, uniform_noise
from tests.helpers import Classifier, Decisions, domain_data, same, trainer

pytestmark = pytest.mark.gpu


def loader():
    return DataLoader(
        [
            {name: (x[i : i + 8], y[i : i + 8]) for name, (x, y) in domain_data().items()}
            for i in range(0, 48, 8)
        ],
        batch_size=None,
    )


def fitted(make, *callbacks, ckpt_path=None, **settings):
    torch.manual_seed(0)
    module = make()
    fit = trainer(*callbacks, **{"accelerator": "gpu", "precision": "64-true", **settings})
    fit.fit(module, loader(), ckpt_path=ckpt_path)
    return module, fit


class Eager(GradientGuidedAnnealing):
    cuda_graphs = False


Eager.__name__ = GradientGuidedAnnealing.__name__  # which its noise depends on


class Images(LightningModule):
    def __init__(self):
        super().__init__()
        self.featurizer = nn.Sequential(
            nn.Unflatten(1, (1, 2, 4)), nn.Conv2d(1, 8, 2, padding=1), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Linear(8 * 3 * 5, 3)

    def training_step(self, batch, batch_idx):
        losses = [
            functional.cross_entropy(self.head(self.featurizer(x)), y) for x, y in batch.values()
        ]
        return sum(losses) / len(losses)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("make", [Classifier, Images])
@pytest.mark.parametrize("precision", ["64-true", "32-true"])
@pytest.mark.parametrize("proposal", [Walk(0.003), Climb(0.01), Ball(0.01, relative=True)])
def test_graphs_take_the_decisions_of_the_eager_engine(make, precision, proposal, caplog):
    found = []
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        for kind in (GradientGuidedAnnealing, Eager):
            gga = kind(1, 4, proposal=proposal, num_candidates=30)
            module, _ = fitted(make, gga, precision=precision)
            found.append((module.state_dict(), [r.accepted for r in gga.records], gga.records))
    assert "without CUDA graphs" not in caplog.text
    assert found[0][1] == found[1][1]
    assert any(found[0][1])
    for one, other in zip(found[0][2], found[1][2], strict=True):
        assert one.gain == pytest.approx(other.gain, abs=1e-6)
    for name, value in found[0][0].items():
        torch.testing.assert_close(value, found[1][0][name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("precision", ["64-true", "32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("mode", ["float32", "trainer"])
def test_a_search_that_accepts_nothing_is_no_search(precision, mode):
    gga = GradientGuidedAnnealing(
        1, 4, num_candidates=15, acceptance=Decisions(False), precision=mode
    )
    module, fit = fitted(Classifier, gga, precision=precision)
    plain, other = fitted(Classifier, precision=precision)
    assert len(gga.records) == 3
    assert same(module.state_dict(), plain.state_dict())


def test_the_random_state_is_that_without_a_search():
    states = []
    for callbacks in ([GradientGuidedAnnealing(1, 4, num_candidates=15)], []):
        fitted(Classifier, *callbacks)
        states.append((torch.get_rng_state(), torch.cuda.get_rng_state()))
    # the search draws from generators of its own, and dropout masks from copies
    assert same(*map(list, states))


def test_new_dropout_masks():
    for fixed in (True, False):
        gga = GradientGuidedAnnealing(
            1, 4, proposal=Walk(0.0), num_candidates=60, fixed_dropout=fixed
        )
        fitted(Classifier, gga)
        assert any(record.gain > 0 for record in gga.records) == (not fixed)


class Reads(Images):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * 2 if loss.item() > 0.5 else loss


class Waits(Images):
    """Passes the first evaluation, and fails when it is recorded."""

    def training_step(self, batch, batch_idx):
        torch.cuda.current_stream().synchronize()
        return super().training_step(batch, batch_idx) * torch.rand((), device="cuda")


class FromTheHost(Images):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * torch.tensor([1.0]).to(self.device)[0]


@pytest.mark.parametrize("make", [Reads, Waits, FromTheHost])
def test_what_cannot_be_recorded_is_evaluated_as_usual(make, caplog):
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        gga = GradientGuidedAnnealing(1, 4, proposal=Walk(0.003), num_candidates=20)
        module, _ = fitted(make, gga)
    lines = [line for line in caplog.messages if "without CUDA graphs" in line]
    assert len(lines) == 1
    plain = Eager(1, 4, proposal=Walk(0.003), num_candidates=20)
    other, _ = fitted(make, plain)
    assert [r.accepted for r in gga.records] == [r.accepted for r in plain.records]
    assert same(module.state_dict(), other.state_dict())
    torch.rand(3, device="cuda")  # the generator still draws


def test_memory_is_given_back():
    gga = GradientGuidedAnnealing(1, 4, num_candidates=15)
    held = []
    for callbacks in ([], [gga], [gga]):
        fitted(Images, *callbacks)
        gc.collect()
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_allocated())
    assert held[2] == held[1]
    assert held[1] - held[0] < 64 * 2**20  # what cuBLAS keeps for another stream


@pytest.mark.parametrize("proposal", [Walk(0.003), Guided(0.01, relative=True)])
def test_resumed_as_uninterrupted(tmp_path, proposal):
    def callbacks():
        return [
            GradientGuidedAnnealing(1, 5, proposal=proposal, num_candidates=15),
            RandomState(),
        ]

    whole, _ = fitted(Classifier, *callbacks())
    _, half = fitted(Classifier, *callbacks(), max_steps=3)
    half.save_checkpoint(tmp_path / "half.ckpt")
    rest, _ = fitted(Classifier, *callbacks(), ckpt_path=tmp_path / "half.ckpt")
    assert same(whole.state_dict(), rest.state_dict())


class ScoresAll:
    """Rejects every candidate, and needs its whole score for that."""

    def objective_above(self, accepted, index, draw):
        return -math.inf

    def loss_below(self, best, start):
        return -math.inf


class OnTheHost(Walk):
    """Draws on the CPU, where every device finds the same noise."""

    def candidates(self, place):
        host = torch.Generator().manual_seed(0)

        def noise(param, radius, generator):
            drawn = torch.rand(param.shape, generator=host, dtype=torch.float64)
            return ((drawn * 2 - 1) * radius).to(param)

        while True:
            place.add_noise(noise, self.radii(place.params))
            yield


def scores(device):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).double().to(device)
    parts = [(x.double().to(device), y.to(device)) for x, y in domain_data().values()]
    losses = [lambda x=x, y=y: functional.cross_entropy(net(x), y) for x, y in parts]
    params = list(net.parameters())
    settings = {"proposal": OnTheHost(0.01), "num_candidates": 60, "acceptance": ScoresAll()}
    return annealing_search(params, DomainEvaluator(losses, params), **settings).scores


def test_scores_are_those_of_a_cpu_on_the_same_noise():
    for one, other in zip(scores("cpu"), scores("cuda"), strict=True):
        assert one == pytest.approx(other, abs=1e-9)


def test_noise_in_one_buffer_leads_back_bit_for_bit():
    params = [torch.randn(50, device="cuda"), torch.randn(3, 4, device="cuda")]
    place = Place(params, torch.Generator().manual_seed(0))
    assert place._noise is not None
    place.add_noise(uniform_noise, [0.1, 0.1])
    there, path = [param.clone() for param in params], place.path
    place.to_start()
    place.follow(path)
    assert all(map(torch.equal, params, there))
