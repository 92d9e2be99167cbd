from functools import partial

import pytest
from lightning.pytorch import Callback
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import VREx
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import combined_loader, trainer


@pytest.mark.parametrize("anneal_steps", [0, 2])
def test_three_updates_by_the_papers_formula(anneal_steps):
    def objective(featurizer, classifier, parts, step):
        losses = [cross_entropy(classifier(featurizer(x)), y) for x, y in parts]
        mean = sum(losses) / 3
        variance = sum((loss - mean) ** 2 for loss in losses) / 3
        return mean + (3.0 if step >= anneal_steps else 1.0) * variance

    check(partial(VREx, penalty_weight=3.0, anneal_steps=anneal_steps), objective)


def test_the_optimizers_state_is_cleared_where_the_weight_jumps():
    steps = []

    class Sees(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            states = trainer.optimizers[0].state.values()
            steps.append({int(state["step"]) for state in states})

    module = VREx(MLP((8,)), 3, anneal_steps=3)
    trainer(Sees(), max_steps=5, limit_val_batches=0).fit(module, combined_loader(), [])
    assert steps == [{1}, {2}, {3}, {1}, {2}]  # Adam starts afresh


def test_anneal_steps():
    with pytest.raises(ValueError, match="`anneal_steps` must not be negative, got -1"):
        VREx(MLP((8,)), 3, anneal_steps=-1)
