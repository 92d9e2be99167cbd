import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import AgrRand, AgrSum
from gga_lightning.backbones import MLP
from tests.algorithms.literal import LR, SGD, check_update, descend, gradients, parameters
from tests.helpers import combined_loader, domain_batch, domain_data, trainer


def agreed(found):
    """The sum of each coordinate with equal signs, None for the others; a list a parameter."""
    sums = []
    for own in zip(*found, strict=True):
        columns = zip(*(g.flatten().tolist() for g in own), strict=True)
        sums.append(
            [
                sum(values) if all(v > 0 for v in values) or all(v < 0 for v in values) else None
                for values in columns
            ]
        )
    return sums


@pytest.mark.parametrize("kind", [AgrSum, AgrRand])
def test_three_updates_by_the_papers_algorithm(kind):
    def update(*arguments):
        *networks, parts, _ = arguments
        featurizer, classifier = networks
        found = [gradients(cross_entropy(classifier(featurizer(x)), y), networks) for x, y in parts]
        sums = agreed(found)
        sizes = [abs(value) for column in sums for value in column if value is not None]
        shares.append(len(sizes) / sum(map(len, sums)))
        scale = sum(sizes) / len(sizes) if kind is AgrRand else 0.0
        generator = torch.Generator().manual_seed(torch.randint(2**62, ()).item())
        directions = []
        for param, column in zip(parameters(networks), sums, strict=True):
            noise = torch.randn(param.shape, generator=generator, dtype=torch.float64)
            drawn = (scale * noise).flatten().tolist()
            filled = [n if v is None else v for v, n in zip(column, drawn, strict=True)]
            directions.append(torch.tensor(filled, dtype=torch.float64).view_as(param))
        descend(networks, directions)

    shares = []
    check_update(kind, update)
    assert all(0.1 < share < 0.9 for share in shares)


def trained(kind, data):
    torch.manual_seed(0)
    module = kind(MLP((8,)), 3, optimizer=SGD)
    start = [param.detach().clone() for param in module.parameters()]
    expected = [torch.zeros_like(param) for param in start]
    for x, y in domain_batch(data).values():
        loss = cross_entropy(module(x), y)
        for total, part in zip(expected, gradients(loss, [module]), strict=True):
            total += part
    trainer(max_steps=1, limit_val_batches=0).fit(module, combined_loader(data), [])
    moved = [(old - new.detach()) / LR for old, new in zip(start, module.parameters(), strict=True)]
    return moved, expected


@pytest.mark.parametrize("kind", [AgrSum, AgrRand])
def test_equal_gradients_are_summed(kind):
    art = domain_data()["art"]
    for moved, expected in zip(*trained(kind, {"art": art, "photo": art}), strict=True):
        kept = expected != 0  # AgrRand draws the others
        torch.testing.assert_close(moved[kept], expected[kept], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", [AgrSum, AgrRand])
def test_opposite_gradients_move_nothing(kind):
    module = kind(MLP((8,)), 3, optimizer=SGD)
    start = [param.detach().clone() for param in module.parameters()]
    module.domain_gradients = lambda batch: (
        torch.zeros(()),
        [[torch.ones_like(p) for p in start], [-torch.ones_like(p) for p in start]],
    )
    data = dict(list(domain_data().items())[:2])
    trainer(max_steps=1, limit_val_batches=0).fit(module, combined_loader(data), [])
    assert all(map(torch.equal, start, module.parameters()))


@pytest.mark.parametrize("kind", [AgrSum, AgrRand])
def test_needs_two_domains(kind):
    with pytest.raises(MisconfigurationException, match=f"{kind.__name__} needs .* at least 2 dom"):
        kind(MLP((8,)), 3).update({"art": domain_batch()["art"]})
