"""Modules that know nothing of us: either untouched, or refused by name."""

import contextlib
import dataclasses
import importlib
import itertools
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from gga_lightning import (
    Ball,
    GradientAgreementVoting,
    GradientConflictMonitor,
    GradientGuidedAnnealing,
    GradientGuidedNoise,
    RandomState,
)
from gga_lightning.alignment import Proposal
from gga_lightning.alignment.place import uniform_noise
from gga_lightning.callbacks import annealing
from gga_lightning.probing.domains import Splitter
from gga_lightning.probing.precision import full_precision
from gga_lightning.probing.source import LossSource
from tests.helpers import Decisions, mostly_slow, same, trainer
from tests.tape import TapeRecorder
from tests.zoo import CASES, FILES

for topic in ("classics", "state", "late", "objects", "code", "surroundings"):
    importlib.import_module(f"tests.zoo.{topic}")


class EverythingMoves(GradientAgreementVoting):
    """Evaluates the domains, and keeps all of every update."""

    def _share(self, averages):
        share, reached = super()._share(averages)
        return torch.ones_like(share), reached


CALLBACKS = {
    "search": lambda **settings: GradientGuidedAnnealing(
        0,
        9,
        proposal=Ball(0.1),
        num_candidates=3,
        acceptance=Decisions(False),
        measure_transfer=True,
        **settings,
    ),
    "voting": lambda **settings: EverythingMoves(0, 9, **settings),
    "noise": lambda **settings: GradientGuidedNoise(0.0, **settings),
    "monitor": lambda **settings: GradientConflictMonitor(1, **settings),
    "random": lambda **settings: RandomState(),
}


class Keeps(Callback):
    """The metrics of every batch, and the random state in the end."""

    def __init__(self):
        self.metrics, self.randomness = [], None

    def on_train_batch_end(self, trainer, *_):
        found = trainer.callback_metrics.items()
        self.metrics.append({name: value.clone() for name, value in found if "/" not in name})

    def on_train_end(self, trainer, pl_module):
        generators = torch.get_rng_state(), random.getstate(), np.random.get_state()
        self.randomness = [str(state) for state in generators]


def seed():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def train(found, folder, *callbacks):
    """Everything that a training leaves."""
    seed()
    module, kept, loader = found.make(), Keeps(), found.loader()
    seed()
    logger = CSVLogger(folder, name="", version="")
    settings = {"max_steps": 3, "logger": logger, "log_every_n_steps": 1, **found.trainer}
    fit = trainer(*callbacks, kept, **settings)
    fit.fit(found.fits(module), loader)
    return {
        "parameters": dict(module.state_dict()),
        "attributes": plain(module),
        "optimizers": [plain(optimizer.state_dict()) for optimizer in fit.optimizers],
        "rates": [group["lr"] for o in fit.optimizers for group in o.param_groups],
        "metrics": kept.metrics,
        "random": kept.randomness,
        "stopped": fit.should_stop,
    }


