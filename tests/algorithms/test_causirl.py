from functools import partial

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import CORAL, CausIRLCORAL, CausIRLMMD
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.algorithms.test_mmd import distance as discrepancy
from tests.helpers import domain_batch, domain_data


def moments(a, b):
    mean_a, mean_b = a.mean(0), b.mean(0)
    cov_a = (a - mean_a).T @ (a - mean_a) / (len(a) - 1)
    cov_b = (b - mean_b).T @ (b - mean_b) / (len(b) - 1)
    return ((mean_a - mean_b) ** 2).mean() + ((cov_a - cov_b) ** 2).mean()


BOTH = [(CausIRLCORAL, moments), (CausIRLMMD, discrepancy)]


@pytest.mark.parametrize(("kind", "distance"), BOTH)
@pytest.mark.parametrize("domains", [1, 2, 3])
def test_three_updates_by_the_formula(kind, distance, domains):
    def objective(featurizer, classifier, parts, step):
        loss, groups = 0, ([], [])
        for x, y in parts:
            z = featurizer(x)
            loss = loss + cross_entropy(classifier(z), y) / domains
            cut = torch.randint(8, ()).item()
            for index, row in enumerate(z):
                groups[index >= cut].append(row)
        if min(map(len, groups)) < 2:
            return loss
        penalized.append(step)
        return loss + 0.7 * distance(*map(torch.stack, groups))

    penalized = []
    data = dict(list(domain_data().items())[:domains])
    check(partial(kind, gamma=0.7), objective, data=data)
    assert bool(penalized) == (domains > 1)


def test_groups_that_are_too_small_have_no_penalty(monkeypatch):
    monkeypatch.setattr(torch, "randint", lambda high, size: torch.tensor(0))
    module, batch = CausIRLCORAL(MLP((8,)), 3), domain_batch()
    assert module.objective(batch) == module.domain_losses(batch).mean()


def test_one_domain_is_the_distance_of_its_parts(monkeypatch):
    monkeypatch.setattr(torch, "randint", lambda high, size: torch.tensor(5))
    torch.manual_seed(0)
    features = torch.randn(8, 4)
    expected = CORAL(MLP((8,)), 3).distance(features[:5], features[5:])
    assert CausIRLCORAL(MLP((8,)), 3).penalty([features]) == expected


@pytest.mark.parametrize(
    ("batch", "samples"),
    [(domain_batch(size=1), 2), ({"art": domain_batch(size=3)["art"]}, 4)],
)
def test_needs_samples_for_two_groups(batch, samples):
    with pytest.raises(MisconfigurationException, match=f"CausIRLMMD .* at least {samples} sampl"):
        CausIRLMMD(MLP((8,)), 3).objective(batch)
