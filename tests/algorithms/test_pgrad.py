from functools import partial

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import PGrad
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check_update, descend, gradients, parameters
from tests.helpers import combined_loader, domain_batch, same, trainer


def flat(networks):
    return torch.cat([param.detach().flatten() for param in parameters(networks)])


def put(networks, values):
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(values, parameters(networks))


@pytest.mark.parametrize(("rounds", "directions"), [(3, 4), (2, 1), (3, 20)])
def test_three_updates_by_a_singular_value_decomposition(rounds, directions):
    def update(featurizer, classifier, parts, step):
        networks = featurizer, classifier
        points = [flat(networks)]
        for turn in range(rounds):
            for index in torch.randperm(3).tolist():
                x, y = parts[index]
                rows = slice(8 * turn // rounds, 8 * (turn + 1) // rounds)
                loss = cross_entropy(classifier(featurizer(x[rows])), y[rows])
                descend(networks, gradients(loss, networks))
                points.append(flat(networks))
        table = torch.stack(points)
        _, sizes, rows = torch.linalg.svd(table - table.mean(0), full_matrices=False)
        values = sizes**2 / (table.shape[1] - 1)
        delta = points[0] - points[-1]
        total = torch.zeros_like(delta)
        used = values[:directions]
        for value, row in zip(used[:-1] if directions == 20 else used, rows, strict=False):
            total += value / used.norm() * (1 if row @ delta > 0 else -1) * row
        put(networks, points[0] - 0.3 * delta.norm() * total)

    # the last of all 3 * 3 + 1 directions has eigenvalue 0
    check_update(partial(PGrad, meta_lr=0.3, rounds=rounds, num_directions=directions), update)


@pytest.mark.parametrize("directions", [1, 4])
def test_points_on_a_line_make_a_part_of_the_way(directions):
    module = PGrad(MLP((8,)), 3, num_directions=directions)
    way = torch.randn(50, dtype=torch.float64)
    points = torch.stack([share * way for share in (0.0, 0.1, 0.5, 0.2, 1.0)])
    shares = module._shares([points[:, :20], points[:, 20:].view(5, 5, 6)])
    torch.testing.assert_close(shares @ points, -way)


def test_mixed_precision_does_not_round_the_points():
    module = PGrad(MLP((8,)), 3, optimizer=partial(torch.optim.SGD, lr=1.0), meta_lr=1.0)
    module.gradient = lambda loss: [torch.full_like(param, 1 + 2**-12) for param in module.trained]
    start = module.classifier.bias.detach().clone()
    fit = trainer(max_steps=1, limit_val_batches=0, precision="bf16-mixed")
    fit.fit(module, combined_loader(), [])
    torch.testing.assert_close(start - module.classifier.bias, torch.full((3,), 9 + 9 * 2**-12))


def test_no_movement_is_no_step():
    module = PGrad(MLP((8,)), 3)
    assert not module._shares([torch.zeros(4, 7)]).any()


def test_processes_walk_in_the_order_of_the_first(monkeypatch):
    module, parts = PGrad(MLP((8,)), 3, rounds=1), list(domain_batch().values())
    monkeypatch.setattr(module, "from_first_process", lambda drawn: torch.tensor([2, 2, 0]))
    assert same(module._walk(parts), [parts[2], parts[2], parts[0]])


def test_the_walk_counts_once():
    fit = trainer(max_steps=2, limit_val_batches=0)
    fit.fit(PGrad(MLP((8,)), 3), combined_loader(), [])
    assert fit.global_step == 2
    assert {int(state["step"]) for state in fit.optimizers[0].state.values()} == {18}


@pytest.mark.parametrize("batch", [domain_batch(size=2), {"art": domain_batch()["art"]}])
def test_needs_two_domains_of_three_samples(batch):
    with pytest.raises(MisconfigurationException, match="PGrad .* 2 domains with at least 3 samp"):
        PGrad(MLP((8,)), 3).update(batch)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"meta_lr": 0}, "be positive, got 0"),
        ({"rounds": 0}, "be at least 1, got 0"),
        ({"num_directions": 0}, "be at least 1, got 0"),
    ],
)
def test_wrong_settings(settings, rule):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must {rule}"):
        PGrad(MLP((8,)), 3, **settings)
