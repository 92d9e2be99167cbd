import sys
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import JacobianDescent
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check_update, descend, gradients

pytest.importorskip("torchjd")


def surgery(rows):
    """PCGrad: each gradient is projected off those, in a random order, that it conflicts with."""
    total = 0
    for own in range(len(rows)):
        projected = rows[own]
        for other in torch.randperm(len(rows)).tolist():
            product = projected @ rows[other]
            if other != own and product < 0:
                projected = projected - product / (rows[other] @ rows[other]) * rows[other]
        total = total + projected
    return total


def largest(rows):
    return rows[rows.norm(dim=1).argmax()]


@pytest.mark.parametrize(
    ("aggregator", "formula"),
    [("Mean", lambda rows: rows.mean(0)), ("Sum", lambda rows: rows.sum(0)), (largest, largest)],
)
def test_three_updates_by_the_formula(aggregator, formula):
    def update(*arguments):
        *networks, parts, _ = arguments
        featurizer, classifier = networks
        found = [gradients(cross_entropy(classifier(featurizer(x)), y), networks) for x, y in parts]
        rows = torch.stack([torch.cat([g.flatten() for g in own]) for own in found])
        step = formula(rows).split([g.numel() for g in found[0]])
        descend(networks, [s.view_as(g) for s, g in zip(step, found[0], strict=True)])

    check_update(partial(JacobianDescent, aggregator=aggregator), update)


@pytest.mark.parametrize("name", ["UPGrad", "MGDA", "PCGrad", "AlignedMTL"])
def test_no_domain_is_hurt(name):
    module = JacobianDescent(MLP((8,)), 3, aggregator=name)
    rows = torch.tensor([[1.0, 0.2], [-0.5, 1.0]])
    combined = module.aggregator(rows)
    assert (rows @ combined > -1e-5).all()
    if name == "PCGrad":
        torch.testing.assert_close(combined, surgery(rows), rtol=1e-3, atol=1e-3)


def test_wrong_settings(monkeypatch):
    with pytest.raises(ValueError, match=r"`aggregator` must be one of .* got 'Best'"):
        JacobianDescent(MLP((8,)), 3, aggregator="Best")
    with pytest.raises(ValueError, match=r"`aggregator='Krum'` needs settings"):
        JacobianDescent(MLP((8,)), 3, aggregator="Krum")
    with pytest.raises(ValueError, match="`aggregator` must be a name or a callable .* got 3"):
        JacobianDescent(MLP((8,)), 3, aggregator=3)
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(ImportError, match=r"pip install 'gga-lightning\[jacobian\]'"):
        JacobianDescent(MLP((8,)), 3)
