import copy
import math
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import GroupDRO
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check
from tests.helpers import domain_batch


def test_three_updates_by_the_papers_formula():
    q = [1.0, 1.0, 1.0]

    def objective(featurizer, classifier, parts, step):
        losses = [cross_entropy(classifier(featurizer(x)), y) for x, y in parts]
        q[:] = [w * math.exp(0.5 * loss.item()) for w, loss in zip(q, losses, strict=True)]
        q[:] = [w / sum(q) for w in q]
        return sum(w * loss for w, loss in zip(q, losses, strict=True))

    module = check(partial(GroupDRO, eta=0.5), objective)
    assert [w.item() for w in module.weights.values()] == pytest.approx(q)


def test_weights_are_in_the_state_dict():
    module, batch = GroupDRO(MLP((8,)), 3, eta=1.0), domain_batch()
    module.objective(batch)
    state = copy.deepcopy(module.state_dict())
    fresh = GroupDRO(MLP((8,)), 3, eta=1.0)
    fresh.load_state_dict(state)
    assert torch.equal(module.objective(batch), fresh.objective(batch))
    assert len({weight.item() for weight in fresh.weights.values()}) == 3


def test_a_domain_that_is_missing_or_late():
    """With eta = 0 all weights are equal, whichever domains come when."""
    art, photo, sketch = domain_batch().items()
    for batches in ([[art, photo], [art, photo, sketch]], [[art, photo, sketch], [art, sketch]]):
        module = GroupDRO(MLP((8,)), 3, eta=0)
        for batch in batches:
            loss = module.objective(dict(batch))
            torch.testing.assert_close(loss, module.domain_losses(dict(batch)).mean())
        assert [w.item() for w in module.weights.values()] == pytest.approx([1 / 3] * 3)


def test_eta():
    with pytest.raises(ValueError, match="`eta` must not be negative, got -1"):
        GroupDRO(MLP((8,)), 3, eta=-1)
