"""Invariant risk minimization (IRM)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gga_lightning.algorithms.annealed import AnnealedPenalty
from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains

__all__ = ["IRM", "scale_penalty"]


class IRM(AnnealedPenalty):
    """Penalizes the squared gradient of each domain's risk in a scalar multiplier of the logits.

    The penalty (IRMv1) of a domain is 0 where no multiplier would lower its risk. The squared
    gradient is estimated without bias, as the product of the gradients on the domain's even and its
    odd samples. The estimate is therefore sometimes negative.

    Source: Arjovsky et al., 2019, arXiv 1907.02893. As in DomainBed; the original code divides the
    loss by the penalty's weight where that is above 1.

    Example:
        The penalty is 0 for calibrated logits, and positive for logits that are twice as large.
        Here class 0 has probability 3/4, and is the class of three samples in four:

        >>> from gga_lightning.algorithms.irm import scale_penalty
        >>> logits = torch.tensor([[3.0, 1.0]]).log().repeat(8, 1)
        >>> targets = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
        >>> bool(scale_penalty(logits, targets).abs() < 1e-6)
        True
        >>> bool(scale_penalty(2 * logits, targets) > 0.01)
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
            anneal_steps: Number of optimizer steps before that.
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
    """Estimates the squared gradient of a domain's loss in a scalar multiplier of the logits.

    Args:
        logits: Shape ``(N, num_classes)``, N at least 2.
        targets: The classes, shape ``(N,)``.

    Returns:
        The product of the gradients on even and on odd samples, a scalar.
    """
    return _slope(logits[::2], targets[::2]) * _slope(logits[1::2], targets[1::2])


def _slope(logits: Tensor, targets: Tensor) -> Tensor:
    """The derivative of the cross-entropy of s * logits in s, at s = 1."""
    own = logits.gather(1, targets[:, None]).squeeze(1)
    return ((logits.softmax(1) * logits).sum(1) - own).mean()
