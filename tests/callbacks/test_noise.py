import math

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from gga_lightning import GradientGuidedNoise
from gga_lightning.alignment.gradients import conflict_summary
from gga_lightning.callbacks import noise
from tests.helpers import Classifier, combined_loader, same, step_start, trainer


class Gradients(Callback):
    """Keeps the gradients as a callback at its place in the list sees them."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append({name: p.grad.clone() for name, p in pl_module.named_parameters()})


def noises(gga_l, module=None, **settings):
    """The noise added at each step, by parameter, and the trainer."""
    before, after = Gradients(), Gradients()
    fit = trainer(before, gga_l, after, **settings)
    fit.fit(module or Classifier(), combined_loader())
    pairs = zip(before.seen, after.seen, strict=True)
    return [{name: b[name] - a[name] for name in a} for a, b in pairs], fit


def flat(noise):
    return torch.cat([value.flatten() for value in noise.values()])


class Wide(Classifier):
    """Enough parameters to measure a distribution."""

    def __init__(self):
        super().__init__()
        self.featurizer = nn.Sequential(nn.Linear(8, 2000), nn.ReLU(), nn.Linear(2000, 16))


class TestNoise:
    def test_scale_is_gamma_times_one_minus_the_mean_cosine(self):
        gga_l, alphas = GradientGuidedNoise(gamma=0.5), []

        class Expected(Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                with gga_l._open(step_start(trainer, pl_module, batch)) as opened:
                    mean = conflict_summary(opened.evaluate().cosines).mean
                alphas.append(0.5 * (1 - mean))
                assert trainer.callback_metrics["gga_l/alpha"].item() == pytest.approx(alphas[-1])
                assert trainer.callback_metrics["gga_l/mean_cosine"].item() == pytest.approx(mean)

        before, after = Gradients(), Gradients()
        fit = trainer(before, gga_l, Expected(), after, max_steps=3)
        fit.fit(Wide(), combined_loader())
        for a, b, alpha in zip(before.seen, after.seen, alphas, strict=True):
            noise = flat(b) - flat(a)
            assert noise.std().item() == pytest.approx(alpha, rel=0.02)
            assert abs(noise.mean().item()) < 0.02 * alpha

    @pytest.mark.parametrize(
        ("modulation", "factor"), [("constant", lambda m: 1.0), ("agreement", lambda m: 1.0 + m)]
    )
    def test_controls(self, modulation, factor):
        gga_l = GradientGuidedNoise(gamma=0.5, modulation=modulation)
        found, fit = noises(gga_l, Wide(), max_steps=1)
        mean = fit.callback_metrics["gga_l/mean_cosine"].item()
        assert flat(found[0]).std().item() == pytest.approx(0.5 * factor(mean), rel=0.02)

    def test_uniform_is_the_papers_text(self):
        gga_l = GradientGuidedNoise(gamma=0.5, distribution="uniform")
        found, fit = noises(gga_l, Wide(), max_steps=1)
        alpha = fit.callback_metrics["gga_l/alpha"].item()
        noise = flat(found[0])
        assert noise.min() > -1e-6
        assert noise.max() < alpha * 1.001
        assert noise.mean().item() == pytest.approx(alpha / 2, rel=0.02)

    def test_only_in_its_window(self):
        found, _ = noises(GradientGuidedNoise(gamma=0.1, start_step=2, end_step=4))
        assert [bool(flat(noise).any()) for noise in found] == [
            False,
            False,
            True,
            True,
            False,
            False,
        ]

    def test_only_on_chosen_parameters(self):
        found, _ = noises(GradientGuidedNoise(gamma=0.1, parameters="head"), max_steps=1)
        assert {name for name, noise in found[0].items() if noise.any()} == {
            "head.weight",
            "head.bias",
        }

    def test_by_default_on_all(self):
        found, _ = noises(GradientGuidedNoise(gamma=0.1), max_steps=1)
        assert all(noise.any() for noise in found[0].values())

    def test_once_a_step_under_accumulation(self):
        found, _ = noises(GradientGuidedNoise(gamma=0.1), accumulate_grad_batches=2, max_steps=2)
        assert len(found) == 2
        assert not torch.equal(flat(found[0]), flat(found[1]))

    def test_clipping_bounds_it(self):
        class Norms(Callback):
            def on_train_batch_end(self, trainer, pl_module, *_):
                norms.append(flat({n: p.grad for n, p in pl_module.named_parameters()}).norm())

        norms = []
        settings = {"gradient_clip_val": 0.1, "max_steps": 2}
        trainer(GradientGuidedNoise(gamma=10.0), Norms(), **settings).fit(
            Classifier(), combined_loader()
        )
        assert norms == pytest.approx([0.1, 0.1], rel=1e-3)

    def test_depends_on_the_seed_and_the_step_alone(self):
        found = []
        for seed, other in ((0, 1), (0, 2), (1, 1)):
            torch.manual_seed(0)
            module = Classifier()
            torch.manual_seed(other)
            module.featurizer[3] = nn.Identity()
            torch.manual_seed(other)
            found.append(flat(noises(GradientGuidedNoise(0.1, seed=seed), module)[0][3]))
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)
        assert not torch.allclose(found[0], found[2])

    def test_several_optimizers_get_their_own(self):
        class Two(Classifier):
            def __init__(self):
                super().__init__()
                self.automatic_optimization = False

            def training_step(self, batch, batch_idx):
                for optimizer in self.optimizers():
                    optimizer.zero_grad()
                    loss = sum(self.domain_loss(part) for part in batch.values())
                    self.manual_backward(loss)
                    optimizer.step()

            def domain_loss(self, part):
                return nn.functional.cross_entropy(self(part[0]), part[1])

            def configure_optimizers(self):
                return [
                    torch.optim.SGD(part.parameters(), lr=0.1)
                    for part in (self.featurizer, self.head)
                ]

        found, _ = noises(GradientGuidedNoise(gamma=0.1), Two(), max_steps=2)
        first, second = found
        assert {n.split(".")[0] for n, noise in first.items() if noise.any()} == {"featurizer"}
        assert {n.split(".")[0] for n, noise in second.items() if noise.any()} == {"head"}


def test_loss_scale_that_a_fused_optimizer_has_yet_to_undo():
    """In float16 the gradient is still scaled then, and so must be the noise."""
    fit, optimizer = trainer(), torch.optim.SGD(Classifier().parameters(), lr=0.1)
    assert noise._held_back_scale(fit, optimizer) == 1.0
    fit.precision_plugin.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    assert noise._held_back_scale(fit, optimizer) == 1.0
    optimizer._step_supports_amp_scaling = True
    assert noise._held_back_scale(fit, optimizer) == 64.0


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_resumed_run_equals_the_straight_one(tmp_path):
    def module():
        torch.manual_seed(0)
        made = Classifier()
        made.featurizer[3] = nn.Identity()
        return made

    def fit(made, epochs, **settings):
        saved = ModelCheckpoint(tmp_path, save_last=True)
        gga_l = GradientGuidedNoise(0.1)
        ran = trainer(gga_l, saved, max_steps=-1, max_epochs=epochs, enable_checkpointing=True)
        ran.fit(made, combined_loader(), **settings)
        return dict(made.state_dict())

    fit(module(), 1)
    first = torch.load(tmp_path / "last.ckpt", weights_only=True)
    torch.save(first, tmp_path / "first.ckpt")
    straight = fit(module(), 3)
    assert same(straight, fit(module(), 3, ckpt_path=tmp_path / "first.ckpt"))


class TestSkips:
    def test_gradient_that_is_not_finite(self):
        class Breaks(Classifier):
            def training_step(self, batch, batch_idx):
                loss = super().training_step(batch, batch_idx)
                return loss * math.nan if "art" in batch and len(batch) == 1 else loss

        with pytest.warns(UserWarning, match="not finite at step 0"):
            found, _ = noises(GradientGuidedNoise(0.1), Breaks())
        assert not any(flat(noise).any() for noise in found)

    def test_one_domain(self):
        gga_l = GradientGuidedNoise(0.1, split=lambda batch: {"art": batch})
        with pytest.warns(UserWarning, match="GradientGuidedNoise: a batch shows fewer than two"):
            found, _ = noises(gga_l)
        assert not any(flat(noise).any() for noise in found)

    def test_sparse_gradient_is_refused(self):
        class Sparse(Classifier):
            def __init__(self):
                super().__init__()
                self.table = nn.Embedding(5, 8, sparse=True)

            def training_step(self, batch, batch_idx):
                rows = self.table(torch.arange(2)).sum()
                return super().training_step(batch, batch_idx) + rows

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        with pytest.raises(MisconfigurationException, match="cannot add noise to sparse gradients"):
            noises(GradientGuidedNoise(0.1), Sparse())
        noises(GradientGuidedNoise(0.1, parameters="featurizer|head"), Sparse(), max_steps=1)


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"gamma": -1.0}, "`gamma` must be finite and not negative, got -1.0"),
            ({"gamma": math.inf}, "`gamma` must be finite and not negative, got inf"),
            ({"distribution": "cauchy"}, "`distribution` must be .* got 'cauchy'"),
            ({"modulation": "none"}, "`modulation` must be .* got 'none'"),
            ({"start_step": -1}, "`start_step` must be an integer of at least 0, got -1"),
            ({"end_step": 0}, r"`end_step` must be greater than `start_step` \(0\), got 0"),
        ],
    )
    def test_are_refused_at_once(self, settings, message):
        with pytest.raises(ValueError, match=message):
            GradientGuidedNoise(**settings)


def test_shuffled_domains():
    means = []
    for control in (None, "shuffle_domains"):
        gga_l, values = GradientGuidedNoise(gamma=0.0, control=control), []

        class Sees(Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx, values=values):
                values.append(trainer.callback_metrics["gga_l/mean_cosine"].item())

        trainer(gga_l, Sees()).fit(Wide(), combined_loader())
        means.append(sum(values) / len(values))
    assert means[1] > means[0] + 0.1  # domains that are none agree better
    with pytest.raises(ValueError, match="`control` must be 'shuffle_domains' or None"):
        GradientGuidedNoise(control="scramble")
