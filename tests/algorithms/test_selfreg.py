import torch
from torch.nn.functional import cross_entropy

from gga_lightning.algorithms import SelfReg
from gga_lightning.algorithms.selfreg import _of_the_same_class
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check


def partners(y):
    """A permutation within each class, in the order in which a shuffle of all gives it."""
    shuffled = torch.randperm(len(y)).tolist()
    found = torch.empty(len(y), dtype=torch.long)
    for label in y.unique().tolist():
        members = [i for i in range(len(y)) if y[i] == label]
        found[members] = torch.tensor([i for i in shuffled if y[i] == label])
    return found


def test_three_updates_by_the_papers_formula():
    def objective(featurizer, classifier, projection, parts, step):
        x, y = (torch.cat(values) for values in zip(*parts, strict=True))
        z = featurizer(x)
        logits, projected = classifier(z), projection(z)
        share = torch.distributions.Beta(0.5, 0.5).sample().item()
        first, second = partners(y), partners(y)

        def losses(values, others, weight):
            mixture = share * others[first] + (1 - share) * others[second]
            single = ((values - others[first]) ** 2).mean()
            return weight * single, weight * ((values - mixture) ** 2).mean()

        of_logits, of_features = losses(logits, logits, 1.0), losses(z, projected, 0.3)
        loss = cross_entropy(logits, y)
        return loss + min(loss.item(), 1.0) * (
            share * (of_logits[0] + of_features[0]) + (1 - share) * (of_logits[1] + of_features[1])
        )

    check(SelfReg, objective, networks=["projection"])


def test_partners_are_permutations_within_classes():
    targets = torch.tensor([2, 0, 1, 0, 2, 2, 0, 1])
    seen = set()
    for _ in range(30):
        found = _of_the_same_class(targets)
        assert torch.equal(targets[found], targets)
        assert sorted(found.tolist()) == list(range(8))
        seen.add(tuple(found.tolist()))
    assert len(seen) > 10


def test_width_of_the_projection():
    assert SelfReg(MLP((8,), (16,)), 3).projection[0].out_features == 32
    assert SelfReg(MLP((8,), (2048,)), 3).projection[0].out_features == 2048
