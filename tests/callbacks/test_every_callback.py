"""What holds for every callback that reads domain gradients."""

import copy
import pickle

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BaseFinetuning, ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from gga_lightning import (
    Ball,
    GradientAgreementVoting,
    GradientConflictMonitor,
    GradientGuidedAnnealing,
    GradientGuidedNoise,
    Guided,
    RandomState,
    Walk,
)
from tests.helpers import Classifier, Flat, combined_loader, copies, domain_data, same, trainer

KINDS = {
    "search": lambda **settings: GradientGuidedAnnealing(
        **{"start_step": 1, "end_step": 4, "proposal": Walk(0.02), "num_candidates": 6} | settings
    ),
    "voting": lambda **settings: GradientAgreementVoting(
        **{"start_step": 1, "end_step": 4} | settings
    ),
    "noise": lambda **settings: GradientGuidedNoise(
        1e-3, **{"start_step": 1, "end_step": 4} | settings
    ),
    "monitor": lambda **settings: GradientConflictMonitor(1, **settings),
}
every = pytest.mark.parametrize("kind", KINDS)
resumes = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:The dirpath has changed",
    "ignore:Be aware that when using `ckpt_path`",
)


def fit(*callbacks, module=None, loader=None, **settings):
    run = trainer(*callbacks, **settings)
    module = Classifier() if module is None else module
    run.fit(module, combined_loader() if loader is None else loader)
    return run


class Acts(Callback):
    """At which steps the callback acted, seen from what it logs."""

    def __init__(self, kind):
        names = {"search": "gga/gain", "voting": "voting/share", "noise": "gga_l/alpha"}
        self.name = names.get(kind, "conflict/min")
        self.steps = []

    def on_train_batch_end(self, trainer, *_):
        if self.name in trainer.callback_metrics:
            self.steps.append(trainer.global_step)
            del trainer.callback_metrics[self.name]


class Spy:
    """The steps that a callback reports, but for measurements of rounding errors."""

    def __init__(self, monkeypatch):
        from gga_lightning.callbacks._base import DomainGradientCallback

        self.steps = []
        report = DomainGradientCallback._report

        def note(callback, start, values):
            self.steps += [] if "gga/resolution" in values else [start.step]
            report(callback, start, values)

        monkeypatch.setattr(DomainGradientCallback, "_report", note)


