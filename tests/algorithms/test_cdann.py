from functools import partial

import torch
from torch.nn.functional import cross_entropy, nll_loss

from gga_lightning.algorithms import CDANN
from gga_lightning.backbones import MLP
from tests.algorithms.literal import check_update, descend, gradients
from tests.algorithms.test_dann import D, pooled


def test_updates_by_the_formula():
    def update(featurizer, classifier, discriminator, embedding, parts, step):
        x, y = pooled(parts)
        z = featurizer(x)
        scores = discriminator(z + embedding.weight[y]).log_softmax(1)
        against = 0  # a mean over the classes of means over their samples
        for label in y.unique():
            own = y == label
            against = against + nll_loss(scores[own], D[own]) / len(y.unique())
        if step % 2:
            networks = discriminator, embedding
            descend(networks, gradients(against, networks))
        else:
            networks = featurizer, classifier
            loss = cross_entropy(classifier(z), y) - 0.8 * against
            descend(networks, gradients(loss, networks))

    make = partial(CDANN, num_domains=3, width=6, adversary_weight=0.8, scheme="alternating")
    check_update(make, update, networks=["discriminator", "class_embedding"], steps=4)


def test_a_class_that_is_missing_from_the_batch_has_no_weight():
    module = CDANN(MLP((8,)), 5, num_domains=3)
    for targets in ([0, 0, 1, 1], [0, 0, 4, 4]):
        loss = module.discriminator_loss(
            torch.zeros(4, 3), torch.arange(4) % 3, torch.tensor(targets)
        )
        torch.testing.assert_close(loss, torch.tensor(3.0).log())
