"""Other forms of agreement voting, tried on the embedded data (docs/effect.md has what came of it).

    PYTHONPATH=benchmarks gga-train --config-dir benchmarks/conf sweep=forms
    gga-report multirun --selection last

Each overrides what a coordinate of a parameter keeps of its change.
"""

import itertools

import torch

from gga_lightning import GradientAgreementVoting


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
        pairs = itertools.combinations([average.flatten() for average in averages], 2)
        conflict = torch.stack([a @ b < 0 for a, b in pairs]).any()
        return torch.where(conflict, share, torch.ones_like(share)), reached
