from functools import partial

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import Transfer
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check_update, descend, gradients, parameters
from tests.helpers import combined_loader, domain_batch, trainer


def gap(featurizer, head, parts):
    losses = [cross_entropy(head(featurizer(x)), y) for x, y in parts]
    values = [loss.item() for loss in losses]
    return losses[values.index(max(values))] - losses[values.index(min(values))]


def distance(head, center):
    pairs = zip(head.parameters(), center.parameters(), strict=True)
    return sum(((a - b) ** 2).sum() for a, b in pairs).sqrt().item()


@pytest.mark.parametrize("delta", [0.05, 2.0, 0.0])
def test_three_updates_by_the_papers_algorithm(delta):
    def update(featurizer, classifier, adversary, parts, step):
        x, y = (torch.cat(values) for values in zip(*parts, strict=True))
        networks = featurizer, classifier
        descend(networks, gradients(cross_entropy(classifier(featurizer(x)), y), networks))
        loss = 0.7 * gap(featurizer, adversary, parts)
        descend([featurizer], gradients(loss, [featurizer]))
        adversary.load_state_dict(classifier.state_dict())
        for _ in range(3):
            loss = -0.7 * gap(featurizer, adversary, parts)
            descend([adversary], gradients(loss, [adversary]), lr=0.2)
            away = distance(adversary, classifier)
            distances.append(away)
            if away > delta:
                pairs = zip(adversary.parameters(), classifier.parameters(), strict=True)
                for own, center in pairs:
                    own.data = center.data + delta / away * (own.data - center.data)

    distances = []
    make = partial(Transfer, gap_weight=0.7, delta=delta, adversary_steps=3, adversary_lr=0.2)
    module = check_update(make, update, networks=["adversary"])
    assert distance(module.adversary, module.classifier) <= delta + 1e-12
    assert any(away > delta for away in distances) == (delta < 2)
    if delta == 0:
        assert all(
            map(torch.equal, parameters([module.adversary]), parameters([module.classifier]))
        )


def test_the_adversary_starts_as_the_classifier():
    module = Transfer(MLP((8,)), 3)
    assert all(map(torch.equal, parameters([module.adversary]), parameters([module.classifier])))


def test_the_mean_over_processes_chooses_the_domains(monkeypatch):
    module, batch = Transfer(MLP((8,)), 3), domain_batch()
    features = module.featurizer(torch.cat([x for x, _ in batch.values()]))
    alone = module._gap(batch, features)
    # on all processes together, the domain with the lowest loss here has the highest
    monkeypatch.setattr(module, "mean_over_processes", lambda losses: -losses)
    assert module._gap(batch, features) == -alone < 0


def test_the_adversary_has_no_part_in_the_optimizer():
    module = Transfer(MLP((8,)), 3)
    fit = trainer(max_steps=4, limit_val_batches=0)
    fit.fit(module, combined_loader(), [])
    assert fit.global_step == 4
    inside = {id(p) for group in fit.optimizers[0].param_groups for p in group["params"]}
    assert inside == {
        id(p) for p in (*module.featurizer.parameters(), *module.classifier.parameters())
    }
    state = fit.optimizers[0].state
    assert {int(state[p]["step"]) for p in module.featurizer.parameters()} == {8}
    assert {int(state[p]["step"]) for p in module.classifier.parameters()} == {4}


def test_a_frozen_featurizer_leaves_the_second_part_out():
    module = Transfer(MLP((8,)), 3)
    module.featurizer.requires_grad_(False)
    start = [param.clone() for param in module.featurizer.parameters()]
    fit = trainer(max_steps=2, limit_val_batches=0)
    fit.fit(module, combined_loader(), [])
    assert all(map(torch.equal, start, module.featurizer.parameters()))
    assert {int(state["step"]) for state in fit.optimizers[0].state.values()} == {2}


def test_needs_two_domains():
    with pytest.raises(MisconfigurationException, match="Transfer needs .* at least 2 domains"):
        Transfer(MLP((8,)), 3).update({"art": domain_batch()["art"]})


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"gap_weight": -1}, "not be negative, got -1"),
        ({"delta": -1}, "not be negative, got -1"),
        ({"adversary_steps": 0}, "be at least 1, got 0"),
        ({"adversary_lr": 0}, "be positive, got 0"),
    ],
)
def test_wrong_settings(settings, rule):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must {rule}"):
        Transfer(MLP((8,)), 3, **settings)
