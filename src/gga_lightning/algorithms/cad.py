"""Contrastive adversarial domain bottleneck (CAD)."""

from typing import Literal

from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, OptimizerFactory
from gga_lightning.algorithms.contrastive_bottleneck import ContrastiveBottleneck
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["CAD"]


class CAD(ContrastiveBottleneck):
    """Mixes the domains' features by a contrastive term among all samples.

    The candidates of a sample are all other samples of the batch; see
    :class:`gga_lightning.algorithms.contrastive_bottleneck.ContrastiveBottleneck` for the term and
    the source. CAD does not need classes for it. DomainBed leaves out the samples whose class does
    not occur again in the batch, which is ``anchors="repeated"``.

    Example:
        >>> import torch
        >>> from gga_lightning.backbones import MLP
        >>> model = CAD(MLP((2,)), num_classes=2)
        >>> targets, domains = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1])
        >>> apart = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> mixed = apart[[0, 2, 1, 3]]  # both domains have the same features
        >>> (model.mixing(mixed, targets, domains) < model.mixing(apart, targets, domains)).item()
        True
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        penalty_weight: float = 0.1,
        temperature: float = 0.1,
        normalize: bool = False,
        anchors: Literal["all", "repeated"] = "all",
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            penalty_weight: The term's weight; not negative.
            temperature: What products of features are divided by (T); positive.
            normalize: Whether features are scaled to length 1 in the term.
            anchors: The samples that take part: ``"all"``, or ``"repeated"`` for those whose class
                another sample of the batch has.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(
            featurizer,
            num_classes,
            penalty_weight=penalty_weight,
            temperature=temperature,
            normalize=normalize,
            optimizer=optimizer,
            task=task,
        )
        if anchors == "repeated" and "classes" not in task.offers:
            raise ValueError(
                f"`anchors` must be 'all' for the task {task.name}, which has no class for each "
                "sample, got 'repeated'."
            )
        if anchors not in ("all", "repeated"):
            raise ValueError(f"`anchors` must be 'all' or 'repeated', got {anchors!r}.")
        self.anchors = anchors

    def choose(self, same_class: Tensor, same_domain: Tensor) -> tuple[Tensor, Tensor]:
        """Chooses the candidates and the samples that take part."""
        candidates = same_domain.new_ones(same_domain.shape).fill_diagonal_(False)
        taking_part = (~same_domain).any(1)
        if self.anchors == "repeated":
            taking_part = taking_part & same_class.any(1)
        return candidates, taking_part
