import math

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from gga_lightning import GradientAgreementVoting
from gga_lightning.algorithms import ERM, AgrSum
from gga_lightning.backbones import MLP
from tests.helpers import DOMAINS, Classifier, combined_loader, copies, domain_data, same, trainer

OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.5),
    "rmsprop": lambda params: torch.optim.RMSprop(params, lr=0.01, weight_decay=0.1),
}


class Model(Classifier):
    """Deterministic, so that steps can be written down again."""

    def __init__(self, optimizer="adam"):
        super().__init__()
        torch.manual_seed(0)
        self.featurizer = nn.Sequential(nn.Linear(8, 16), nn.Tanh())
        self.head = nn.Linear(16, 3)
        self.make = OPTIMIZERS[optimizer]
        self.double()

    def forward(self, inputs):
        return super().forward(inputs.double())

    def configure_optimizers(self):
        return self.make(self.parameters())


def run(callback, module=None, **settings):
    module = Model() if module is None else module
    callbacks = [] if callback is None else [callback]
    fit = trainer(*callbacks, **settings)
    fit.fit(module, combined_loader())
    return module, fit


def batches():
    data = domain_data()
    return [
        {name: (x[i : i + 8], y[i : i + 8]) for name, (x, y) in data.items()}
        for i in range(0, 48, 8)
    ]


def loader(*given):
    return DataLoader(given, batch_size=None)


def by_hand(optimizer, vote, steps, window, decay=0.9, power=2.0):
    """The method written down literally, with uncorrected averages from zero."""
    module = Model(optimizer)
    params, opt = list(module.parameters()), module.configure_optimizers()
    averages = {name: [torch.zeros_like(p) for p in params] for name in DOMAINS}
    for step, batch in enumerate(batches()[:steps]):
        for name, (x, y) in batch.items():
            gradient = torch.autograd.grad(functional.cross_entropy(module(x), y), params)
            averages[name] = [
                decay * a + (1 - decay) * g for a, g in zip(averages[name], gradient, strict=True)
            ]
        before = copies(module)
        x = torch.cat([x for x, _ in batch.values()])
        y = torch.cat([y for _, y in batch.values()])
        opt.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        opt.step()
        if step not in window:
            continue
        for i, (param, old) in enumerate(zip(params, before, strict=True)):
            own = torch.stack([averages[name][i] for name in DOMAINS])
            if vote == "sign":
                share = (own.sign().sum(0).abs() == 3).double()
            else:
                share = (own.mean(0).abs() / own.pow(2).mean(0).sqrt()) ** power
            param.data = old + share * (param.data - old)
    return module


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("vote", ["sign", "snr"])
def test_as_written_down_literally(optimizer, vote):
    voting = GradientAgreementVoting(0, 4, vote=vote, power=1.5)
    module, _ = run(voting, Model(optimizer))
    expected = by_hand(optimizer, vote, steps=6, window=range(4), power=1.5)
    for ours, theirs in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_gradient_descent_with_the_votes_of_one_batch_is_agr_sum():
    def trained(kind, lr, *callbacks):
        torch.manual_seed(0)
        descent = lambda params: torch.optim.SGD(params, lr=lr)  # noqa: E731
        module = kind(MLP((8,)), 3, optimizer=descent).double()
        data = {name: (x.double(), y) for name, (x, y) in domain_data().items()}
        trainer(*callbacks, limit_val_batches=0).fit(module, combined_loader(data), [])
        return module

    voting = GradientAgreementVoting(end_step=6, decay=0.0)
    ours, theirs = trained(ERM, 0.3, voting), trained(AgrSum, 0.1)
    assert all(0.1 < record.share < 0.9 for record in voting.records)
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


