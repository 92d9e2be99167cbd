import csv
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader

from gga_lightning import (
    Ball,
    GradientConflictMonitor,
    GradientGuidedAnnealing,
    GradientGuidedNoise,
    Greedy,
    Guided,
    Walk,
)
from gga_lightning.algorithms import pool
from tests.helpers import (
    Classifier,
    Decisions,
    Flat,
    combined_loader,
    copies,
    domain_data,
    same,
    step_start,
    trainer,
)


def search(start=2, end=5, **settings):
    settings = {"proposal": Walk(0.01), "num_candidates": 20, **settings}
    return GradientGuidedAnnealing(start, end, **settings)


class Moved(Callback):
    """Which steps moved the parameters before the training step, seen from outside.

    Callbacks run in their order, so one before and one after the search frame it.
    """

    def __init__(self):
        self.steps, self.before = [], None

    def first(self):
        outer = self

        class First(Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                outer.before = copies(pl_module)

        return First()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not same(self.before, copies(pl_module)):
            self.steps.append((trainer.global_step, batch_idx))


def run(*callbacks, module=None, loader=None, **settings):
    fit = trainer(*callbacks, **settings)
    fit.fit(Classifier() if module is None else module, loader or combined_loader())
    return fit


class TestSearches:
    def test_only_in_its_window(self):
        moved, gga = Moved(), search()
        run(moved.first(), gga, moved)
        assert [step for step, _ in moved.steps] == [2, 3, 4]
        assert [record.step for record in gga.records] == [2, 3, 4]
        assert all(record.gain > 0 and record.accepted > 0 for record in gga.records)

    def test_every_n_steps(self):
        gga = search(1, 6, every_n_steps=2)
        run(gga)
        assert [record.step for record in gga.records] == [1, 3, 5]

    def test_own_schedule(self):
        class Odd(GradientGuidedAnnealing):
            def should_search(self, step):
                return step % 2 == 1

        gga = Odd(proposal=Walk(0.01), num_candidates=2)
        run(gga)
        assert [record.step for record in gga.records] == [1, 3, 5]

    def test_once_a_step_under_accumulation(self):
        moved, gga = Moved(), search(1, 3)
        run(moved.first(), gga, moved, accumulate_grad_batches=2, max_steps=3)
        assert moved.steps == [(1, 2), (2, 4)]
        assert [record.step for record in gga.records] == [1, 2]

    @pytest.mark.parametrize(
        ("parameters", "expected"),
        [
            (None, {"featurizer"}),
            ("head", {"head"}),
            (r".*weight", {"featurizer", "head"}),
            (lambda name, param: param.ndim == 2 and "head" in name, {"head"}),
        ],
    )
    def test_moves_the_chosen_parameters(self, parameters, expected):
        module, before = Classifier(), {}

        class Frame(Callback):
            def __init__(self, after):
                self.after = after

            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                named = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
                if self.after and trainer.global_step == 2:
                    moved = {n for n, p in named.items() if not torch.equal(p, before[n])}
                    assert {name.split(".")[0] for name in moved} == expected
                before.update(named)

        gga = search(2, 3, parameters=parameters, proposal=Ball(0.1), num_candidates=60)
        run(Frame(False), gga, Frame(True), module=module)

    def test_frozen_parameters_stay(self):
        module = Classifier()
        module.featurizer[0].weight.requires_grad_(False)
        weight = module.featurizer[0].weight.clone()
        run(search(), module=module)
        assert torch.equal(module.featurizer[0].weight, weight)

    def test_all_parameters_where_there_is_no_featurizer(self):
        module = Classifier()
        module.body, module.featurizer = module.featurizer, None
        module.forward = lambda inputs: module.head(module.body(inputs))
        gga = search()
        assert gga._chosen(module) == list(module.parameters())

    def test_records_agree_with_an_evaluation_from_outside(self):
        class Check(Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                if trainer.global_step == 2:
                    with gga._open(step_start(trainer, pl_module, batch)) as opened:
                        cosines = opened.evaluate().cosines
                    lowest = min(cosines[0, 1], cosines[0, 2], cosines[1, 2])
                    assert lowest.item() == pytest.approx(gga.records[0].min_cosine_end, abs=1e-9)

        gga = search(2, 3)
        run(gga, Check())

    def test_linear_schedule_shrinks_the_radius(self):
        gga = search(10, 14, radius_schedule="linear")
        radii = [gga._proposal_at(step).radius for step in range(10, 14)]
        assert radii == pytest.approx([0.01, 0.0075, 0.005, 0.0025])

    def test_radius_zero_with_dropout_gains_nothing(self):
        gga = search(proposal=Walk(0.0))
        run(gga)
        assert [(r.gain, r.accepted) for r in gga.records] == [(0.0, 0)] * 3

    def test_redrawn_dropout_is_luck(self):
        gga = search(proposal=Walk(0.0), fixed_dropout=False)
        run(gga)
        assert sum(record.gain for record in gga.records) > 0

    @pytest.mark.parametrize("proposal", [Walk(1e-3), Ball(1e-3), Guided(1e-3)])
    def test_decisions_are_the_same_under_a_bf16_trainer(self, proposal):
        found = []
        for precision in ("32-true", "bf16-mixed"):
            gga, ends = search(0, 1, proposal=proposal), []

            class Last(Callback):
                def on_train_batch_start(self, trainer, pl_module, batch, batch_idx, ends=ends):
                    ends.append(copies(pl_module))

            torch.manual_seed(0)
            run(gga, Last(), precision=precision, max_steps=1)
            found.append((gga.records[0]._replace(seconds=0), ends))
        assert found[0][0] == found[1][0]
        assert found[0][0].accepted > 0
        assert same(found[0][1], found[1][1])

    def test_noise_depends_on_the_seed_and_the_step_alone(self):
        ends = []
        for seed, noise in ((0, 1), (0, 2), (1, 1)):
            torch.manual_seed(0)
            module = Classifier()
            gga = search(seed=seed)
            torch.manual_seed(0)

            class Disturb(Callback):
                def on_train_batch_start(self, *args, noise=noise):
                    random.seed(noise)
                    np.random.seed(noise)

            run(Disturb(), gga, module=module)
            ends.append(copies(module))
        assert same(ends[0], ends[1])
        assert not same(ends[0], ends[2])

    def test_a_second_fit_starts_afresh(self):
        gga = search()
        run(gga)
        first = list(gga.records)
        torch.manual_seed(0)
        run(gga)
        assert len(gga.records) == len(first)


class Spoiled(Callback):
    """Random state at the end of training, and every metric on the way."""

    def __init__(self):
        self.metrics, self.randomness = [], None

    def on_train_batch_end(self, trainer, *_):
        self.metrics.append(
            {k: v.clone() for k, v in trainer.callback_metrics.items() if "/" not in k}
        )

    def on_train_end(self, trainer, pl_module):
        self.randomness = (
            torch.get_rng_state(),
            random.getstate(),
            np.random.get_state()[1].tolist(),
        )


NO_OPS = {
    "search": lambda: search(0, 6, proposal=Walk(0.5), acceptance=Decisions(False)),
    "blocks": lambda: search(0, 8, proposal=Ball(0.5), acceptance=Decisions(False)),
    "guided": lambda: search(
        0,
        9,
        proposal=Guided(0.5, orthogonal=True),
        acceptance=Decisions(False),
        measure_transfer=True,
        control="shuffle_domains",
    ),
    "redrawn": lambda: search(0, 7, acceptance=Decisions(False), fixed_dropout=False),
    "noise": lambda: GradientGuidedNoise(gamma=0.0),
    "monitor": lambda: GradientConflictMonitor(every_n_steps=1),
    "rehearsal": lambda: search(100, 101),
}


def outcome(callbacks, folder, backend=None, **settings):
    """All that a training leaves, with everything about it fixed but the callbacks."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    torch._dynamo.reset()
    module, spoiled = Classifier(), Spoiled()
    target = torch.compile(module, backend=backend) if backend else module
    logger = CSVLogger(folder, name=str(len(callbacks)))
    fit = trainer(*callbacks, spoiled, logger=logger, log_every_n_steps=1, **settings)
    fit.fit(target, combined_loader())
    return {
        "state": dict(module.state_dict()),
        "optimizer": fit.optimizers[0].state_dict(),
        "metrics": spoiled.metrics,
        "random": spoiled.randomness,
        "calls": (module.calls, len(module.outputs)),
        "rows": _rows(folder / str(len(callbacks)) / "version_0/metrics.csv"),
    }


SETTINGS = {
    "float32": {},
    "bf16": {"precision": "bf16-mixed"},
    "accumulate": {"accumulate_grad_batches": 2},
    "clip": {"gradient_clip_val": 0.1},
}


@pytest.fixture(scope="module", params=SETTINGS.values(), ids=SETTINGS)
def without(request, tmp_path_factory):
    """Settings of the trainer, and all that a training with them leaves without callbacks."""
    return request.param, outcome([], tmp_path_factory.mktemp("plain"), **request.param)


@pytest.mark.filterwarnings("ignore:.*ends before the window")
class TestACallbackThatChangesNothingIsNoCallback:
    @pytest.mark.parametrize("make", NO_OPS.values(), ids=NO_OPS)
    def test_eager(self, make, without, tmp_path):
        settings, plain = without
        ours = outcome([make()], tmp_path, **settings)
        for part, value in plain.items():
            assert same(value, ours[part]), part

    @pytest.mark.slow
    @pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
    @pytest.mark.timeout(900)
    def test_compiled(self, backend, tmp_path):
        """In a process of its own: the compiler follows whatever other tests have imported."""
        script = f"from {__name__} import compare_compiled as c; c({backend!r}, {str(tmp_path)!r})"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],  # compiling Lightning's log warns a lot
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]


def compare_compiled(backend, folder):
    folder = Path(folder)
    torch.set_num_threads(1)
    outcome([], folder / "eager")  # torchmetrics looks for packages once, outside the compiler
    plain = outcome([], folder, backend)
    ours = outcome([make() for make in NO_OPS.values()], folder, backend)
    for part, value in plain.items():
        assert same(value, ours[part]), part


@pytest.mark.filterwarnings("ignore")
def test_searching_compiles_nothing():
    """Other batch sizes would make compiled code recompile, and then run other kernels."""

    class Plain(Classifier):
        def training_step(self, batch, batch_idx):
            inputs, targets = pool(batch)
            return nn.functional.cross_entropy(self(inputs), targets)

    counts = []
    for callbacks in ([], [search(0, 6, acceptance=Decisions(False))]):
        compiled = []

        def backend(graph, inputs, compiled=compiled):
            compiled.append(graph)
            return graph.forward

        torch._dynamo.reset()
        run(*callbacks, module=torch.compile(Plain(), backend=backend))
        counts.append(len(compiled))
    assert counts[0] == counts[1] > 0


def _rows(path):
    """The logged rows without our own columns and rows."""
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    keep = [i for i, name in enumerate(header) if "/" not in name]
    values = [[row[i] for i in keep] for row in rows]
    names = [header[i] for i in keep]
    step = names.index("step")
    filled = [row for row in values if any(v for i, v in enumerate(row) if i != step)]
    return [dict(zip(names, row, strict=True)) for row in filled]


class TestLogs:
    def test_values(self, tmp_path):
        gga = search()
        run(gga, logger=CSVLogger(tmp_path), log_every_n_steps=1)
        lines = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
        header = lines[0].split(",")
        names = ["accepted", "gain", "loss_change", "min_cosine_end", "min_cosine_start"]
        names += ["resolution", "seconds", "true_change"]
        assert [name for name in header if "/" in name] == [f"gga/{name}" for name in names]
        gains = [line.split(",")[header.index("gga/gain")] for line in lines[1:]]
        logged = [float(value) for value in gains if value]
        assert logged == pytest.approx([record.gain for record in gga.records], rel=1e-5)

    def test_barebones_trainer(self):
        gga = search()
        trainer_settings = {"barebones": True, "logger": None, "enable_checkpointing": None}
        with pytest.warns(UserWarning) as caught:
            run(gga, enable_progress_bar=None, enable_model_summary=None, **trainer_settings)
        assert not any("gga" in str(warning.message) for warning in caught)
        assert len(gga.records) == 3


class TestGuided:
    def test_raises_the_agreement_in_few_candidates(self):
        guided, random = (search(0, 6, proposal=kind(0.001)) for kind in (Guided, Walk))
        for gga in (guided, random):
            run(gga)
        assert all(record.candidates <= 10 for record in guided.records)
        assert guided.records[0].gain > 3 * random.records[0].gain > 0

    def test_a_step_begins_at_twice_the_length_that_was_accepted_last(self):
        first = {}

        class Watched(GradientGuidedAnnealing):
            def _proposal_at(self, step):
                found = super()._proposal_at(step)
                first[step] = found.first
                return found

        gga = Watched(0, 6, proposal=Guided(2.0, relative=True), num_candidates=10)
        run(gga)
        shares = [record.share for record in gga.records]
        assert min(share for share in shares if share) < 0.5
        expected = [1.0]
        for share in shares[:-1]:
            expected.append(expected[-1] if share is None else min(1.0, 2 * share))
        assert list(first.values()) == expected

    def test_patience(self):
        gga = search(0, 3, acceptance=Decisions(False), patience=4)
        run(gga)
        assert [record.candidates for record in gga.records] == [4, 4, 4]


class TestScramble:
    def moves(self, **settings):
        gga, before, after = search(0, 1, seed=3, **settings), [], []

        class First(Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                before.append(copies(pl_module))

        class Last(Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                after.append(copies(pl_module))

        torch.manual_seed(0)
        run(First(), gga, Last(), max_steps=1)
        moves = zip(after[0], before[0], strict=True)
        return torch.cat([(a - b).flatten() for a, b in moves]), gga

    def test_as_long_but_blind(self):
        found, gga = self.moves()
        scrambled, control = self.moves(control="scramble")
        torch.testing.assert_close(found.abs(), scrambled.abs(), rtol=0, atol=1e-7)
        moved = found != 0
        same_sign = (found.sign() == scrambled.sign())[moved].double().mean()
        assert 0.3 < same_sign < 0.7
        assert gga.records[0].accepted == control.records[0].accepted > 0

    def test_records_are_of_where_training_goes_on(self):
        found, gga = self.moves()
        _, control = self.moves(control="scramble")
        assert control.records[0].gain < gga.records[0].gain
        assert control.records[0].min_cosine_start == gga.records[0].min_cosine_start

    def test_a_move_that_is_none_stays_none(self):
        moves, _ = self.moves(control="scramble", acceptance=Decisions(False))
        assert not moves.any()


class TestShuffledDomains:
    def test_searches_other_domains_on_the_same_batch(self):
        plain, control = search(0, 6), search(0, 6, control="shuffle_domains")
        for gga in (plain, control):
            run(gga, module=Flat())
        # domains that are none agree better
        starts = [sum(r.min_cosine_start for r in gga.records) / 6 for gga in (plain, control)]
        assert starts[1] > starts[0] + 0.1

    def test_is_said(self, caplog):
        run(search(0, 1, control="shuffle_domains"), max_steps=1)
        line = next(r.getMessage() for r in caplog.records if "searching" in r.getMessage())
        assert line.endswith("parameters; a control: 'shuffle_domains'.")

    def test_domains_that_cannot_be_joined(self):
        batch = {
            "a": (torch.randn(8, 8), torch.zeros(8).long()),
            "b": (torch.randn(8, 9), torch.zeros(8).long()),
        }

        class Ragged(Classifier):
            def domain_loss(self, part):
                return self(part[0][:, :8]).sum()

            def training_step(self, batch, batch_idx):
                return sum(self.domain_loss(part) for part in batch.values())

        with pytest.raises(MisconfigurationException, match="can be shuffled only where"):
            run(
                search(control="shuffle_domains"),
                module=Ragged(),
                loader=DataLoader([batch], batch_size=None),
            )


class TestTransfer:
    def test_is_the_gain_of_the_same_move_on_the_next_batch(self):
        """By hand: both ends of the move, scored on the next batch from outside."""
        gga, ends, expected = search(0, 3, measure_transfer=True, proposal=Walk(0.05)), [], []

        def score(trainer, pl_module, batch, values):
            here = copies(pl_module)
            load(pl_module, values)
            with gga._open(step_start(trainer, pl_module, batch)) as opened:
                cosines = opened.evaluate().cosines
            load(pl_module, here)
            return min(cosines[0, 1], cosines[0, 2], cosines[1, 2]).item()

        def load(pl_module, values):
            with torch.no_grad():
                for param, value in zip(pl_module.parameters(), values, strict=True):
                    param.copy_(value)

        class First(Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                if trainer.global_step > 0:
                    before, after = ends[-1]
                    values = [score(trainer, pl_module, batch, v) for v in (before, after)]
                    expected.append(values[1] - values[0])
                ends.append([copies(pl_module)])

        class Last(Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                ends[-1].append(copies(pl_module))

        run(First(), gga, Last(), module=Flat(), max_steps=4)
        assert len(gga.records) == 3
        for record, value in zip(gga.records, expected, strict=True):
            assert record.transfer == pytest.approx(value, abs=1e-6)
        assert any(record.transfer != 0 for record in gga.records)

    def test_changes_nothing_else(self):
        states = []
        for measure in (False, True):
            torch.manual_seed(0)
            module = Classifier()
            run(search(measure_transfer=measure), module=module)
            states.append(dict(module.state_dict()))
        assert same(*states)

    def test_a_step_without_a_move_transfers_nothing(self):
        gga = search(measure_transfer=True, acceptance=Decisions(False))
        run(gga)
        assert [record.transfer for record in gga.records] == [0.0, 0.0, 0.0]

    def test_is_logged(self, tmp_path):
        gga = search(measure_transfer=True)
        run(gga, logger=CSVLogger(tmp_path))
        lines = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
        rows = [row for row in csv.DictReader(lines) if row["gga/transfer"]]
        assert [int(row["step"]) for row in rows] == [3, 4, 5]
        assert [float(row["gga/transfer"]) for row in rows] == pytest.approx(
            [record.transfer for record in gga.records], abs=1e-6
        )

    def closing(self, transfers, caplog, proposal=None):
        class Fixed(GradientGuidedAnnealing):
            def _measure(self, pending, *args):
                self._pending = None
                position = [record.step for record in self.records].index(pending.step)
                value = transfers[position]
                self.records[position] = self.records[position]._replace(transfer=value)

        settings = {"proposal": proposal or Walk(0.01), "measure_transfer": True}
        run(Fixed(2, 5, num_candidates=10, **settings))
        return next(r.getMessage() for r in caplog.records if "next batch" in r.getMessage())

    def test_closing_line(self, caplog):
        line = self.closing([0.1, 0.12, 0.11], caplog)
        assert "changes by +0.11000 (standard error 0.00577, 3 steps), on its own by +" in line
        assert line.endswith("So the gain is not luck with one batch.")

    @pytest.mark.parametrize("transfers", [[0.1, -0.1, 0.05], [-0.1, -0.11, -0.12], [0, 0, 0]])
    def test_closing_line_without_a_transferred_gain(self, transfers, caplog):
        line = self.closing(transfers, caplog)
        assert "That is not above zero" in line
        assert "Try proposal=Guided(" in line

    def test_closing_line_of_guided_steps_names_what_is_left_to_try(self, caplog):
        line = self.closing([0, 0, 0], caplog, Guided(0.01, relative=True))
        assert line.endswith("luck with its own batch. Try more samples a domain.")

    @pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
    def test_of_a_move_before_a_checkpoint_is_measured_after_it(self, tmp_path):
        straight, ours = (search(2, 10, measure_transfer=True) for _ in range(2))
        run(straight, module=Flat(), max_steps=-1, max_epochs=2)
        settings = {"max_steps": -1, "enable_checkpointing": True}
        saved = ModelCheckpoint(tmp_path, save_last=True)
        run(search(2, 10, measure_transfer=True), saved, module=Flat(), max_epochs=1, **settings)
        fit = trainer(ours, ModelCheckpoint(tmp_path, save_last=True), max_epochs=2, **settings)
        path = tmp_path / "last.ckpt"
        fit.fit(Flat(), combined_loader(), ckpt_path=path, weights_only=True)
        assert [r._replace(seconds=0) for r in ours.records] == [
            r._replace(seconds=0) for r in straight.records
        ]
        assert sum(record.transfer is not None for record in ours.records) == 8


class TestTerminal:
    LINES = (
        "GGA: searching steps 2 to 4 for agreement of 3 domains (art, photo, sketch; by the "
        "batch's keys; losses by `Classifier.training_step`), at most 20 candidates a step, "
        "moving 176 parameters.",
        "GGA: searched 3 steps in ",
        "GGA: at this radius the min cosine changes by ",
    )

    @pytest.mark.parametrize("bar", ["tqdm", "rich"])
    def test_two_lines_above_the_bar(self, bar, capsys):
        from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

        kinds = {"tqdm": TQDMProgressBar, "rich": RichProgressBar}
        run(search(), kinds[bar](), enable_progress_bar=True)
        output = " ".join(capsys.readouterr().out.split())
        for line in self.LINES:
            assert output.count(line) == 1

    def test_three_lines_without_a_bar(self, caplog):
        run(search())
        lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("GGA")]
        assert all(line.startswith(start) for line, start in zip(lines, self.LINES, strict=True))

    def test_closing_line_says_what_happened(self, caplog):
        gga = search()
        run(gga)
        line = next(r.getMessage() for r in caplog.records if "searched" in r.getMessage())
        accepted = sum(record.accepted for record in gga.records)
        assert f"{accepted} of 60 candidates accepted ({accepted / 60:.1%})" in line
        gain = sum(record.gain for record in gga.records) / 3
        assert f"(gain {gain:+.5f}, mean over the steps)" in line

    def test_closing_line_when_training_ends_in_the_window(self, caplog):
        run(search(2, 100))
        assert sum("GGA: searched 4 steps" in r.getMessage() for r in caplog.records) == 1


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
class TestResume:
    @pytest.mark.parametrize(
        ("accumulate", "proposal"), [(1, Walk(0.01)), (2, Walk(0.01)), (1, Guided(0.5, True))]
    )
    def test_at_an_epochs_end_inside_the_window(self, tmp_path, accumulate, proposal):
        def module():
            torch.manual_seed(0)
            made = Classifier()
            made.featurizer[3] = nn.Identity()  # Lightning keeps no random state for dropout
            return made

        settings = {"accumulate_grad_batches": accumulate, "enable_checkpointing": True}
        kind = {"seed": 4, "proposal": proposal}
        straight, ours = module(), [search(2, 10, **kind), search(2, 10, **kind)]
        whole = {"max_steps": -1, "max_epochs": 3, "accumulate_grad_batches": accumulate}
        run(ours[0], module=straight, **whole)
        saved = ModelCheckpoint(tmp_path, save_last=True)
        run(search(2, 10, **kind), saved, module=module(), max_steps=-1, max_epochs=1, **settings)
        resumed = module()
        settings = {"max_steps": -1, "max_epochs": 3, **settings}
        fit = trainer(ours[1], ModelCheckpoint(tmp_path, save_last=True), **settings)
        fit.fit(resumed, combined_loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
        assert same(dict(straight.state_dict()), dict(resumed.state_dict()))
        records = [[r._replace(seconds=0.0) for r in callback.records] for callback in ours]
        assert records[0] == records[1]

    def test_two_searches_in_one_trainer(self, tmp_path):
        saved = ModelCheckpoint(tmp_path, save_last=True)
        run(search(0, 2), search(3, 4), saved, max_steps=4, enable_checkpointing=True)
        keys = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]
        assert sum(key.startswith("GradientGuidedAnnealing") for key in keys) == 2


class TestWarnings:
    def test_window_out_of_reach(self):
        with pytest.warns(UserWarning, match="training ends before the window.*`start_step=50`"):
            run(search(50, 60))

    @pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
    def test_window_passed(self, tmp_path):
        saved = ModelCheckpoint(tmp_path, save_last=True)
        run(search(1, 2), saved, enable_checkpointing=True)
        saved = ModelCheckpoint(tmp_path, save_last=True)
        fit = trainer(search(1, 2), saved, max_steps=8, enable_checkpointing=True)
        with pytest.warns(UserWarning, match="continues at step 6, after the window .steps 1 to 1"):
            fit.fit(Classifier(), combined_loader(), ckpt_path=tmp_path / "last.ckpt")

    def test_half_precision_parameters(self):
        with pytest.warns(UserWarning, match="the parameters are torch.bfloat16"):
            run(search(), precision="bf16-true")

    @pytest.mark.parametrize(
        ("sizes", "found"),
        [((8, 0), "only 'a'"), ((8,), "only 'a'"), ((0, 0), "none with samples")],
    )
    def test_too_few_domains(self, sizes, found, caplog):
        class Split(Classifier):
            def training_step(self, batch, batch_idx):
                inputs, targets = batch
                return nn.functional.cross_entropy(self(inputs), targets)

        def split(batch):
            return {
                name: tuple(part[:size] for part in batch)
                for name, size in zip("ab", sizes, strict=False)
            }

        gga, module = search(split=split), Split()
        torch.manual_seed(0)
        reference = Split()
        module.load_state_dict(reference.state_dict())
        data = torch.utils.data.TensorDataset(*domain_data()["art"])
        loader = torch.utils.data.DataLoader(data, batch_size=8)
        torch.manual_seed(1)
        run(module=reference, loader=loader)
        torch.manual_seed(1)
        with pytest.warns(UserWarning, match=rf"fewer than two domains \({found}") as caught:
            run(gga, module=module, loader=loader)
        assert sum("fewer than two" in str(w.message) for w in caught) == 1
        assert gga.records == []
        assert same(dict(module.state_dict()), dict(reference.state_dict()))
        assert any("searched no step; 3 steps could not" in r.getMessage() for r in caplog.records)

    def test_loss_that_is_not_finite(self):
        class Breaks(Classifier):
            def training_step(self, batch, batch_idx):
                loss = super().training_step(batch, batch_idx)
                return loss * float("nan") if "art" in batch and len(batch) == 1 else loss

        gga = search()
        with pytest.warns(UserWarning, match="the loss or a gradient is not finite at step 2"):
            run(gga, module=Breaks())
        assert gga.records == []

    @pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
    def test_training_step_that_returns_none(self):
        class Skips(Classifier):
            def training_step(self, batch, batch_idx):
                return super().training_step(batch, batch_idx) if len(batch) > 1 else None

        gga = search()
        with pytest.warns(UserWarning, match="or `training_step` returned None"):
            run(gga, module=Skips())
        assert gga.records == []


class TestErrors:
    """Nothing is left changed by them, and they come before any training."""

    def refused(self, message, *callbacks, module=None, loader=None, **settings):
        module = module or Classifier()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(MisconfigurationException, match=message):
            run(*(callbacks or [search(3, 4)]), module=module, loader=loader, **settings)
        assert same(before, dict(module.state_dict()))
        assert "log" not in vars(module)

    def test_batch_without_domains(self):
        class Pairs(Classifier):
            def training_step(self, batch, batch_idx):
                return nn.functional.cross_entropy(self(batch[0]), batch[1])

        data = torch.utils.data.TensorDataset(*domain_data()["art"])
        loader = torch.utils.data.DataLoader(data, batch_size=8)
        self.refused(
            r"Found no domains in the batch, a list .*`split=", module=Pairs(), loader=loader
        )

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (torch.ones(2, requires_grad=True), r"must return a scalar .* got shape \[2\]"),
            (torch.tensor(1.0), "got one without a graph, on domain 'art'"),
            ("loss", "got str"),
        ],
    )
    def test_loss_that_is_none(self, value, message):
        self.refused(f"`domain_loss=` .*{message}", search(3, 4, domain_loss=lambda *_: value))

    def test_manual_optimization_without_a_domain_loss(self):
        module = Classifier()
        module.automatic_optimization = False
        self.refused("cannot call `Classifier.training_step`.*Give `domain_loss=`", module=module)

    @pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor")
    def test_dataloader_iter(self):
        class Iterates(Classifier):
            def training_step(self, dataloader_iter):
                raise AssertionError

        self.refused(r"`training_step\(dataloader_iter\)`", module=Iterates())

    @pytest.mark.parametrize("parameters", ["backbone", lambda name, param: False])
    def test_no_parameter_chosen(self, parameters):
        self.refused(
            "selects none of the module's 6 trainable parameters, such as 'featurizer.0.weight'",
            search(3, 4, parameters=parameters),
        )

    def test_complex_parameters(self):
        module = Classifier()
        module.featurizer.register_parameter("phase", nn.Parameter(torch.zeros(2) * 1j))
        self.refused("moves real parameters", module=module)

    def test_sharding_strategy(self):
        from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

        class DeepSpeedStrategy(DDPStrategy):
            pass

        for strategy in (FSDPStrategy, DeepSpeedStrategy):
            fit = trainer()
            fit.strategy.__class__ = strategy
            with pytest.raises(MisconfigurationException, match=f"DDP, got {strategy.__name__}"):
                search().setup(fit, Classifier(), "fit")

    def test_other_stages_are_none_of_its_business(self):
        module = Classifier()
        module.automatic_optimization = False
        search().setup(trainer(), module, "test")

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_in_the_middle_of_a_search(self, error):
        calls = []

        def fails(module, part):
            calls.append(1)
            if len(calls) == 40:
                raise error("in the middle")
            return nn.functional.cross_entropy(module(part[0]), part[1])

        module = Classifier()
        gga = search(2, 5, proposal=Ball(0.01), num_candidates=1000, domain_loss=fails)
        before = {}

        class Frame(Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                before.update({k: v.clone() for k, v in pl_module.state_dict().items()})
                before["calls"] = pl_module.calls

        with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
            run(Frame(), gga, module=module)
        after = dict(module.state_dict())
        moved = [(after[name] - before[name]).abs().max() for name in after]
        assert 0 < max(moved) <= 0.01 * 1.0001  # at the best accepted point so far
        buffers = {name for name, _ in module.named_buffers()}
        assert all(torch.equal(after[name], before[name]) for name in buffers)
        assert module.calls == before["calls"]
        assert "log" not in vars(module)


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"start_step": -1}, "`start_step` must be an integer of at least 0, got -1"),
            ({"start_step": 1.5}, "`start_step` must be an integer of at least 0, got 1.5"),
            ({"end_step": 100}, r"`end_step` must be greater than `start_step` \(100\), got 100"),
            ({"num_candidates": 0}, "`num_candidates` must be an integer of at least 1, got 0"),
            ({"every_n_steps": 0}, "`every_n_steps` must be an integer of at least 1, got 0"),
            ({"objective": "max"}, "`objective` must be 'min' or 'mean', got 'max'"),
            ({"radius_schedule": "cosine"}, "`radius_schedule` must be .* got 'cosine'"),
            ({"proposal": 1e-5}, r"`proposal` must be a Proposal, such as Walk\(1e-5\), got 1e-05"),
            ({"acceptance": "greedy"}, r"`acceptance` must be .* Greedy\(0.1\), got 'greedy'"),
            ({"parameters": "feat("}, r"`parameters` must be a regular expression .* 'feat\('"),
            ({"parameters": 3}, "`parameters` must be a regular expression .* got 3"),
            ({"domain_loss": "ce"}, "`domain_loss` must be a callable .* got 'ce'"),
            (
                {"proposal": Guided(1e-3), "fixed_dropout": False},
                "`fixed_dropout` must be True with a Guided proposal, .* got False",
            ),
            ({"patience": 0}, "`patience` must be an integer of at least 1, got 0"),
            (
                {"control": "reverse"},
                "`control` must be 'scramble' or 'shuffle_domains' or None, got 'reverse'",
            ),
            ({"split": 1.0}, "`split` must be a key or index .* got 1.0"),
        ],
    )
    def test_are_refused_at_once(self, settings, message):
        with pytest.raises(ValueError, match=message):
            GradientGuidedAnnealing(**settings)

    def test_defaults_are_the_papers(self):
        gga = GradientGuidedAnnealing()
        assert (gga.start_step, gga.end_step, gga.num_candidates) == (100, 201, 250)
        assert gga.proposal == Walk(1e-5)
        assert gga.acceptance == Greedy(0.1, "best")
        assert [gga.should_search(step) for step in (99, 100, 200, 201)] == [0, 1, 1, 0]
