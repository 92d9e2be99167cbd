"""Base of CAD and CondCAD: a contrastive term that mixes the domains' samples."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from gga_lightning.algorithms.base import (
    ADAM,
    Batch,
    DomainGeneralizer,
    OptimizerFactory,
    pool,
    require_domains,
)
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["ContrastiveBottleneck"]

_BASE_TEMPERATURE = 0.07


class ContrastiveBottleneck(DomainGeneralizer, ABC):
    """Minimizes the mean loss and a contrastive term that is small where domains are mixed.

    With z_i the features of sample i, T the temperature and s_ij = z_i . z_j / T, the term of
    sample i is

        -(T / 0.07) log (sum over P_i of exp(s_ij) / sum over K_i of exp(s_ij)).

    The candidates K_i are other samples of the batch, and P_i are those candidates that come from
    another domain than i. The penalty is the mean over the samples that take part.
    Features are not normalized by default. If they are long, the sums have nearly one term.

    Source: Ruan, Dubois & Maddison, ICLR 2022, arXiv 2201.00057, its domain bottleneck, in the form
    of DomainBed with ``is_flipped=True`` (the only one in DomainBed's searches). DomainBed's other
    form counts i itself among the candidates in its numerator, and its projection raises an error;
    neither is here.

    Example:
        >>> from gga_lightning.algorithms import CAD, CondCAD
        >>> from gga_lightning.backbones import MLP
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> targets, domains = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1])
        >>> CAD(MLP((2,)), num_classes=2).mixing(features, targets, domains).item() > 0
        True
        >>> CondCAD(MLP((2,)), num_classes=2).mixing(features, targets, domains)
        tensor(0.)
    """

    needs = ("vectors",)
    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        penalty_weight: float = 0.1,
        temperature: float = 0.1,
        normalize: bool = False,
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
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not penalty_weight >= 0:
            raise ValueError(f"`penalty_weight` must not be negative, got {penalty_weight}.")
        if not temperature > 0:
            raise ValueError(f"`temperature` must be positive, got {temperature}.")
        self.penalty_weight = penalty_weight
        self.temperature = temperature
        self.normalize = normalize

    @abstractmethod
    def choose(self, same_class: Tensor, same_domain: Tensor) -> tuple[Tensor, Tensor]:
        """Chooses the candidates and the samples that take part.

        Args:
            same_class: Whether two samples have the same class, shape ``(N, N)``; False on the
                diagonal, and everywhere if the task has no classes.
            same_domain: Whether two samples have the same domain, shape ``(N, N)``; True on the
                diagonal.

        Returns:
            Whether j is a candidate of i, shape ``(N, N)``, False on the diagonal; and whether i
            takes part, shape ``(N,)``, which needs a candidate from another domain.
        """

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss over all samples and the contrastive term.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        require_domains(batch, type(self).__name__)
        inputs, targets = pool(batch)
        features = self.featurizer(inputs)
        loss = self.task.loss(self.classifier(features), targets)
        sizes = torch.tensor([len(own) for _, own in batch.values()])
        domains = torch.arange(len(batch)).repeat_interleave(sizes).to(targets.device)
        return loss + self.penalty_weight * self.mixing(features, targets, domains)

    def mixing(self, features: Tensor, targets: Tensor, domains: Tensor) -> Tensor:
        """Computes the contrastive term.

        Args:
            features: Shape ``(N, F)``.
            targets: The classes, shape ``(N,)``.
            domains: The domains' indices, shape ``(N,)``.

        Returns:
            A scalar; 0 if no sample takes part.
        """
        same_domain = domains[:, None] == domains[None, :]
        same_class = torch.zeros_like(same_domain)
        if "classes" in self.task.offers:
            same_class = (targets[:, None] == targets[None, :]).fill_diagonal_(False)
        candidates, taking_part = self.choose(same_class, same_domain)
        with torch.autocast(features.device.type, enabled=False):  # products have large exponents
            wide = features.to(torch.promote_types(features.dtype, torch.float32))
            if self.normalize:
                wide = functional.normalize(wide, dim=1)
            # rows without candidates would have a gradient of NaN
            products = (wide @ wide.T / self.temperature)[taking_part]
            among, other = candidates[taking_part], (candidates & ~same_domain)[taking_part]
            above = products.masked_fill(~other, -torch.inf).logsumexp(1)
            below = products.masked_fill(~among, -torch.inf).logsumexp(1)
            terms = (self.temperature / _BASE_TEMPERATURE) * (below - above)
            return terms.sum() / max(len(terms), 1)