class Moves(Callback):
    """Keeps what each step changed, by parameter."""

    def __init__(self):
        self.seen, self.before = [], None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = self.before or copies(pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step > len(self.seen):
            after = copies(pl_module)
            self.seen.append([a - b for a, b in zip(after, self.before, strict=True)])
            self.before = after


def test_coordinates_without_agreement_stay_bit_for_bit_and_the_share_is_logged():
    voting, moves = GradientAgreementVoting(0, 3), Moves()
    fit = trainer(voting, moves, max_steps=5)
    fit.fit(Model("adamw"), combined_loader())
    assert [record.step for record in voting.records] == [0, 1, 2]
    for record, move in zip(voting.records, moves.seen, strict=False):
        moved = torch.cat([part.flatten() for part in move]) != 0
        assert record.share == pytest.approx(moved.double().mean().item())
        assert 0.1 < record.share < 0.9  # decoupled weight decay moves no other coordinate
    for move in moves.seen[3:]:
        assert all((part != 0).all() for part in move)
    assert fit.callback_metrics["voting/share"].item() == pytest.approx(voting.records[-1].share)


@pytest.mark.filterwarnings("ignore:.*ends before the window")
def test_outside_the_window_it_is_not_there():
    plain, _ = run(None)
    for window in ((6, 9), (50, 60)):
        voting = GradientAgreementVoting(*window)
        module, fit = run(voting)
        assert same(plain.state_dict(), module.state_dict())
        assert voting.records == []
        assert not fit.optimizers[0]._optimizer_step_pre_hooks


def test_a_full_share_changes_no_bit():
    """Where all domains are the same data they agree everywhere, so every update stays."""
    inputs, targets = domain_data()["art"]
    data = dict.fromkeys(DOMAINS, (inputs, targets))
    states = []
    for callbacks in ([], [GradientAgreementVoting(0, 4)]):
        module = Model()
        trainer(*callbacks).fit(module, combined_loader(data))
        states.append(module.state_dict())
    assert same(*states)


def test_hooks_and_averages_are_gone_after_the_window():
    voting = GradientAgreementVoting(0, 3)
    _, fit = run(voting)
    assert not fit.optimizers[0]._optimizer_step_pre_hooks
    assert not fit.optimizers[0]._optimizer_step_post_hooks
    assert voting._averages == {}


def test_hooks_are_gone_after_an_error():
    class Fails(Model):
        def training_step(self, batch, batch_idx):
            if self.trainer.global_step == 2 and len(batch) == 3:
                raise ZeroDivisionError
            return super().training_step(batch, batch_idx)

    module, fit = Fails(), trainer(GradientAgreementVoting(0, 5))
    with pytest.raises(ZeroDivisionError):
        fit.fit(module, combined_loader())
    assert not fit.optimizers[0]._optimizer_step_pre_hooks


def test_one_vote_a_step_under_accumulation():
    voting = GradientAgreementVoting(0, 10)
    run(voting, accumulate_grad_batches=3, max_steps=2)
    assert [record.step for record in voting.records] == [0, 1]


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_clip_val": 0.01},
        {"accumulate_grad_batches": 2, "max_steps": 3},
        {"precision": "bf16-mixed"},
    ],
)
def test_votes_are_kept_under(settings):
    class Single(Classifier):
        def __init__(self):
            super().__init__()
            self.featurizer = nn.Sequential(nn.Linear(8, 16), nn.Tanh())

    voting, moves = GradientAgreementVoting(0, 100), Moves()
    fit = trainer(voting, moves, **settings)
    fit.fit(Single(), combined_loader())
    assert len(moves.seen) == len(voting.records) > 1
    for record, move in zip(voting.records, moves.seen, strict=True):
        moved = torch.cat([part.flatten() for part in move]) != 0
        assert moved.double().mean().item() <= record.share < 0.9


def test_clipping_changes_no_vote():
    votes = []
    for clip in (None, 1e-3):
        voting = GradientAgreementVoting(0, 1)
        run(voting, max_steps=1, gradient_clip_val=clip)
        votes.append(voting.records)
    assert votes[0] == votes[1]


def test_chosen_parameters_alone_are_voted_on():
    moves = Moves()
    fit = trainer(GradientAgreementVoting(0, 6, parameters="head"), moves)
    fit.fit(Model(), combined_loader())
    names = [name for name, _ in Model().named_parameters()]
    for move in moves.seen:
        for name, part in zip(names, move, strict=True):
            assert bool((part != 0).all()) == name.startswith("featurizer")


def test_parameters_that_no_domain_reaches_are_left_alone():
    class Auxiliary(Model):
        def __init__(self):
            super().__init__()
            self.extra = nn.Parameter(torch.ones(5, dtype=torch.float64))

        def domain_loss(self, part):
            return functional.cross_entropy(self(part[0]), part[1])

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) + self.extra.pow(2).sum()

    voting = GradientAgreementVoting(0, 6)
    module, _ = run(voting, Auxiliary())
    assert (module.extra != 1.0).all()
    assert voting.records[0].share < 0.9