def plain(value, seen=None, depth=0):
    """An object as nested dicts, lists and numbers: an independent way of looking at it."""
    seen = {} if seen is None else seen
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, torch.Tensor) and (value.is_meta or value.is_nested):
        return str(value)
    if isinstance(value, torch.Tensor):
        return value.detach().to_dense() if value.layout is not torch.strided else value.detach()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if id(value) in seen or depth > 12:
        return seen.get(id(value), ["deep"])[0]
    seen[id(value)] = f"seen {len(seen)}", value
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, dict) and all(isinstance(key, int) for key in value):  # hooks
        return [plain(entry, seen, depth + 1) for entry in value.values()]
    if isinstance(value, dict):
        return {str(k): plain(v, seen, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set) or type(value).__name__ == "deque":
        return [plain(entry, seen, depth + 1) for entry in value]
    if type(value).__module__.startswith(
        ("lightning", "_io", "torch._dynamo", "weakref")
    ) and not isinstance(value, nn.Module):
        return type(value).__name__
    slots = itertools.chain.from_iterable(
        getattr(kind, "__slots__", ()) for kind in type(value).__mro__
    )
    inside = {name: getattr(value, name, None) for name in slots if name != "__weakref__"}
    inside |= getattr(value, "__dict__", {})
    skipped = (
        "_torchdynamo_wrapper_id",
        "_trainer",
        "_fabric",
        "_update_signature",
        "update",
        "compute",
        "_compiler_ctx",
    )
    inside = {
        k: v
        for k, v in inside.items()
        if (k not in skipped and not callable(v)) or isinstance(v, nn.Module)
    }
    return {k: plain(v, seen, depth + 1) for k, v in inside.items()}


def differences(left, right, path=""):
    """The places where two such nestings differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in {**left, **right}:
            yield from differences(left.get(key, "-"), right.get(key, "-"), f"{path}.{key}")
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if len(left) != len(right):
            yield f"{path}: {len(left)} and {len(right)}"
        for place, pair in enumerate(zip(left, right, strict=False)):
            yield from differences(*pair, f"{path}[{place}]")
    elif type(left) is not type(right) or not same(left, right):
        yield f"{path}: {left} and {right}"


DOCUMENT = Path(__file__).resolve().parents[2] / "docs/guarantees.md"
PLAIN = {}


def without(name, folder):
    """What the training of a case leaves without callbacks."""
    if name not in PLAIN:
        PLAIN[name] = train(CASES[name], folder / "plain")
    return PLAIN[name]


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    while FILES:
        FILES.pop().close()


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"
)
@pytest.mark.parametrize(
    "kind",
    # the others evaluate by the same code, so they need not be run often
    mostly_slow(("search", "voting", "noise", "monitor", "random"), "search"),
)
@pytest.mark.parametrize("name", CASES)
def test_untouched_or_refused(name, kind, folder):
    found = CASES[name]
    callback = CALLBACKS[kind](**found.callback)
    if found.refused is not None:
        if kind == "random":  # evaluates nothing
            return
        with pytest.raises(MisconfigurationException, match=re.escape(found.refused)):
            train(found, folder, callback)
        return
    ours = train(found, folder, callback)
    assert list(differences(without(name, folder), ours)) == []
    if kind in ("search", "voting", "monitor"):
        assert len(callback.records) == 3


@dataclasses.dataclass(frozen=True)
class StaysOrMoves(Proposal):
    """Every second candidate is the starting point."""

    def candidates(self, place):
        while True:
            place.to_start()
            yield
            place.add_noise(uniform_noise, self.radii(place.params))
            yield


class AcceptsNothing:
    def objective_above(self, accepted, index, draw):
        return -math.inf

    def loss_below(self, best, start):
        return -math.inf


class Stopped(Exception):
    pass


class ComputesAndStops(Callback):
    """Computes the loss of the first domain on the module itself, which is of no use afterwards."""

    def __init__(self, step, settings):
        self.step, self.settings, self.loss = step, {"split": None, **settings}, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx != self.step:
            return
        silent = {"log": lambda *a, **k: None, "log_dict": lambda *a, **k: None}
        vars(pl_module).update({**silent, **vars(pl_module)})
        domain = Splitter(self.settings["split"])(batch)[0]
        source = LossSource(pl_module, self.settings.get("domain_loss"))
        with full_precision(pl_module.device):
            loss = source(pl_module, source.input(domain), batch_idx, domain.name)
        self.loss = math.nan if loss is None else loss.item()
        raise Stopped


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"
)
@pytest.mark.parametrize(
    "name",
    [
        name
        if case.make.__module__ == "tests.zoo.late"
        else pytest.param(name, marks=pytest.mark.slow)
        for name, case in CASES.items()
        if case.refused is None
    ],
)
def test_losses_are_those_of_the_module_itself_at_every_candidate(name, folder, monkeypatch):
    found, results, first = CASES[name], [], {}
    search, loss_of = annealing.annealing_search, LossSource.__call__

    def noted_search(*args, **settings):
        results.append(search(*args, **settings))
        return results[-1]

    def noted_loss(self, module, part, batch_idx, domain):
        loss = loss_of(self, module, part, batch_idx, domain)
        first.setdefault(batch_idx, math.nan if loss is None else loss.item())
        return loss

    for step in (0, 1):
        truth = ComputesAndStops(step, found.callback)
        with contextlib.suppress(Stopped):
            train(found, folder / f"truth{step}", truth)
        with monkeypatch.context() as patch:
            patch.setattr(annealing, "annealing_search", noted_search)
            patch.setattr(LossSource, "__call__", noted_loss)
            # which leaves dropout out
            patch.setattr(GradientGuidedAnnealing, "_measure_resolution", lambda *_: None)
            search_settings = {"proposal": StaysOrMoves(0.05), "acceptance": AcceptsNothing()}
            gga = GradientGuidedAnnealing(
                step, step + 1, num_candidates=4, **search_settings, **found.callback
            )
            train(found, folder / f"search{step}", gga)
        assert np.array_equal(first[step], truth.loss, equal_nan=True)
    assert len(results) == 2
    for result in results:
        assert all(same_score(score, result.start) for score in result.scores[::2])


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"
)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused is None])
def test_replays_have_the_scores_of_evaluations(name, folder, monkeypatch):
    """By the recorder that stands in for CUDA graphs."""
    found, results, recorder = CASES[name], [], TapeRecorder()
    search = annealing.annealing_search

    def noted_search(*args, **settings):
        results.append(search(*args, **settings))
        return results[-1]

    monkeypatch.setattr(annealing, "annealing_search", noted_search)

    class Replays(Callback):
        def on_train_start(self, trainer, pl_module):
            gga._reader._recorder = recorder

    for callbacks in ((), (Replays(),)):
        settings = {"proposal": Ball(0.05), "num_candidates": 12, **found.callback}
        gga = GradientGuidedAnnealing(0, 2, acceptance=AcceptsNothing(), **settings)
        ours = train(found, folder / str(len(callbacks)), *callbacks, gga)
        assert list(differences(without(name, folder), ours)) == []
    half = len(results) // 2
    for one, other in zip(results[:half], results[half:], strict=True):
        scores = zip([one.start, *one.scores], [other.start, *other.scores], strict=True)
        assert all(a == pytest.approx(b, rel=1e-4, abs=1e-4, nan_ok=True) for a, b in scores)
    assert recorder.refusal or recorder.replayed or not half


def same_score(left, right):
    return left == right or (math.isnan(left.loss) and math.isnan(right.loss))


def table():
    """The table of docs/guarantees.md."""
    yield "| module | result |"
    yield "|---|---|"
    for found in CASES.values():
        if found.refused is None:
            yield f"| {found.what} | untouched |"
        else:
            yield f"| {found.what} | refused: {found.refused} |"


def test_the_documents_table_is_this_zoo():
    """Rewrite it by `python -m tests.probing.test_zoo`."""
    if DOCUMENT.exists():  # not where the tests of a wheel run
        lines = DOCUMENT.read_text().splitlines()
        assert [line for line in lines if line.startswith("|")] == list(table())


if __name__ == "__main__":
    text, _, _ = DOCUMENT.read_text().partition("\n| module |")
    DOCUMENT.write_text("\n".join([text.rstrip(), "", *table(), ""]))
