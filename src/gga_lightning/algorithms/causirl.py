"""Base of the two forms of CausIRL: two groups of samples, cut at random from all domains."""

from abc import ABC
from collections.abc import Sequence

import torch
from torch import Tensor

from gga_lightning.algorithms.alignment import FeatureAlignment
from gga_lightning.algorithms.base import Batch, require_domains

__all__ = ["CausIRL"]


class CausIRL(FeatureAlignment, ABC):
    """Minimizes the mean of the domains' losses and the distance between two random groups.

    At each step every domain e is cut at a number c_e, drawn uniformly from 0, ..., n_e - 1. The
    first c_e samples of every domain are the group A, all other samples are the group B. With L_e
    the mean cross-entropy of domain e, the objective is

        mean over e of L_e + gamma * distance(A, B).

    The groups contain the domains in different shares. Their distance is therefore small only where
    the features do not depend on the domain. There is no penalty in a step where a group has fewer
    than two samples. The cuts are drawn on the CPU.

    Source: Chevalley, Bunne, Krause & Bauer, 2022, arXiv 2206.11646. As in DomainBed, which draws
    the cuts with NumPy and replaces penalties that are NaN by 0. All domains go through the
    network in one pass, which differs from DomainBed's where BatchNorm is in training mode.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> class MeanGap(CausIRL):  # aligns the mean features of the two groups
        ...     def distance(self, left, right):
        ...         return (left.mean(0) - right.mean(0)).square().mean()
        >>> model = MeanGap(MLP((2,)), num_classes=2)
        >>> model.penalty([torch.ones(4, 32), torch.ones(4, 32)])  # of domains with equal features
        tensor(0.)
    """

    min_domains = 1  # its parts are compared

    def check(self, batch: Batch) -> None:
        """Raises an error if no cut gives two groups of two samples.

        Args:
            batch: Domain name to (inputs, targets).
        """
        samples = 2 if len(batch) > 1 else 4
        require_domains(batch, type(self).__name__, domains=1, samples=samples)

    def penalty(self, features: Sequence[Tensor]) -> Tensor:
        """Computes the distance between the two groups.

        Args:
            features: Those of each domain, shape ``(N_e, F)``.

        Returns:
            A scalar; 0 if a group has fewer than two samples.
        """
        cuts = [int(torch.randint(len(own), ())) for own in features]
        first = torch.cat([own[:cut] for own, cut in zip(features, cuts, strict=True)])
        second = torch.cat([own[cut:] for own, cut in zip(features, cuts, strict=True)])
        if min(len(first), len(second)) < 2:
            return first.new_zeros(())
        return self.distance(first, second)
