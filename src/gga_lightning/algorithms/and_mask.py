"""AND-mask: gradients only where the domains' gradients agree in sign."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains
from gga_lightning.algorithms.manual import ManualGeneralizer
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["ANDMask"]


class ANDMask(ManualGeneralizer):
    """Masks the mean gradient where the signs of the domains' gradients disagree.

    A coordinate is kept where the absolute mean of the domains' signs is at least ``tau``. Each
    parameter tensor's gradient is divided by the share of its coordinates that are kept.
    Coordinates with gradient 0 still move by Adam's momentum and by weight decay, as in the paper's
    code; see :class:`gga_lightning.GradientAgreementVoting` for a mask on the update itself.

    Source: Parascandolo et al., ICLR 2021, arXiv 2009.00329, and its code.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = ANDMask(MLP((2,)), num_classes=2, tau=1.0)
        >>> gradients = [[torch.tensor([1.0, 2.0])], [torch.tensor([3.0, -1.0])]]
        >>> model.domain_gradients = lambda batch: (torch.tensor(0.7), gradients)  # of two domains
        >>> model.step = lambda gradient: print(*gradient)  # instead of the optimizer's step
        >>> loss = model.update({name: (torch.eye(2), torch.tensor([0, 1])) for name in ("a", "b")})
        tensor([4., 0.])
    """

    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        tau: float = 1.0,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            tau: The smallest absolute mean of the signs with which a coordinate is kept, in [0, 1].
                With 1, all signs must agree.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``tau`` is out of range.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not 0 <= tau <= 1:
            raise ValueError(f"`tau` must be in [0, 1], got {tau}.")
        self.tau = tau

    def update(self, batch: Batch) -> Tensor:
        """Makes a step.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, to be logged.
        """
        require_domains(batch, type(self).__name__)
        loss, gradients = self.domain_gradients(batch)
        self.step(self._masked(torch.stack(parts)) for parts in zip(*gradients, strict=True))
        return loss

    def _masked(self, gradients: Tensor) -> Tensor:
        """The mean of a parameter's gradients, shape (D, ...), where they agree."""
        kept = (gradients.sign().mean(0).abs() >= self.tau).to(gradients)
        return kept * gradients.mean(0) / (1e-10 + kept.mean())
