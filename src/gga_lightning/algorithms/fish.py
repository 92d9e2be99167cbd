"""Fish: matches the domains' gradients by sequential steps on the domains."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains
from gga_lightning.algorithms.manual import ManualGeneralizer

__all__ = ["Fish"]


class Fish(ManualGeneralizer):
    """Trains on the domains one after the other, and keeps a share of the resulting move.

    An update starts at the parameters theta. The optimizer makes one step on each domain, in a
    random order, and reaches theta'. The update then ends at

        theta + meta_lr * (theta' - theta).

    To second order in the step size, this raises the inner products between the domains'
    gradients. The trainer counts the whole update as one step. Callbacks that change gradients
    (GGA-L) see the gradient of the last domain.

    Source: Shi et al., ICLR 2022, arXiv 2104.09937, Algorithm 1. The inner steps use the user's
    optimizer. DomainBed keeps the domains in a fixed order, and also interpolates the running
    statistics of normalization layers.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from gga_lightning.backbones import MLP
        >>> from gga_lightning.data import DomainDataModule, Toy
        >>> model = Fish(MLP((2,)), num_classes=2, meta_lr=0.5)
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = Trainer(fast_dev_run=1, **quiet)
        >>> trainer.fit(model, DomainDataModule(Toy()))
        >>> trainer.global_step  # the steps on both domains count as one
        1
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        meta_lr: float = 0.5,
        optimizer: OptimizerFactory = ADAM,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            meta_lr: The share of the move that is kept, in (0, 1].
            optimizer: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``meta_lr`` is out of range.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer)
        if not 0 < meta_lr <= 1:
            raise ValueError(f"`meta_lr` must be in (0, 1], got {meta_lr}.")
        self.meta_lr = meta_lr

    def update(self, batch: Batch) -> Tensor:
        """Makes a step on each domain, and keeps a share of the whole move.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, to be logged.
        """
        require_domains(batch, "Fish")
        start = [param.detach().clone() for param in self.trained]
        parts = list(batch.values())
        order = self.from_first_process(torch.randperm(len(parts))).tolist()
        losses = []
        for index in order:
            loss = self.domain_loss(parts[index])
            losses.append(loss.detach())
            self.step(self.gradient(loss), counts=index == order[-1])
        with torch.no_grad():
            for param, old in zip(self.trained, start, strict=True):
                param.copy_(torch.lerp(old, param, self.meta_lr))
        return torch.stack(losses).mean()
