"""Invariant risk minimization with an information bottleneck (IB-IRM)."""

from typing import Literal

from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, OptimizerFactory
from gga_lightning.algorithms.ib_erm import IBERM
from gga_lightning.algorithms.irm import scale_penalty
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["IBIRM"]


class IBIRM(IBERM):
    """Adds the penalty of IRM to the objective of IB-ERM.

    With L_e the mean cross-entropy of domain e, P_e its penalty in
    :class:`gga_lightning.algorithms.IRM` and V_e its mean variance in :class:`IBERM`, the
    objective is the mean over the domains of

        L_e + irm_weight * P_e + penalty_weight * V_e.

    Either weight has its own annealing step. The optimizer's state is cleared at both.

    Source: Ahuja et al., NeurIPS 2021, arXiv 2106.06607. As in DomainBed; see :class:`IBERM` for
    the difference between the paper and its code.

    Example:
        A multiplier does not change logits of 0. IRM's penalty is then 0, and the loss is log(2):

        >>> import torch
        >>> from gga_lightning.backbones import MLP
        >>> model = IBIRM(MLP((4,)), num_classes=2, irm_weight=100.0, irm_anneal_steps=0)
        >>> logits, targets = torch.zeros(2, 2), torch.tensor([0, 1])
        >>> round(float(model.domain_objective(logits, targets)), 4)
        0.6931
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        penalty_weight: float = 100.0,
        anneal_steps: int = 500,
        irm_weight: float = 100.0,
        irm_anneal_steps: int = 500,
        of: Literal["features", "logits"] = "features",
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            penalty_weight: The variance's weight from ``anneal_steps`` on; 0 before. Not negative.
            anneal_steps: The optimizer step from which on the variance is penalized.
            irm_weight: The weight of IRM's penalty from ``irm_anneal_steps`` on; 1 before. Not
                negative.
            irm_anneal_steps: The optimizer step from which on this weight holds; not negative.
            of: Whose variance: that of the ``"features"`` or of the ``"logits"``.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(
            featurizer,
            num_classes,
            penalty_weight=penalty_weight,
            anneal_steps=anneal_steps,
            of=of,
            optimizer=optimizer,
            task=task,
        )
        for name, value in (("irm_weight", irm_weight), ("irm_anneal_steps", irm_anneal_steps)):
            if not value >= 0:
                raise ValueError(f"`{name}` must not be negative, got {value}.")
        self.irm_weight = irm_weight
        self.irm_anneal_steps = irm_anneal_steps

    @property
    def change_steps(self) -> tuple[int, ...]:
        """The steps at which the objective changes."""
        return (self.anneal_steps, self.irm_anneal_steps)

    def domain_objective(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Computes a domain's part of the objective without the variance.

        Args:
            logits: Shape ``(N, num_classes)``, N at least 2.
            targets: The classes, shape ``(N,)``.

        Returns:
            The mean cross-entropy and the weighted penalty of IRM, a scalar.
        """
        annealed = self.global_step >= self.irm_anneal_steps
        weight = self.irm_weight if annealed else 1.0
        loss = super().domain_objective(logits, targets)
        return loss + weight * scale_penalty(logits, targets, self.task)
