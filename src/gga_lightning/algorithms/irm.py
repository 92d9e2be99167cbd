"""Invariant risk minimization (IRM)."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.annealed import AnnealedPenalty
from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains
from gga_lightning.tasks import CLASSIFICATION, Task

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
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            penalty_weight: The penalty's weight (lambda) from ``anneal_steps`` on; 1 before.
            anneal_steps: Number of optimizer steps before that.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.
        """
        super().__init__(
            featurizer, num_classes, penalty_weight, anneal_steps, optimizer=optimizer, task=task
        )

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
            losses.append(self.task.loss(logits, targets))
            penalties.append(scale_penalty(logits, targets, self.task))
        return torch.stack(losses).mean() + self.weight * torch.stack(penalties).mean()


def scale_penalty(logits: Tensor, targets: Tensor, task: Task = CLASSIFICATION) -> Tensor:
    """Estimates the squared gradient of a domain's loss in a scalar multiplier of the logits.

    Args:
        logits: The model's outputs for N samples, N at least 2.
        targets: As many targets.
        task: Whose loss.

    Returns:
        The product of the gradients on even and on odd samples, a scalar.
    """
    even = task.scale_slope(logits[::2], targets[::2])
    return even * task.scale_slope(logits[1::2], targets[1::2])
