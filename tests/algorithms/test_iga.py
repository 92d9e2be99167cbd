from functools import partial

import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import IGA
from tests.algorithms.literal import check


def test_three_updates_by_the_papers_formula():
    def objective(featurizer, classifier, parts, step):
        params = [*featurizer.parameters(), *classifier.parameters()]
        losses = [cross_entropy(classifier(featurizer(x)), y) for x, y in parts]
        flat = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, params, create_graph=True)])
            for loss in losses
        ]
        mean = (sum(flat) / 3).detach()
        return sum(losses) / 3 + 0.2 * sum(((g - mean) ** 2).sum() for g in flat)

    check(partial(IGA, penalty_weight=0.2), objective)
