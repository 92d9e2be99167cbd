"""Other forms of the callbacks, tried on the embedded data (docs/effect.md has what came of it).

    PYTHONPATH=benchmarks gga-train --config-dir benchmarks/conf sweep=forms
    gga-report multirun --selection last

Those of voting override what a coordinate of a parameter keeps of its change.
"""

import itertools

import torch
from torch.nn.functional import normalize

from gga_lightning import GradientAgreementVoting, GradientGuidedAnnealing
from gga_lightning.alignment.search import annealing_search


class VotingByUnit(GradientAgreementVoting):
    """All weights of an output unit keep alike: the share of them on which the domains agree."""

    def _share(self, averages):
        share, reached = super()._share(averages)
        if share.dim() > 1:
            share = share.flatten(1).mean(1).view(-1, *[1] * (share.dim() - 1)).expand_as(share)
        return share, reached


class VotingByLayer(GradientAgreementVoting):
    """All weights of a tensor keep alike: the share of them on which the domains agree."""

    def _share(self, averages):
        share, reached = super()._share(averages)
        return share.mean().expand_as(share), reached


class VotingInConflict(GradientAgreementVoting):
    """A tensor is voted on only while some two domains' gradients of it have a negative cosine."""

    def _share(self, averages):
        share, reached = super()._share(averages)
        return torch.where(_conflict(averages), share, torch.ones_like(share)), reached


class VotingWhileInConflict(GradientAgreementVoting):
    """Nothing is voted on at steps where no two domains' whole gradients have a negative cosine."""

    def _share(self, averages):
        share, reached = super()._share(averages)
        whole = [
            torch.cat([value.flatten() for value in average.values.values()])
            for average in self._averages.values()
        ]
        return torch.where(_conflict(whole), share, torch.ones_like(share)), reached


class VotingByClass(GradientAgreementVoting):
    """The domains vote on each class apart; a coordinate keeps the share of classes that agree."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, split=by_class, **kwargs)

    def _share(self, averages):
        voters = {}
        for name, average in zip(self._averages, averages, strict=True):
            voters.setdefault(name.rpartition("/")[2], []).append(average)
        shares, reached = zip(*map(super()._share, voters.values()), strict=True)
        return torch.stack(shares).mean(0), torch.stack(reached).any()


class VotingOfClasses(GradientAgreementVoting):
    """Every class of every domain is a voter of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, split=by_class, **kwargs)


class VotingSearch(GradientGuidedAnnealing):
    """Searches for votes instead of angles: the most coordinates with the same sign.

    In the place of a cosine, the share of coordinates on which two domains' gradients have the
    same sign, less the share on which they do not.
    """

    def _search(self, start, probe, params):
        def evaluate():
            found = probe.evaluate()
            signs = torch.stack([torch.cat([g.flatten() for g in own]) for own in found.gradients])
            signs = normalize(signs.sign())
            return found.loss, signs @ signs.T

        return annealing_search(
            params,
            evaluate,
            proposal=self._proposal_at(start.step),
            num_candidates=self.num_candidates,
            acceptance=self.acceptance,
            generator=self._generator(start.step),
        )


def by_class(batch):
    """Domains divided by class."""
    return {
        f"{domain}/{label}": (inputs[targets == label], targets[targets == label])
        for domain, (inputs, targets) in batch.items()
        for label in targets.unique().tolist()
    }


def _conflict(gradients):
    pairs = itertools.combinations([gradient.flatten() for gradient in gradients], 2)
    return torch.stack([a @ b < 0 for a, b in pairs]).any()
