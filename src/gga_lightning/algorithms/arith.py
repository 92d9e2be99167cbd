"""Arith: gradient matching by a step toward the mean of a walk over the domains."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains
from gga_lightning.algorithms.manual import ManualGeneralizer
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["Arith"]


class Arith(ManualGeneralizer):
    """Moves toward the mean of the points that a walk over the domains visits.

    Starting at the parameters theta_0, the walk makes one step of gradient descent for each of the
    D domains, in a random order: theta_k = theta_{k-1} - inner_lr * g_k, with g_k the gradient of
    the k-th domain's risk at theta_{k-1}. The optimizer then makes one step at theta_0 by

        sum over k of w_k g_k,    w_k = 2 (D + 1 - k) / (D + 1).

    Earlier gradients have larger weights, and the weights have mean 1. This gradient is 2 D / (D +
    1) times (theta_0 - mean of theta_1, ..., theta_D) / inner_lr. The step is therefore toward the
    mean of the points of the walk; Fish goes toward the last point. With one domain it is ERM. The
    gradient is a sum over the domains, about D times that of ERM. Adam does not depend on such a
    factor.

    Source: Wang, Zhang, Qi & Shi, 2025, arXiv 2503.18987, with a domain for each task (the authors
    combine domains with groups of classes). Their code divides the gradient by the inner learning
    rate, which makes it 100 times as long; Adam hides that as well.

    Example:
        Adam makes one step from the start of the walk, of 0.001 in each coordinate:

        >>> from lightning.pytorch import Trainer
        >>> from torch.utils.data import DataLoader
        >>> from gga_lightning.backbones import MLP
        >>> x, y = torch.ones(1, 4), torch.tensor([0])
        >>> model = Arith(MLP((4,)), num_classes=2, inner_lr=0.01)
        >>> before = model.classifier.bias.detach().clone()
        >>> train = DataLoader([{"a": (x, y), "b": (x, y), "c": (x, y)}], batch_size=None)
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
        inner_lr: float = 0.01,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            inner_lr: The learning rate of the walk; positive.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``inner_lr`` is not positive.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not inner_lr > 0:
            raise ValueError(f"`inner_lr` must be positive, got {inner_lr}.")
        self.inner_lr = inner_lr

    def update(self, batch: Batch) -> Tensor:
        """Walks over the domains and makes a step from the start.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, to be logged.
        """
        require_domains(batch, "Arith", domains=1)
        start = [param.detach().clone() for param in self.trained]
        total = [torch.zeros_like(param) for param in start]
        parts = list(batch.values())
        order = self.from_first_process(torch.randperm(len(parts))).tolist()
        losses: list[Tensor] = []
        for place, index in enumerate(order):
            loss = self.domain_loss(parts[index])
            losses.append(loss.detach())
            weight = 2 * (len(parts) - place) / (len(parts) + 1)
            with torch.no_grad():
                for param, own, gradient in zip(
                    self.trained, total, self.gradient(loss), strict=True
                ):
                    own.add_(gradient, alpha=weight)
                    param.sub_(gradient, alpha=self.inner_lr)
        with torch.no_grad():
            for param, old in zip(self.trained, start, strict=True):
                param.copy_(old)
        self.step(total)
        return torch.stack(losses).mean()