def test_a_missing_domain_votes_with_its_average():
    data = domain_data()
    whole = {name: (x[:8], y[:8]) for name, (x, y) in data.items()}
    without = {name: whole[name] for name in DOMAINS[:2]}
    voting = GradientAgreementVoting(0, 2)
    trainer(voting, max_steps=2).fit(Model(), loader(whole, without))
    pair = GradientAgreementVoting(0, 2)
    trainer(pair, max_steps=2).fit(Model(), loader(without, without))
    assert voting.records[1].share < pair.records[1].share


def test_a_batch_of_one_domain_is_trained_on_as_usual():
    data = domain_data()
    moves = Moves()
    with pytest.warns(UserWarning, match="GradientAgreementVoting: a batch shows fewer than two"):
        trainer(GradientAgreementVoting(0, 3), moves, max_steps=3).fit(
            Model(), loader(*[{"art": data["art"]}] * 3)
        )
    assert all((part != 0).all() for move in moves.seen for part in move)


def test_a_gradient_that_is_not_finite_is_kept_out_of_the_averages():
    data = domain_data()
    whole = {name: (x[:8], y[:8]) for name, (x, y) in data.items()}
    spoilt = {**whole, "art": (whole["art"][0] * math.nan, whole["art"][1])}

    class Guarded(Model):
        def training_step(self, batch, batch_idx):  # as with a loss scaler, which skips such steps
            loss = super().training_step(batch, batch_idx)
            return loss.nan_to_num() if len(batch) > 1 else loss

    voting = GradientAgreementVoting(0, 3)
    with pytest.warns(UserWarning, match="gradient is not finite at step 1; the averages"):
        trainer(voting, max_steps=3).fit(Guarded(), loader(whole, spoilt, whole))
    assert 0 < voting.records[2].share < 1


def test_shuffled_domains_agree_more():
    shares = []
    for control in (None, "shuffle_domains"):
        voting = GradientAgreementVoting(0, 6, control=control)
        run(voting)
        shares.append(sum(record.share for record in voting.records))
    assert shares[1] > shares[0]


def test_manual_optimization():
    class Manual(Model):
        automatic_optimization = False

        def domain_loss(self, part):
            return functional.cross_entropy(self(part[0]), part[1])

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    voting = GradientAgreementVoting(0, 4)
    module, _ = run(voting, Manual())
    automatic, _ = run(GradientAgreementVoting(0, 4))
    assert same(copies(module), copies(automatic))


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("vote", ["sign", "snr"])
def test_resume_in_the_window(tmp_path, vote):
    def voting():
        return GradientAgreementVoting(0, 15, vote=vote)

    straight, ours = voting(), voting()
    module, _ = run(straight, max_steps=-1, max_epochs=3)
    saved = ModelCheckpoint(tmp_path, save_last=True)
    settings = {"max_steps": -1, "enable_checkpointing": True}
    trainer(voting(), saved, max_epochs=1, **settings).fit(Model(), combined_loader())
    resumed = Model()
    fit = trainer(ours, ModelCheckpoint(tmp_path, save_last=True), max_epochs=3, **settings)
    fit.fit(resumed, combined_loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert same(module.state_dict(), resumed.state_dict())
    assert ours.records == straight.records
    assert len(ours.records) == 15


def test_lines_in_the_terminal(caplog):
    run(GradientAgreementVoting(1, 3))
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Voting")]
    assert lines[0] == (
        "Voting: steps 1 to 2 move where 3 domains (art, photo, sketch; by the batch's keys; "
        "losses by `Model.training_step`) agree."
    )
    assert lines[1].startswith("Voting: voted on 2 steps; ")
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start_step": -1}, "`start_step` must be an integer of at least 0, got -1"),
        ({"start_step": 5, "end_step": 5}, r"`end_step` must be greater than `start_step` \(5\)"),
        ({"decay": 1.0}, r"`decay` must be in \[0, 1\), got 1.0"),
        ({"decay": math.nan}, "`decay` must be in"),
        ({"vote": "majority"}, "`vote` must be 'sign' or 'snr', got 'majority'"),
        ({"power": 0.0}, "`power` must be positive, got 0.0"),
        ({"control": "scramble"}, "`control` must be 'shuffle_domains' or None, got 'scramble'"),
    ],
)
def test_arguments_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        GradientAgreementVoting(**settings)
