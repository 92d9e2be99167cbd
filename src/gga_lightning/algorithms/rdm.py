"""Risk distribution matching (RDM)."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.annealed import Annealed
from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["RDM"]

_SCALES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)


class RDM(Annealed):
    """Matches the distribution of the worst domain's losses with that of all losses.

    Let W be the losses of the samples of the domain with the highest mean loss, and Q the losses
    of all samples. From ``anneal_steps`` on, the objective is

        mean over e of L_e + penalty_weight * MMD^2(W, Q) + variance_weight * (Var(W) + Var(Q)),

    before that it is the first term alone. L_e is the mean loss of domain e. MMD^2 is the biased
    estimate of the squared maximum mean discrepancy under the sum of eight Gaussian kernels
    exp(-g d^2), g = 1e-4 to 1e3. The variances divide by the number of losses minus 1. Both are
    computed in float32, also in half precision.

    Source: Nguyen, Do, Duong & Nguyen, WACV 2024, arXiv 2310.18598, in DomainBed's form. There,
    domains of unequal size raise an error, a domain with a single sample makes all weights NaN from
    the first step on, and a GPU is necessary; none of this holds here. DomainBed makes a new
    optimizer at ``anneal_steps``, and here its state is cleared. DomainBed's batches for RDM are
    larger than those of other algorithms: 88 samples a domain (40 for TerraIncognita and
    DomainNet).

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = RDM(MLP((2,)), num_classes=2, anneal_steps=0)
        >>> y = torch.tensor([0, 1, 0, 1])
        >>> batch = {"photo": (torch.randn(4, 2), y), "sketch": (torch.randn(4, 2), y)}
        >>> (model.objective(batch) > model.domain_losses(batch).mean()).item()
        True
    """

    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        penalty_weight: float = 5.0,
        variance_weight: float = 0.004,
        anneal_steps: int = 1500,
        lr_after: float | None = None,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            penalty_weight: The discrepancy's weight from ``anneal_steps`` on; not negative.
            variance_weight: The variances' weight from ``anneal_steps`` on; not negative.
            anneal_steps: The optimizer step from which on there are penalties; not negative.
            lr_after: The learning rate from ``anneal_steps`` on, positive; unchanged if None. A
                learning rate schedule overwrites it.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(featurizer, num_classes, anneal_steps, optimizer=optimizer, task=task)
        for name, value in (
            ("penalty_weight", penalty_weight),
            ("variance_weight", variance_weight),
        ):
            if not value >= 0:
                raise ValueError(f"`{name}` must not be negative, got {value}.")
        if lr_after is not None and not lr_after > 0:
            raise ValueError(f"`lr_after` must be positive, got {lr_after}.")
        self.penalty_weight = penalty_weight
        self.variance_weight = variance_weight
        self.lr_after = lr_after

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss and, from ``anneal_steps`` on, the penalties.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        require_domains(batch, "RDM", samples=2)
        losses = [
            self.task.losses(logits, targets)
            for logits, (_, targets) in zip(
                self.logits_by_domain(batch), batch.values(), strict=True
            )
        ]
        means = torch.stack([own.mean() for own in losses])
        if not self.annealed:
            return means.mean()
        with torch.autocast(means.device.type, enabled=False):  # small differences of large numbers
            wide = torch.promote_types(means.dtype, torch.float32)
            worst, everyone = losses[int(means.argmax())].to(wide), torch.cat(losses).to(wide)
            return (
                means.mean()
                + self.penalty_weight * _discrepancy(worst, everyone)
                + self.variance_weight * (worst.var() + everyone.var())
            )


def _discrepancy(left: Tensor, right: Tensor) -> Tensor:
    """The squared maximum mean discrepancy of two sets of numbers, shapes (N,) and (M,)."""
    within = _kernel(left, left) + _kernel(right, right)
    return within - 2 * _kernel(left, right)


def _kernel(left: Tensor, right: Tensor) -> Tensor:
    """The kernels' mean over all pairs."""
    distances = (left[:, None] - right[None, :]).square()
    return torch.stack([(-scale * distances).exp().mean() for scale in _SCALES]).sum()
