"""Invariant risk minimization (IRM)."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.annealed import AnnealedPenalty
from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["IRM", "scale_penalty"]


class IRM(AnnealedPenalty):
    """Penalizes classifiers that a domain of its own would scale differently (IRMv1).

    The penalty of a domain is the squared slope of its loss in a factor on the logits, estimated
    without bias as the product of the slopes on its even and its odd samples, and so sometimes
    negative.

    Source: Arjovsky et al., 2019, arXiv 1907.02893. As DomainBed; the original code divides the
    loss by the penalty's weight where that is above 1.

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
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            penalty_weight: The penalty's weight (lambda) from ``anneal_steps`` on; 1 before.
            anneal_steps: How many optimizer steps that takes.
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
    """Estimates the squared slope of a domain's loss in a factor on the logits.

    Args:
        logits: The model's outputs for N samples, N at least 2.
        targets: As many targets.
        task: Whose loss.

    Returns:
        The product of the slopes on even and on odd samples, a scalar.
    """
    even = task.scale_slope(logits[::2], targets[::2])
    return even * task.scale_slope(logits[1::2], targets[1::2])
