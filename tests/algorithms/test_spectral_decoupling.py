from functools import partial

import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import SpectralDecoupling
from tests.algorithms.literal import check


def test_three_updates_by_the_papers_formula():
    def objective(featurizer, classifier, parts, step):
        logits = classifier(featurizer(torch.cat([x for x, _ in parts])))
        targets = torch.cat([y for _, y in parts])
        return cross_entropy(logits, targets) + 0.3 * (logits**2).sum() / logits.numel()

    check(partial(SpectralDecoupling, penalty_weight=0.3), objective)
