"""Jacobian descent: the domains as several objectives (PCGrad, CAGrad, MGDA, UPGrad, ...)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains
from gga_lightning.algorithms.manual import ManualGeneralizer
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["JacobianDescent"]


class JacobianDescent(ManualGeneralizer):
    """Combines the domains' gradients so that a step for one domain does not undo that for another.

    The domains' gradients are the rows of a Jacobian, of which an aggregator of TorchJD makes one
    vector. The aggregators of TorchJD need the extra ``jacobian``.

    Source: Quinton & Rey, arXiv 2406.16232 (Jacobian descent, UPGrad), and TorchJD's documentation
    for the other aggregators' papers. Sener & Koltun, NeurIPS 2018 (MGDA); Yu et al., NeurIPS
    2020 (PCGrad); Liu et al., NeurIPS 2021 (CAGrad).

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> def lowest(jacobian):  # takes each coordinate of the smallest size
        ...     return jacobian.gather(0, jacobian.abs().argmin(0, keepdim=True))[0]
        >>> model = JacobianDescent(MLP((2,)), num_classes=2, aggregator=lowest)
        >>> model.aggregator(torch.tensor([[1.0, -2.0], [3.0, 0.5]]))  # a row for each domain
        tensor([1.0000, 0.5000])
    """

    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        aggregator: str | Callable[[Tensor], Tensor] = "UPGrad",
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            aggregator: The name of one in ``torchjd.aggregation`` that needs no settings, such as
                ``"UPGrad"``, ``"PCGrad"``, ``"MGDA"``, ``"AlignedMTL"`` or ``"Mean"``; or an
                aggregator, such as ``CAGrad(c=0.5)``: any callable from a matrix, shape
                ``(D, P)``, to a vector, shape ``(P,)``.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If there is no such aggregator.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        self.aggregator = _named(aggregator) if isinstance(aggregator, str) else aggregator
        if not callable(self.aggregator):
            raise ValueError(
                "`aggregator` must be a name or a callable from a matrix to a vector, "
                f"got {aggregator!r}."
            )

    def update(self, batch: Batch) -> Tensor:
        """Makes a step.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, to be logged.
        """
        require_domains(batch, "JacobianDescent")
        loss, gradients = self.domain_gradients(batch)
        jacobian = torch.stack([torch.cat([g.flatten() for g in own]) for own in gradients])
        with torch.autocast(jacobian.device.type, enabled=False):
            combined = self.aggregator(jacobian)
        sizes = [param.numel() for param in self.trained]
        parts = zip(combined.split(sizes), self.trained, strict=True)
        self.step(part.view_as(param) for part, param in parts)
        return loss


def _named(name: str) -> Callable[[Tensor], Tensor]:
    """Makes an aggregator of TorchJD."""
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise ImportError(
            "JacobianDescent needs TorchJD: pip install 'gga-lightning[jacobian]'."
        ) from error
    known = [n for n in aggregation.__all__ if not n.endswith(("Weighting", "Aggregator"))]
    if name not in known:
        raise ValueError(f"`aggregator` must be one of {known} or a callable, got {name!r}.")
    try:
        return getattr(aggregation, name)()
    except TypeError as error:
        raise ValueError(
            f"`aggregator={name!r}` needs settings ({error}): give the aggregator itself, such as "
            "torchjd.aggregation.CAGrad(c=0.5)."
        ) from error
    except ImportError as error:
        raise ImportError(
            f"The aggregator {name} needs more than is installed ({error}): "
            "pip install 'gga-lightning[jacobian]'."
        ) from error
