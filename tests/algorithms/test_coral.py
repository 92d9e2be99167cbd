from functools import partial

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import CORAL
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import domain_batch


def test_three_updates_by_the_formula():
    def distance(a, b):
        mean_a, mean_b = a.mean(0), b.mean(0)
        cov_a = (a - mean_a).T @ (a - mean_a) / (len(a) - 1)
        cov_b = (b - mean_b).T @ (b - mean_b) / (len(b) - 1)
        return ((mean_a - mean_b) ** 2).mean() + ((cov_a - cov_b) ** 2).mean()

    def objective(featurizer, classifier, parts, step):
        z = [featurizer(x) for x, _ in parts]
        loss = sum(cross_entropy(classifier(f), y) for f, (_, y) in zip(z, parts, strict=True)) / 3
        pairs = distance(z[0], z[1]) + distance(z[0], z[2]) + distance(z[1], z[2])
        return loss + 0.7 * pairs / 3

    check(partial(CORAL, gamma=0.7), objective)


def test_equal_domains_have_no_distance():
    x = torch.randn(10, 4)
    assert CORAL(MLP((8,)), 3).distance(x, x) == 0


@pytest.mark.parametrize("batch", [domain_batch(size=1), {"art": domain_batch()["art"]}])
def test_needs_two_domains_of_two_samples(batch):
    with pytest.raises(MisconfigurationException, match="CORAL needs batches of at least 2"):
        CORAL(MLP((8,)), 3).objective(batch)
