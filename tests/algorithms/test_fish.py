from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import Fish
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check_update, descend, gradients, parameters
from tests.helpers import combined_loader, trainer


def test_three_updates_by_the_papers_algorithm():
    def update(*arguments):
        *networks, parts, _ = arguments
        featurizer, classifier = networks
        start = [param.detach().clone() for param in parameters(networks)]
        for index in torch.randperm(3).tolist():
            x, y = parts[index]
            descend(networks, gradients(cross_entropy(classifier(featurizer(x)), y), networks))
        for param, old in zip(parameters(networks), start, strict=True):
            param.data = old + 0.3 * (param.data - old)

    check_update(partial(Fish, meta_lr=0.3), update)


def test_the_inner_optimizer_goes_on_and_counts_once():
    module = Fish(MLP((8,)), 3)
    fit = trainer(max_steps=4, limit_val_batches=0)
    fit.fit(module, combined_loader(), [])
    assert fit.global_step == 4
    assert {int(state["step"]) for state in fit.optimizers[0].state.values()} == {12}


@pytest.mark.parametrize("meta_lr", [0.0, 1.1])
def test_meta_lr(meta_lr):
    with pytest.raises(ValueError, match=r"`meta_lr` must be in \(0, 1\], got"):
        Fish(MLP((8,)), 3, meta_lr=meta_lr)
