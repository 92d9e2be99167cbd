import copy
import math

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn
from torch.nn import functional

from gga_lightning import Ball, Climb, GradientGuidedAnnealing, Guided, Walk
from gga_lightning.callbacks._records import SearchRecord
from gga_lightning.callbacks._resolution import Resolution, overall, resolution_lines
from tests.helpers import Classifier, Decisions, combined_loader, same, trainer


def searched(module=None, *, proposal=None, fit=None, **settings):
    proposal = proposal or Walk(1e-5)
    settings = {"num_candidates": 4, "precision": "float32"} | settings
    gga = GradientGuidedAnnealing(1, 4, proposal=proposal, **settings)
    run = trainer(gga, **(fit or {}))
    run.fit(Classifier() if module is None else module, combined_loader())
    return gga


def network():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3))


class Plain(LightningModule):
    """A network without dropout."""

    def __init__(self, network=None):
        super().__init__()
        self.network = network or globals()["network"]()

    def training_step(self, batch, batch_idx):
        found = [functional.cross_entropy(self.network(x), y) for x, y in batch.values()]
        return torch.stack(found).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Points(Callback):
    """The module's weights as each searched step begins, on the step's batch."""

    def __init__(self):
        self.seen = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen[trainer.global_step] = (copy.deepcopy(pl_module.network), batch)


def cosine(network, batch):
    """The lowest cosine between the domains' gradients, by autograd alone."""
    gradients = []
    for inputs, targets in batch.values():
        inputs = inputs.to(next(network.parameters()).dtype)
        loss = functional.cross_entropy(network(inputs), targets)
        parts = torch.autograd.grad(loss, list(network.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]).double())
    unit = [gradient / gradient.norm() for gradient in gradients]
    pairs = [unit[a] @ unit[b] for a in range(len(unit)) for b in range(a)]
    return min(pair.item() for pair in pairs)


def independently(network, batch, radius, draws=60, dtype=torch.float32):
    """True changes and errors over random points, by copies of the network."""
    generator = torch.Generator().manual_seed(7)
    seen, true = [], []
    for draw in range(draws + 1):
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for param in moved.parameters():
                noise = torch.empty_like(param).uniform_(-radius, radius, generator=generator)
                param.add_(noise if draw else 0.0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            seen.append(cosine(moved, batch))
        true.append(cosine(copy.deepcopy(moved).double(), batch))
    change = torch.tensor(true[1:], dtype=torch.float64) - true[0]
    error = torch.tensor(seen[1:], dtype=torch.float64) - seen[0] - change
    return change.square().mean().sqrt().item(), error.square().mean().sqrt().item()


@pytest.mark.parametrize("bits", [32, 16])
def test_agrees_with_another_way_to_measure_it(bits):
    points = Points()
    fit = {"precision": "32-true" if bits == 32 else "bf16-mixed"}
    # the callback first: it moves nothing, since no candidate lies anywhere else
    gga = GradientGuidedAnnealing(
        1,
        4,
        proposal=Ball(1e-4),
        num_candidates=1,
        acceptance=Decisions(False),
        precision="trainer",
    )
    trainer(gga, points, **fit).fit(Plain(), combined_loader())
    dtype = torch.float32 if bits == 32 else torch.bfloat16
    for found in gga.resolutions:
        change, error = independently(*points.seen[found.step], radius=1e-4, dtype=dtype)
        assert change / 3 < found.change < change * 3
        assert error / 3 < found.error < error * 3
    assert [found.step for found in gga.resolutions] == [1, 3]
    first = gga.resolutions[0]
    assert (first.error < first.change / 10) == (bits == 32)


def test_dropout_layers_are_left_out_and_keep_their_probability():
    module = Classifier()
    gga = searched(module)
    assert [found.points for found in gga.resolutions] == [3, 3]
    assert all(0 < found.error < found.change / 10 for found in gga.resolutions)
    assert module.featurizer[3].p == 0.3


class Draws(Plain):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * (1 + 0.1 * torch.rand(()))


class Constant(Plain):
    def __init__(self):
        super().__init__()
        self.weights = torch.tensor([1.0, 2.0, 3.0])  # no buffer, so that it stays float32

    def training_step(self, batch, batch_idx):
        return torch.stack(
            [(self.network(x) @ self.weights).sum() for x, _ in batch.values()]
        ).mean()


class Single(Plain):
    def training_step(self, batch, batch_idx):
        assert self.network[0].weight.dtype is torch.float32, "float32 only"
        return super().training_step(batch, batch_idx)


def test_random_numbers_are_found_where_each_run_draws_its_own():
    gga = searched(Draws(), fixed_dropout=False)
    assert all("draws random numbers" in found.reason for found in gga.resolutions)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Draws, "draws random numbers"),
        (Constant, "float"),  # in words that differ between versions of torch
        (Single, "float32 only"),
    ],
)
def test_what_cannot_be_measured_is_said_and_searched_as_ever(kind, reason, caplog):
    torch.manual_seed(1)
    gga = searched(kind())
    assert all(found.points == 0 and reason in found.reason.lower() for found in gga.resolutions)
    lines = [r.getMessage() for r in caplog.records if "not measured" in r.getMessage()]
    assert len(lines) == 1
    assert reason in lines[0].lower()
    assert len(gga.records) == 3


