"""Fish: gradient matching by steps from domain to domain."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains
from gga_lightning.algorithms.manual import ManualGeneralizer
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["Fish"]


class Fish(ManualGeneralizer):
    """Matches the domains' gradients by a walk over the domains, of which it keeps a part.

    The optimizer makes one step for each domain, in a random order that is drawn anew for each
    batch. The update ends at theta_0 + meta_lr * (theta_D - theta_0), with theta_0 the parameters
    before the walk and theta_D those after it. To second order, this raises the inner products
    between the domains' gradients. The trainer counts the whole update as one step, and callbacks
    that change gradients (GGA-L) see the last domain's.

    Source: Shi et al., ICLR 2022, arXiv 2104.09937, Algorithm 1, with the user's optimizer for the
    walk. DomainBed keeps a fixed order of the domains and interpolates running statistics too.

    Example:
        Adam makes two steps of about 0.001 on equal domains, of which Fish keeps half:

        >>> from lightning.pytorch import Trainer
        >>> from torch.utils.data import DataLoader
        >>> from gga_lightning.backbones import MLP
        >>> x, y = torch.ones(1, 4), torch.tensor([0])
        >>> model = Fish(MLP((4,)), num_classes=2, meta_lr=0.5)
        >>> before = model.classifier.bias.detach().clone()
        >>> train = DataLoader([{"a": (x, y), "b": (x, y)}], batch_size=None)
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = Trainer(fast_dev_run=True, accelerator="cpu", **quiet)
        >>> trainer.fit(model, train, DataLoader([(x, y)], batch_size=None))
        >>> [round(change, 4) for change in (model.classifier.bias - before).tolist()]
        [0.001, -0.001]
    """

    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        meta_lr: float = 0.5,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            meta_lr: The part of the walk that is kept, in (0, 1].
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``meta_lr`` is out of range.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not 0 < meta_lr <= 1:
            raise ValueError(f"`meta_lr` must be in (0, 1], got {meta_lr}.")
        self.meta_lr = meta_lr

    def update(self, batch: Batch) -> Tensor:
        """Walks over the domains, and keeps a part of the walk.

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
