from functools import partial

import pytest
import torch

from gga_lightning.algorithms import CutMix
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import domain_data


def images():
    data = domain_data(features=64)
    return {name: (x.reshape(-1, 1, 8, 8), y) for name, (x, y) in data.items()}


def test_three_updates_with_boxes_pasted_by_hand():
    """The loss is over a mixture whose images and targets agree on the box's share."""
    seen = []

    class Sees(CutMix):
        def forward(self, inputs):
            seen.append(inputs)
            return super().forward(inputs)

    def objective(featurizer, classifier, parts, step):
        x, y = (torch.cat(values) for values in zip(*parts, strict=True))
        order = torch.randperm(len(y))
        x, y = x[order], y[order]
        share = torch.distributions.Beta(1.0, 1.0).sample().item()
        column, row = torch.randint(8, (1,)).item(), torch.randint(8, (1,)).item()
        half = int(0.5 * (1 - share) ** 0.5 * 8)
        box = (
            slice(max(row - half, 0), min(row + half, 8)),
            slice(max(column - half, 0), min(column + half, 8)),
        )
        mixed = x.clone()
        mixed[:, :, box[0], box[1]] = x.roll(1, 0)[:, :, box[0], box[1]]
        kept = 1 - (box[0].stop - box[0].start) * (box[1].stop - box[1].start) / 64
        logs = classifier(featurizer(mixed)).log_softmax(1)
        rows = torch.arange(len(y))
        return -(kept * logs[rows, y] + (1 - kept) * logs[rows, y.roll(1)]).mean()

    check(partial(Sees, alpha=1.0), objective, data=images(), featurizer=MLP((1, 8, 8)))
    assert len(seen) == 3


def test_alpha():
    with pytest.raises(ValueError, match="`alpha` must be positive, got -1"):
        CutMix(MLP((1, 8, 8)), 3, alpha=-1)