class Gan(Classifier):
    """Two optimizers, stepped by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        inputs, targets = (torch.cat(parts) for parts in zip(*batch.values(), strict=True))
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(functional.cross_entropy(self(inputs), targets))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.Adam(net.parameters()) for net in (self.featurizer, self.head)]


def gan_loss(module, part):
    return functional.cross_entropy(module(part[0]), part[1])


class TestSteps:
    @every
    def test_are_counted_from_zero(self, kind, monkeypatch):
        spy = Spy(monkeypatch)
        fit(KINDS[kind]())
        assert spy.steps == ([0, 1, 2, 3, 4, 5] if kind == "monitor" else [1, 2, 3])

    @every
    def test_two_optimizers_in_one_batch_make_one_step(self, kind, monkeypatch):
        spy = Spy(monkeypatch)
        run = fit(KINDS[kind](domain_loss=gan_loss), module=Gan(), max_steps=12)
        assert run.global_step == 12  # Lightning counts both
        assert spy.steps == ([0, 1, 2, 3, 4, 5] if kind == "monitor" else [1, 2, 3])

    @every
    def test_accumulated_gradients_make_one_step(self, kind, monkeypatch):
        spy = Spy(monkeypatch)
        fit(KINDS[kind](), accumulate_grad_batches=2, max_steps=3)
        assert spy.steps == ([0, 1, 2] if kind == "monitor" else [1, 2])

    @every
    def test_a_second_fit_starts_at_zero(self, kind, monkeypatch):
        spy, callback = Spy(monkeypatch), KINDS[kind]()
        fit(callback)
        first = list(spy.steps)
        fit(callback)
        assert spy.steps == 2 * first

    @every
    def test_a_second_fit_that_ends_where_the_first_one_did(self, kind, monkeypatch):
        """The last step of one fit is not the first of the next."""
        spy, callback = (
            Spy(monkeypatch),
            KINDS[kind](**{} if kind == "monitor" else {"start_step": 0}),
        )
        for _ in range(2):
            fit(callback, max_steps=1)
        assert spy.steps == [0, 0]

    @every
    def test_a_longer_fit_of_the_same_trainer_counts_on(self, kind, monkeypatch):
        spy, callback, module = Spy(monkeypatch), KINDS[kind](), Classifier()
        run = trainer(callback, max_steps=2)
        run.fit(module, combined_loader())
        run.fit_loop.epoch_loop.max_steps = 6
        run.fit(module, combined_loader())
        assert spy.steps == ([0, 1, 2, 3, 4, 5] if kind == "monitor" else [1, 2, 3])

    @every
    @resumes
    def test_a_resumed_fit_counts_on(self, kind, monkeypatch, tmp_path):
        spy = Spy(monkeypatch)
        saved = {"enable_checkpointing": True, "max_steps": -1}
        module = {"module": Gan(), "loader": combined_loader(domain_data(size=16))}
        settings = {"domain_loss": gan_loss}
        save = ModelCheckpoint(tmp_path, save_last=True)
        fit(KINDS[kind](**settings), save, max_epochs=1, **module, **saved)
        run = trainer(KINDS[kind](**settings), max_epochs=3, **saved)
        run.fit(Gan(), module["loader"], ckpt_path=tmp_path / "last.ckpt", weights_only=True)
        assert spy.steps == ([0, 1, 2, 3, 4, 5] if kind == "monitor" else [1, 2, 3])

    @every
    @resumes
    def test_a_training_that_began_without_the_callback(self, kind, monkeypatch, tmp_path):
        spy = Spy(monkeypatch)
        saved = {"enable_checkpointing": True, "max_steps": -1}
        loader = combined_loader(domain_data(size=16))
        fit(
            ModelCheckpoint(tmp_path, save_last=True),
            module=Gan(),
            loader=loader,
            max_epochs=1,
            **saved,
        )
        run = trainer(KINDS[kind](domain_loss=gan_loss), max_epochs=2, **saved)
        run.fit(Gan(), loader, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
        assert spy.steps == [2, 3]

    @every
    def test_batches_without_a_step_are_not_counted(self, kind, monkeypatch):
        class Skips(Gan):
            def training_step(self, batch, batch_idx):
                if batch_idx % 2:
                    super().training_step(batch, batch_idx)

        spy = Spy(monkeypatch)
        fit(KINDS[kind](domain_loss=gan_loss), module=Skips(), max_steps=6)
        assert spy.steps == ([0, 1, 2] if kind == "monitor" else [1, 2])


class TestMessages:
    @pytest.mark.parametrize("kind", ["search", "voting"])
    def test_the_opening_line_says_where_losses_come_from(self, kind, caplog):
        class Method(Classifier):
            def domain_loss(self, part):
                return gan_loss(self, part)

        sources = {
            "`domain_loss=`": ({"domain_loss": gan_loss}, Classifier()),
            "`Method.domain_loss`": ({}, Method()),
            "`Classifier.training_step`": ({}, Classifier()),
        }
        for source, (settings, module) in sources.items():
            caplog.clear()
            fit(KINDS[kind](**settings), module=module)
            assert f"losses by {source})" in caplog.text

    @pytest.mark.filterwarnings("ignore:.*ends before the window")
    @pytest.mark.parametrize("kind", ["search", "voting"])
    def test_a_window_in_which_nothing_was_done_says_so(self, kind, caplog):
        fit(KINDS[kind](start_step=50, end_step=60))
        assert "on no step of its window (steps 50 to 59; training is at 6)" in caplog.text.replace(
            "searched no step", "searched on no step"
        )

    def test_a_schedule_that_never_searches_says_so(self, caplog):
        class Never(GradientGuidedAnnealing):
            def should_search(self, step):
                return False

        fit(Never(0, 3))
        assert "GGA: searched no step of its window" in caplog.text

    @pytest.mark.parametrize("objective", ["min", "mean"])
    def test_the_closing_lines_gain_is_the_mean_of_the_logged_gains(self, objective, caplog):
        gga = KINDS["search"](objective=objective, num_candidates=20)
        fit(gga)
        gain = sum(record.gain for record in gga.records) / 3
        assert gain > 0
        assert f"(gain {gain:+.5f}, mean over the steps)" in caplog.text


class TestCheckpoints:
    @every
    def test_keys_have_no_memory_address(self, kind):
        callback = KINDS[kind](parameters=lambda name, param: True)
        assert " at 0x" not in callback.state_key
        assert callback.state_key == KINDS[kind](parameters=lambda name, param: True).state_key

    @every
    def test_state_loads_as_weights_only(self, kind, tmp_path):
        settings = {"measure_transfer": True} if kind == "search" else {}
        callback = KINDS[kind](**settings)
        fit(callback)
        torch.save(callback.state_dict(), tmp_path / "state.pt")
        other = KINDS[kind](**settings)
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert same(other.state_dict(), callback.state_dict())


@every
@pytest.mark.parametrize("bar", [True, False])
def test_can_be_copied_and_pickled_after_a_fit(kind, bar):
    from lightning.pytorch.callbacks import RichProgressBar

    callback = KINDS[kind]()
    bars = [RichProgressBar()] if bar else []
    fit(callback, *bars, enable_progress_bar=bar)
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert same(twin.state_dict(), callback.state_dict())
        fit(twin)


class TestOrder:
    @resumes
    @every
    @pytest.mark.parametrize("first", [True, False])
    def test_of_random_state_does_not_matter_on_resume(self, kind, first, tmp_path):
        def callbacks():
            ours = KINDS[kind](**{} if kind == "monitor" else {"end_step": 20})
            return [RandomState(), ours] if first else [ours, RandomState()]

        settings = {"max_steps": -1, "loader": combined_loader(domain_data(size=16))}
        torch.manual_seed(0)
        whole = Classifier()
        fit(*callbacks(), module=whole, max_epochs=3, **settings)
        torch.manual_seed(0)
        save = ModelCheckpoint(tmp_path, save_last=True)
        part = Classifier()
        fit(*callbacks(), save, module=part, max_epochs=2, enable_checkpointing=True, **settings)
        torch.manual_seed(7)
        resumed, run = Classifier(), trainer(*callbacks(), max_epochs=3, max_steps=-1)
        path = tmp_path / "last.ckpt"
        run.fit(resumed, settings["loader"], ckpt_path=path, weights_only=True)
        assert same(dict(whole.state_dict()), dict(resumed.state_dict()))

    def test_the_monitor_reads_before_a_search_moves(self):
        found = []
        for first in (True, False):
            torch.manual_seed(0)
            monitor, gga = KINDS["monitor"](), KINDS["search"](start_step=0)
            fit(*([monitor, gga] if first else [gga, monitor]), max_steps=3)
            found.append([record.cosines for record in monitor.records])
            assert sum(record.accepted for record in gga.records) > 0
        assert same(*found)
        assert monitor.records[1].cosines[0, 1] != 1

    def test_other_callbacks_keep_theirs(self):
        class Other(Callback):
            def __init__(self, name):
                self.name = name

        others = [Other(name) for name in "abc"]
        run = fit(
            others[0], KINDS["search"](), others[1], RandomState(), others[2], KINDS["monitor"]()
        )
        kinds = [type(callback).__name__ for callback in run.callbacks]
        assert kinds[:2] == ["RandomState", "GradientConflictMonitor"]
        assert [c.name for c in run.callbacks if isinstance(c, Other)] == ["a", "b", "c"]


def sized(**sizes):
    """Batches of as many samples of each domain as said, in turn."""
    data = domain_data(tuple(sizes), size=64)
    batches = []
    for index in range(6):
        batch = {}
        for name, (inputs, targets) in data.items():
            rows = sizes[name][index % len(sizes[name])]
            batch[name] = (inputs[8 * index :][:rows], targets[8 * index :][:rows])
        batches.append(batch)
    return DataLoader(batches, batch_size=None)


class TestOddBatches:
    @every
    def test_a_single_sample_and_batchnorm(self, kind, monkeypatch):
        """The domain is left out where it has one sample, and the others are evaluated."""
        spy = Spy(monkeypatch)
        loader = sized(a=[8], b=[8], c=[8, 8, 1])
        with pytest.warns(
            UserWarning, match="'c' has a single sample in a batch.*left out"
        ) as caught:
            callback = KINDS[kind]()
            fit(callback, loader=loader)
        assert sum("single sample" in str(warning.message) for warning in caught) == 1
        assert spy.steps == ([0, 1, 2, 3, 4, 5] if kind == "monitor" else [1, 2, 3])
        if kind == "monitor":
            assert [len(record.domains) for record in callback.records] == [3, 3, 2, 3, 3, 2]

    @every
    def test_a_single_sample_without_batchnorm_counts(self, kind):
        callback = KINDS[kind]()
        fit(callback, module=Flat(), loader=sized(a=[8], b=[1]))
        if kind == "monitor":
            assert all(len(record.domains) == 2 for record in callback.records)

    @every
    def test_the_first_batch_of_all_has_single_samples(self, kind):
        with pytest.warns(UserWarning, match="fewer than two domains|single sample"):
            fit(KINDS[kind](), loader=sized(a=[8], b=[1, 8, 8]))

    @every
    def test_a_batch_of_one_domain_does_not_use_up_the_check(self, kind):
        class Fails(Classifier):
            def training_step(self, batch, batch_idx):
                if len(batch) == 1 and self.global_step > 0:
                    raise KeyError("b")
                return super().training_step(batch, batch_idx)

        batches = list(sized(a=[8], b=[8]))
        batches[0] = {"a": batches[0]["a"]}
        callback = KINDS[kind](**{} if kind == "monitor" else {"start_step": 5, "end_step": 6})
        with (
            pytest.warns(UserWarning, match="fewer than two domains"),
            pytest.raises(MisconfigurationException, match="failed on domain .* alone.*KeyError"),
        ):
            fit(callback, module=Fails(), loader=DataLoader(batches, batch_size=None))

    @every
    def test_loaders_that_end_early(self, kind, monkeypatch):
        """CombinedLoader yields None for them; training continues with those that are there."""

        class Skips(Classifier):
            def training_step(self, batch, batch_idx):
                there = {name: part for name, part in batch.items() if part is not None}
                return super().training_step(there, batch_idx)

        spy = Spy(monkeypatch)
        data = domain_data(size=48)
        loaders = {
            name: DataLoader(TensorDataset(x[:size], y[:size]), batch_size=8)
            for (name, (x, y)), size in zip(data.items(), (48, 48, 16), strict=True)
        }
        fit(KINDS[kind](), module=Skips(), loader=CombinedLoader(loaders, "max_size"))
        assert spy.steps == ([0, 1, 2, 3, 4, 5] if kind == "monitor" else [1, 2, 3])


class Unfreezes(BaseFinetuning):
    """The featurizer is frozen at first."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.featurizer, train_bn=False)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == self.at:
            self.unfreeze_and_add_param_group(pl_module.featurizer, optimizer, 0.01)


