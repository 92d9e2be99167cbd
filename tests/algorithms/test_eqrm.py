import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import EQRM
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import combined_loader, trainer

NORMAL = torch.distributions.Normal(0.0, 1.0)


def width_of(risks):
    mean = sum(risks) / len(risks)
    deviation = (sum((r - mean) ** 2 for r in risks) / (len(risks) - 1)) ** 0.5
    return 1.06 * deviation * len(risks) ** -0.2


def cdf(value, risks):
    return sum(NORMAL.cdf((value - r) / width_of(risks)) for r in risks) / len(risks)


def solved(risks, level):
    low, high = torch.tensor(-50.0).double(), torch.tensor(50.0).double()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle, risks) < level else (low, middle)
    return middle


class Quantile(torch.autograd.Function):
    """By the implicit function theorem: dq/dr = -(dF/dr) / (dF/dq)."""

    @staticmethod
    def forward(ctx, risks, level):
        value = solved(risks.detach(), level)
        with torch.enable_grad():
            q, r = value.clone().requires_grad_(), risks.detach().requires_grad_()
            of_q, of_r = torch.autograd.grad(cdf(q, r), (q, r))
        ctx.slopes = -of_r / of_q
        return value

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.slopes, None


@pytest.mark.parametrize("burnin_steps", [0, 1])
@pytest.mark.parametrize("quantile", [0.75, 0.95])
def test_three_updates_by_the_papers_formula(quantile, burnin_steps):
    def objective(featurizer, classifier, parts, step):
        risks = torch.stack([cross_entropy(classifier(featurizer(x)), y) for x, y in parts])
        return Quantile.apply(risks, quantile) if step >= burnin_steps else risks.mean()

    check(partial(EQRM, quantile=quantile, burnin_steps=burnin_steps), objective)


def test_the_papers_code():
    """Bisection differentiated through: only the ends of the interval have a gradient."""

    def objective(featurizer, classifier, parts, step):
        risks = torch.stack([cross_entropy(classifier(featurizer(x)), y) for x, y in parts])
        reach = width_of(list(risks)) * NORMAL.icdf(torch.tensor(0.75).double())
        ends = [risks.min() + reach, risks.max() + reach]
        for _ in range(60):
            middle = (ends[0] + ends[1]) / 2
            ends[int(cdf(middle, list(risks)) > 0.75)] = middle
        return middle

    check(partial(EQRM, burnin_steps=0, gradient="endpoints"), objective)


def test_equal_risks():
    risks = torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True)
    value = EQRM(MLP((8,)), 3)._quantile(risks)
    value.backward()
    assert value.item() == pytest.approx(0.5, abs=1e-5)
    assert risks.grad.sum().item() == pytest.approx(1.0)


def test_every_domain_pulls_the_quantile_up():
    risks = torch.tensor([0.1, 0.5, 0.9, 2.0], dtype=torch.float64, requires_grad=True)
    EQRM(MLP((8,)), 3)._quantile(risks).backward()
    assert risks.grad.sum().item() == pytest.approx(1.0)  # all higher by one: one higher
    assert risks.grad[2] > 0


def test_rate_and_state_change_after_the_burn_in():
    seen = []

    class Sees(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            (optimizer,) = trainer.optimizers
            steps = {int(state["step"]) for state in optimizer.state.values()}
            seen.append((optimizer.param_groups[0]["lr"], steps))

    module = EQRM(MLP((8,)), 3, burnin_steps=2, lr_after=1e-6)
    trainer(Sees(), max_steps=4, limit_val_batches=0).fit(module, combined_loader(), [])
    assert seen == [(1e-3, {1}), (1e-3, {2}), (1e-6, {1}), (1e-6, {2})]


@pytest.mark.parametrize(
    "settings", [{"quantile": 1.0}, {"quantile": math.nan}, {"gradient": "none"}]
)
def test_wrong_settings(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` must be .* got {settings[name]!r}"):
        EQRM(MLP((8,)), 3, **settings)