class Tied(Plain):
    """A parameter in two places, and another as an attribute of something that is no module."""

    def __init__(self):
        super().__init__()
        self.again = nn.Linear(8, 24)
        self.again.weight = self.network[0].weight
        self.named = {"bias": [self.again.bias]}

    def training_step(self, batch, batch_idx):
        rows = [self.again(x) + self.named["bias"][0] for x, _ in batch.values()]
        return super().training_step(batch, batch_idx) + torch.stack(rows).square().mean()


@pytest.mark.parametrize("proposal", [Walk(1e-4), Climb(0.01, relative=True), Ball(1e-4)])
@pytest.mark.parametrize("kind", [Plain, Tied, Classifier])
def test_float32_errs_less_than_the_change(kind, proposal):
    gga = searched(kind(), proposal=proposal)
    assert all(found.error < found.change / 20 for found in gga.resolutions)


def test_a_guided_step_is_measured_at_its_own_length():
    near, far = (
        searched(Plain(), proposal=Guided(radius, relative=True), precision="trainer")
        for radius in (0.001, 0.01)
    )
    assert near.resolutions[0].change < far.resolutions[0].change / 5
    assert searched(Plain(), proposal=Guided(0.01, relative=True)).resolutions == []


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_measuring_moves_nothing_and_draws_nothing(precision, monkeypatch):
    def run(measures):
        with monkeypatch.context() as patch:
            if not measures:
                patch.setattr(GradientGuidedAnnealing, "_measure_resolution", lambda *_: None)
            torch.manual_seed(2)
            module = Classifier()
            gga = searched(module, proposal=Walk(0.01), fit={"precision": precision})
            return module.state_dict(), [r._replace(seconds=0.0) for r in gga.records]

    (weights, records), (others, other_records) = run(True), run(False)
    assert records == other_records
    assert same(weights, others)


def test_measurements_are_kept_in_checkpoints():
    gga = searched()
    other = GradientGuidedAnnealing(1, 4)
    other.load_state_dict(gga.state_dict())
    assert other.resolutions == gga.resolutions
    assert len(gga.resolutions) == 2


def test_the_trainers_precision():
    def gains(precision, fit):
        torch.manual_seed(0)
        gga = searched(Plain(), fit={"precision": fit}, precision=precision, num_candidates=10)
        return [record.gain for record in gga.records], gga.resolutions[0].error

    full, error = gains("float32", "bf16-mixed")
    own, own_error = gains("trainer", "bf16-mixed")
    assert full != own
    assert error < own_error / 100
    # without mixed precision there is no difference
    assert gains("trainer", "32-true") == gains("float32", "32-true")


def test_a_precision_that_is_none():
    with pytest.raises(ValueError, match="`precision` must be 'float32' or 'trainer', got 'bf16'"):
        GradientGuidedAnnealing(precision="bf16")


def record(gain, accepted):
    return SearchRecord(0, 0.0, gain, gain, 10, accepted, 0.0, 1.0)


@pytest.mark.parametrize(
    ("change", "error", "gains", "expected"),
    [
        (1e-4, 1e-6, [(1e-3, 5), (0.0, 0)], None),
        (1e-4, 2e-4, [(1e-3, 5)], "selected by rounding error"),
        (1e-4, 1e-5, [(2e-5, 5), (0.0, 0)], "gains 4.0e-06 on average, which is within rounding"),
        (1e-4, 1e-5, [(0.0, 0)], None),
    ],
)
def test_the_closing_line(change, error, gains, expected):
    measured = [Resolution(1, change, error, 3), Resolution(3, change, error, 3)]
    (line,) = resolution_lines(measured, [record(*pair) for pair in gains], "min")
    assert f"changes by {change:.1e}, and rounding errors are {error:.1e}" in line
    assert "of 6 draws" in line
    if expected is None:
        assert line.endswith("draws).")
    else:
        assert expected in line


def test_no_line_without_a_measurement():
    assert list(resolution_lines([], [record(0.1, 1)], "min")) == []


def test_measurements_are_pooled_by_their_points():
    measured = [Resolution(0, 1.0, 3.0, 3), Resolution(1, 2.0, 0.0, 1)]
    assert overall(measured) == pytest.approx((math.sqrt(7 / 4), math.sqrt(27 / 4)))


class TensorFloat(torch.utils._python_dispatch.TorchDispatchMode):
    """Rounds what convolutions and matrix products take to 10 bits, as NVIDIA's TF32 does."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in (
            "convolution",
            "convolution_backward",
            "addmm",
            "mm",
        ):
            args = tuple(map(_rounded, args))
        return function(*args, **(kwargs or {}))


def _rounded(value):
    if not isinstance(value, torch.Tensor) or value.dtype is not torch.float32 or value.dim() < 2:
        return value
    return ((value.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def test_tensor_float_does_not_see_the_published_radius():
    """The finding of docs/resolution.md, at the size of a test: see benchmarks/resolution.py."""
    found = {}
    for name, precise in (("float32", True), ("tf32", False)):
        torch.manual_seed(0)
        module = Plain(
            nn.Sequential(
                nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
            )
        )
        if precise:
            found[name] = searched(module).resolutions[0]
        else:
            with TensorFloat():
                found[name] = searched(module).resolutions[0]
    assert found["float32"].error < found["float32"].change / 10
    assert found["tf32"].error > found["tf32"].change
    assert found["tf32"].change == pytest.approx(found["float32"].change, rel=0.2)
