from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import RSC
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import domain_batch


def test_three_updates_by_the_papers_formula():
    def objective(featurizer, classifier, parts, step):
        x, y = (torch.cat(values) for values in zip(*parts, strict=True))
        z = featurizer(x)
        rows = range(len(y))
        slopes = torch.autograd.grad(classifier(z)[rows, y].sum(), z, retain_graph=True)[0]
        bounds = np.percentile(slopes.numpy(), 100 * (1 - 0.3), axis=1)
        muted = (slopes < torch.from_numpy(bounds)[:, None]).double()
        certain, without = (
            torch.softmax(classifier(f), 1)[rows, y].detach() for f in (z, z * muted)
        )
        change = (certain - without).numpy()
        hit = torch.from_numpy(change >= np.percentile(change, 100 * (1 - 0.4)))
        kept = torch.where(hit[:, None], muted, 1.0)
        assert 0 < hit.sum() < len(y)
        return cross_entropy(classifier(z * kept), y)

    check(partial(RSC, drop_features=0.3, drop_samples=0.4), objective)


def test_in_half_precision():
    module = RSC(MLP((8,)), 3).bfloat16()
    batch = {name: (x.bfloat16(), y) for name, (x, y) in domain_batch().items()}
    assert module.objective(batch).isfinite()


@pytest.mark.parametrize("name", ["drop_features", "drop_samples"])
def test_shares(name):
    with pytest.raises(ValueError, match=rf"`{name}` must be in \[0, 1\], got 2"):
        RSC(MLP((8,)), 3, **{name: 2})
