"""Invariant risk minimization (IRM)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gga_lightning.algorithms.annealed import AnnealedPenalty
from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains

__all__ = ["IRM", "scale_penalty"]


class IRM(AnnealedPenalty):
    """Penalizes a classifier whose logits should be scaled differently in each domain (IRMv1).

    With L_e(s) the mean cross-entropy of domain e when all logits are multiplied by s, the
    objective is the mean over the domains e of

        L_e(1) + penalty_weight * (dL_e/ds at s = 1)^2.

    The squared derivative is estimated without bias: it is the product of the derivative on the
    samples with even index and the derivative on those with odd index. The estimate can be
    negative. Before ``anneal_steps`` the weight of the penalty is 1.

    Source: Arjovsky et al., 2019, arXiv 1907.02893, in the form of DomainBed. The authors' code
    also divides the loss by the penalty's weight if that is above 1.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = IRM(MLP((2,)), num_classes=2, penalty_weight=100.0, anneal_steps=0)
        >>> x, y = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
        >>> penalty = scale_penalty(model(x), y)
        >>> expected = model.domain_loss((x, y)) + 100 * penalty
        >>> model.objective({"photo": (x, y)}).isclose(expected).item()
        True
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        penalty_weight: float = 100.0,
        anneal_steps: int = 500,
        optimizer: OptimizerFactory = ADAM,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            penalty_weight: The penalty's weight (lambda) from ``anneal_steps`` on; 1 before.
            anneal_steps: The optimizer step from which on the weight holds; not negative.
            optimizer: See :class:`DomainGeneralizer`.
        """
        super().__init__(featurizer, num_classes, penalty_weight, anneal_steps, optimizer=optimizer)

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss and the penalty.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        require_domains(batch, "IRM", domains=1, samples=2)
        losses, penalties = [], []
        for logits, (_, targets) in zip(self.logits_by_domain(batch), batch.values(), strict=True):
            losses.append(functional.cross_entropy(logits, targets))
            penalties.append(scale_penalty(logits, targets))
        return torch.stack(losses).mean() + self.weight * torch.stack(penalties).mean()


def scale_penalty(logits: Tensor, targets: Tensor) -> Tensor:
    """Estimates the squared derivative of a domain's loss in a multiplier of the logits.

    Args:
        logits: Shape ``(N, num_classes)``, N at least 2.
        targets: The classes, shape ``(N,)``.

    Returns:
        The product of the derivatives on even and on odd samples, a scalar.
    """
    return _slope(logits[::2], targets[::2]) * _slope(logits[1::2], targets[1::2])


def _slope(logits: Tensor, targets: Tensor) -> Tensor:
    """The derivative of the cross-entropy of s * logits in s, at s = 1."""
    own = logits.gather(1, targets[:, None]).squeeze(1)
    return ((logits.softmax(1) * logits).sum(1) - own).mean()
