import math
from functools import partial

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import CAD, CondCAD
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import domain_batch, domain_data


def term(z, y, d, *, temperature, conditional=False, repeated=False):
    """The paper's sums, sample by sample."""
    terms = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        same = [j for j in others if y[j] == y[i]]
        among = same if conditional else others
        other = [j for j in among if d[j] != d[i]]
        if not other or (repeated and not same):
            continue
        weights = {j: torch.exp(z[i] @ z[j] / temperature) for j in among}
        share = sum(weights[j] for j in other) / sum(weights.values())
        terms.append(-temperature / 0.07 * torch.log(share))
    return sum(terms) / len(terms), len(terms)


def unit(z):
    return z / (z**2).sum(1, keepdim=True).sqrt()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("kind", "conditional", "repeated"),
    [
        (CAD, False, False),
        (partial(CAD, anchors="repeated"), False, True),
        (CondCAD, True, False),
    ],
)
def test_three_updates_by_the_papers_formula(kind, conditional, repeated, normalize):
    def objective(featurizer, classifier, parts, step):
        x, y = (torch.cat(values) for values in zip(*parts, strict=True))
        d = [0] * 8 + [1] * 8 + [2] * 8
        z = featurizer(x)
        own = unit(z) if normalize else z
        which = {"conditional": conditional, "repeated": repeated}
        penalty, number = term(own, y, d, temperature=0.5, **which)
        numbers.append(number)
        return cross_entropy(classifier(z), y) + 0.7 * penalty

    numbers = []
    # one sample of class 0, two of class 2 in one domain, the others of class 1
    data = {name: (x, torch.ones_like(y)) for name, (x, y) in domain_data().items()}
    data["art"][1][0::8], data["art"][1][1::8], data["art"][1][2::8] = 0, 2, 2
    settings = {"penalty_weight": 0.7, "temperature": 0.5, "normalize": normalize}
    check(partial(kind, **settings), objective, data=data)
    assert set(numbers) == {21 if conditional else 23 if repeated else 24}


def mixing(kind, features, domains):
    module = kind(MLP((8,)), 3, temperature=0.5)
    targets = torch.zeros(len(domains), dtype=torch.long)
    return module.mixing(features.double(), targets, torch.tensor(domains)).item()


@pytest.mark.parametrize("kind", [CAD, CondCAD])
def test_equal_features_have_the_term_of_the_sizes(kind):
    domains = [0] * 3 + [1] * 3
    expected = -0.5 / 0.07 * math.log((6 - 3) / (6 - 1))
    assert mixing(kind, torch.ones(6, 4), domains) == pytest.approx(expected)


@pytest.mark.parametrize("kind", [CAD, CondCAD])
def test_domains_apart_have_a_large_term(kind):
    apart = torch.eye(2)[[0, 0, 0, 1, 1, 1]] * 5
    assert mixing(kind, apart, [0] * 3 + [1] * 3) > 100
    assert mixing(kind, apart, [0, 1, 0, 1, 0, 1]) < 10


@pytest.mark.parametrize("kind", [CAD, CondCAD])
def test_large_features_have_finite_gradients(kind):
    module = kind(MLP((8,)), 3, temperature=0.05)
    batch = {name: (1e3 * x, y) for name, (x, y) in domain_batch().items()}
    module.objective(batch).backward()
    assert all(param.grad.isfinite().all() for param in module.parameters())


def test_no_class_in_two_domains_leaves_the_loss():
    module, batch = CondCAD(MLP((8,)), 3), domain_batch()
    batch = {n: (x, torch.full_like(y, e)) for e, (n, (x, y)) in enumerate(batch.items())}
    objective = module.objective(batch)
    torch.testing.assert_close(objective, module.domain_losses(batch).mean())
    objective.backward()
    assert all(param.grad.isfinite().all() for param in module.parameters())


@pytest.mark.parametrize("kind", [CAD, CondCAD])
def test_needs_two_domains(kind):
    with pytest.raises(MisconfigurationException, match=f"{kind.__name__} needs .* at least 2 dom"):
        kind(MLP((8,)), 3).objective({"art": domain_batch()["art"]})


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"penalty_weight": -1}, "not be negative, got -1"),
        ({"temperature": 0}, "be positive, got 0"),
        ({"anchors": "some"}, "be 'all' or 'repeated', got 'some'"),
    ],
)
def test_wrong_settings(settings, rule):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must {rule}"):
        CAD(MLP((8,)), 3, **settings)
