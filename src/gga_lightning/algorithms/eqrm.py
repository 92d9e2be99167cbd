"""Empirical quantile risk minimization (EQRM)."""

from typing import Literal

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.annealed import Annealed
from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["EQRM"]

_GRID = 1024


class EQRM(Annealed):
    """Minimizes a high quantile of the domains' risks, after some steps on their mean.

    The quantile is that of a kernel density estimate from the domains' losses, with Gaussians of
    width 1.06 * deviation * D^(-1/5) for D domains.

    Source: Eastwood et al., NeurIPS 2022, arXiv 2207.09944, Algorithm 1. The paper's code, which is
    DomainBed's, finds the quantile by bisection and differentiates through it. Only the ends of the
    interval then get a gradient: the lowest and the highest risk, and the width
    (``gradient="endpoints"``, from which the published numbers come). We differentiate the
    quantile itself. In DomainBed's random search the learning rate never changes. All domains go
    through the network in one pass.

    Example:
        The median of two risks is their mean, and higher quantiles lie above it:

        >>> from gga_lightning.backbones import MLP
        >>> logits = torch.tensor([[3.0, 1.0]])
        >>> batch = {"a": (logits, torch.tensor([0])), "b": (logits, torch.tensor([1]))}
        >>> for quantile in (0.5, 0.9):
        ...     model = EQRM(MLP((2,)), num_classes=2, quantile=quantile, burnin_steps=0)
        ...     model.forward = lambda logits: logits
        ...     bool(model.objective(batch) > model.domain_losses(batch).mean() + 1e-3)
        False
        True
    """

    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        quantile: float = 0.75,
        burnin_steps: int = 2500,
        lr_after: float | None = None,
        gradient: Literal["exact", "endpoints"] = "exact",
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            quantile: Which quantile of the risks is minimized (alpha), in (0, 1).
            burnin_steps: Number of optimizer steps that minimize the mean.
            lr_after: The learning rate afterwards; unchanged if None.
            gradient: ``"exact"`` or ``"endpoints"``, see above.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(featurizer, num_classes, burnin_steps, optimizer=optimizer, task=task)
        if not 0 < quantile < 1:
            raise ValueError(f"`quantile` must be in (0, 1), got {quantile}.")
        if gradient not in ("exact", "endpoints"):
            raise ValueError(f"`gradient` must be 'exact' or 'endpoints', got {gradient!r}.")
        self.quantile = quantile
        self.lr_after = lr_after
        self.gradient = gradient

    def objective(self, batch: Batch) -> Tensor:
        """Computes the quantile of the domains' losses, or their mean in the first steps.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        require_domains(batch, "EQRM")
        risks = self.domain_losses(batch)
        if not self.annealed:
            return risks.mean()
        exact = torch.float32 if risks.device.type == "mps" else torch.float64  # it has no other
        return self._quantile(risks.to(exact)).to(risks)

    def _quantile(self, risks: Tensor) -> Tensor:
        variance = risks.var().clamp(min=1e-12)  # equal risks have no slope of their deviation
        width = 1.06 * variance.sqrt() * len(risks) ** -0.2
        reach = width * torch.special.ndtri(risks.new_tensor(self.quantile))
        low, high = risks.min() + reach, risks.max() + reach
        with torch.no_grad():
            found = _solve(risks, width, self.quantile, low, high)
        if self.gradient == "endpoints":
            share = (found - low).detach() / (high - low).detach().clamp(min=1e-30)
            return torch.lerp(low, high, share)
        # one step of Newton's from the solution has the solution's derivative
        scaled = (found - risks) / width
        density = (-scaled.square() / 2).exp().mean() / (width * (2 * torch.pi) ** 0.5)
        error = torch.special.ndtr(scaled).mean() - self.quantile
        return found - error / density.detach()


def _solve(risks: Tensor, width: Tensor, level: float, low: Tensor, high: Tensor) -> Tensor:
    """Where the estimated distribution reaches a level, by ever finer grids."""
    steps = torch.linspace(0, 1, _GRID, dtype=risks.dtype, device=risks.device)
    for _ in range(6):  # 1023^6 is finer than float64
        points = torch.lerp(low, high, steps)
        below = torch.special.ndtr((points[:, None] - risks) / width).mean(1) < level
        place = below.sum().clamp(1, _GRID - 1)
        low, high = points.take(place - 1), points.take(place)
    return (low + high) / 2