class Tunable(Flat):
    def configure_optimizers(self):
        return torch.optim.Adam(filter(lambda p: p.requires_grad, self.parameters()), lr=0.05)


@every
def test_parameters_unfrozen_inside_a_window(kind, monkeypatch):
    spy = Spy(monkeypatch)
    settings = {"measure_transfer": True, "parameters": ""} if kind == "search" else {}
    window = {} if kind == "monitor" else {"start_step": 0, "end_step": 6}
    callback, module = KINDS[kind](**window, **settings), Tunable()
    before = copies(module.featurizer)
    loader = combined_loader(domain_data(size=16))
    fit(callback, Unfreezes(1), module=module, loader=loader, max_steps=-1, max_epochs=3)
    assert not same(before, copies(module.featurizer))
    assert set(spy.steps) >= {0, 1, 2, 3, 4, 5}
    if kind == "search":
        assert sum(record.transfer is not None for record in callback.records) == 5


class TestTransfer:
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_needs_another_batch(self, shuffle, caplog):
        """With one batch an epoch the next batch holds the same samples."""
        inputs = torch.randn(24, 8)
        data = TensorDataset(inputs, torch.arange(24) % 3, torch.arange(24) % 2)

        class Triples(Flat):
            def training_step(self, batch, batch_idx):
                return functional.cross_entropy(self(batch[0]), batch[1])

        gga = KINDS["search"](proposal=Ball(0.2), num_candidates=30, measure_transfer=True)
        loader = DataLoader(data, batch_size=24, shuffle=shuffle)
        fit(gga, module=Triples(), loader=loader)
        assert sum(record.accepted > 0 for record in gga.records) > 1
        assert "the next batch held the same samples" in caplog.text
        assert "not luck" not in caplog.text


