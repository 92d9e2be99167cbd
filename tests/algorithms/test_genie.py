import copy
import math
from functools import partial

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from gga_lightning.algorithms import ERM, GENIE, Fish
from gga_lightning.algorithms.genie import _generator
from gga_lightning.backbones import MLP
from gga_lightning.experiments.train import config_directory
from tests.helpers import combined_loader, same, trainer

B = 0.9


def coordinate(history):
    """One coordinate's mean, T and r, by weighted sums over all its gradients so far."""
    t = len(history)
    weights = [(1 - B) * B ** (t - 1 - i) for i in range(t)]
    total = sum(weights)
    mean = sum(w * g for w, g in zip(weights, history, strict=True)) / total
    square = sum(w * g**2 for w, g in zip(weights, history, strict=True)) / total
    rho = (1 - B) * (2 - total) / ((1 + B) * total)
    variance = (square - mean**2) / (1 - rho) if t > 1 else 0.0
    variance = variance if variance > 0 else 1e-8
    trust = math.tanh(min(1 / variance, 10))
    of_mean = rho * variance if rho * variance > 0 else 1e-8
    return mean, trust, 1 / (1 + of_mean / (mean**2 + 1e-8))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_six_steps_by_the_papers_formula(dropout, weight_decay):
    torch.manual_seed(0)
    start = torch.randn(5, dtype=torch.float64)
    gradients = 2 * torch.randn(6, 5, dtype=torch.float64)  # large, so that there is noise
    param = torch.nn.Parameter(start.clone())
    settings = {"moving_average": B, "dropout": dropout, "weight_decay": weight_decay}
    optimizer = GENIE([param], lr=0.1, seed=3, **settings)
    own, histories = start.tolist(), [[] for _ in range(5)]
    for step in range(6):
        param.grad = gradients[step].clone()
        optimizer.step()
        generator = _generator(torch.device("cpu"), 3, 0, step + 1)
        noise = torch.randn(5, dtype=torch.float64, generator=generator).tolist()
        mask = torch.empty(5, dtype=torch.float64).bernoulli_(1 - dropout, generator=generator)
        for index in range(5):
            gradient = gradients[step, index].item() + weight_decay * own[index]
            histories[index].append(gradient)
        parts = [coordinate(history) for history in histories]
        trusts = [trust for _, trust, _ in parts]
        q = sum(trust * abs(mean) * r for mean, trust, r in parts) / sum(trusts)
        for index, (mean, trust, r) in enumerate(parts):
            move = mean * trust * r + (1 - trust) * q * noise[index]
            own[index] -= 0.1 * mask[index].item() / (1 - dropout) * move
        torch.testing.assert_close(param.tolist(), own, rtol=0, atol=1e-12)
    assert min(trusts) < 0.9


def moved(optimizer, param, steps=3):
    for _ in range(steps):
        param.grad = torch.ones_like(param)
        optimizer.step()
    return param.detach().clone()


def test_what_else_moves_the_weights_is_kept():
    first, second = (torch.nn.Parameter(torch.zeros(50)) for _ in range(2))
    one, other = (GENIE([param]) for param in (first, second))
    moved(one, first), moved(other, second)
    second.data += 5
    torch.testing.assert_close(moved(other, second), moved(one, first) + 5)


def test_mask_and_noise_depend_on_seed_position_and_step_only():
    def run(seed, salt):
        params = [torch.nn.Parameter(torch.zeros(50)) for _ in range(2)]
        optimizer, steps = GENIE(params, seed=seed), []
        for _ in range(2):
            torch.manual_seed(salt)
            before = [param.detach().clone() for param in params]
            for param in params:
                param.grad = torch.ones_like(param)
            optimizer.step()
            steps += [param.detach() - old == 0 for param, old in zip(params, before, strict=True)]
        return steps

    masks = run(0, 1)
    assert same(masks, run(0, 2))
    assert not same(masks, run(1, 1))
    assert len({tuple(mask.tolist()) for mask in masks}) == 4


def test_the_position_also_counts_parameters_without_gradients():
    def run(*, first):
        params = [torch.nn.Parameter(torch.zeros(50)) for _ in range(2)]
        params[1].grad = torch.ones(50)
        params[0].grad = torch.ones(50) if first else None
        GENIE(params).step()
        return [param.detach() for param in params]

    assert same(run(first=True)[1], run(first=False)[1])
    assert not run(first=False)[0].any()


def test_a_closure_is_called_once_and_its_loss_is_returned():
    param, losses = torch.nn.Parameter(torch.ones(5)), []
    optimizer = GENIE([param])

    def closure():
        losses.append(param.square().sum())
        losses[-1].backward()
        return losses[-1]

    assert optimizer.step(closure) is losses[0]
    assert len(losses) == 1
    assert not torch.equal(param, torch.ones(5))


def test_resumes_from_a_saved_state():
    torch.manual_seed(0)
    straight = torch.nn.Linear(4, 3)
    optimizer = GENIE(straight.parameters())
    inputs = torch.randn(8, 4)

    def steps(model, optimizer, number):
        for _ in range(number):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()

    steps(straight, optimizer, 2)
    resumed, saved = copy.deepcopy(straight), copy.deepcopy(optimizer.state_dict())
    steps(straight, optimizer, 2)
    other = GENIE(resumed.parameters())
    other.load_state_dict(saved)
    steps(resumed, other, 2)
    assert same(dict(straight.state_dict()), dict(resumed.state_dict()))


def test_the_learning_rate_counts():
    param = torch.nn.Parameter(torch.zeros(5))
    optimizer = GENIE([param], lr=0.0)
    assert not moved(optimizer, param).any()
    optimizer.param_groups[0]["lr"] = 0.1
    assert moved(optimizer, param).any()


@pytest.mark.parametrize("kind", [ERM, Fish])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_in_a_trainer(kind, precision):
    module = kind(MLP((8,)), 3, optimizer=partial(GENIE, lr=0.1))
    fit = trainer(max_steps=6, limit_val_batches=0, precision=precision)
    start = module.classifier.weight.detach().clone()
    fit.fit(module, combined_loader(), [])
    assert module.classifier.weight.isfinite().all()
    assert not torch.equal(start, module.classifier.weight)


@pytest.mark.parametrize("algorithm", ["erm", "dann"])
def test_the_configuration(algorithm):
    def optimizer(*overrides):
        with initialize_config_dir(config_directory(), version_base="1.3"):
            chosen = [f"algorithm={algorithm}", "optimizer=genie", "hparams=domainbed_small"]
            return compose("train", [*chosen, "seed=4", *overrides]).algorithm.optimizer

    found = instantiate(optimizer())([torch.nn.Parameter(torch.zeros(2))])
    assert found.defaults == {
        "lr": 0.015,
        "moving_average": 0.95,
        "dropout": 0.4,
        "weight_decay": 0.0,
        "seed": 4,
    }
    assert 1e-3 <= optimizer("hparams_seed=3").lr <= 1e-1


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"lr": -1}, "not be negative, got -1"),
        ({"weight_decay": -1}, "not be negative, got -1"),
        ({"moving_average": 1.0}, r"be in \[0, 1\), got 1"),
        ({"dropout": 1.0}, r"be in \[0, 1\), got 1"),
    ],
)
def test_wrong_settings(settings, rule):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must {rule}"):
        GENIE([torch.nn.Parameter(torch.zeros(2))], **settings)