class TestGuidedWithoutSlope:
    @pytest.mark.parametrize("objective", ["min", "mean"])
    @pytest.mark.parametrize("relative", [True, False])
    @pytest.mark.parametrize("orthogonal", [True, False])
    def test_a_zero_gradient(self, objective, relative, orthogonal):
        """One domain's loss does not depend on the parameters."""

        def loss(module, part):
            plain = gan_loss(module, part)
            return plain * 0 if part[0].mean() > 0.5 else plain

        gga = KINDS["search"](
            proposal=Guided(0.01, relative=relative, orthogonal=orthogonal),
            objective=objective,
            domain_loss=loss,
        )
        module = Flat()
        fit(gga, module=module)
        assert len(gga.records) == 3
        assert all(torch.isfinite(param).all() for param in module.parameters())

    def test_all_gradients_are_zero(self):
        gga = KINDS["search"](
            proposal=Guided(0.01), domain_loss=lambda module, part: gan_loss(module, part) * 0
        )
        fit(gga, module=Flat())
        assert [record.candidates for record in gga.records] == [0, 0, 0]


def test_lengths_are_no_domains():
    data = TensorDataset(torch.randn(24, 8), torch.arange(24) % 3, torch.arange(24) % 6 + 3)
    with pytest.raises(MisconfigurationException, match="so it is not taken for the domain label"):
        fit(KINDS["monitor"](), loader=DataLoader(data, batch_size=6))


def test_lazy_parameters_are_refused():
    module = Classifier()
    module.extra = nn.LazyLinear(3)
    with pytest.raises(MisconfigurationException, match="`extra.weight` gets its shape from"):
        fit(KINDS["monitor"](), module=module)
