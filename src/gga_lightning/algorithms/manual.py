"""Base of the algorithms that compute gradients, or make steps, by themselves."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, Batch, DomainGeneralizer, OptimizerFactory
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["ManualGeneralizer"]


class ManualGeneralizer(DomainGeneralizer, ABC):
    """Trains by the steps that :meth:`update` makes, instead of minimizing :meth:`objective`.

    There is one optimizer, and the trainer counts every update as one step, whatever it does.
    Callbacks' windows and checkpoints therefore mean the same as with other algorithms. If only
    some of the parameters get a gradient, the others and their part of the optimizer's state stay
    unchanged, as if each had its own optimizer.

    Gradients are averaged over the processes before the update uses them. Several processes
    therefore do what one process does on the joined batch. Lightning refuses gradient accumulation
    and clipping here. :meth:`setup` refuses float16, because its loss scaling expects one gradient
    per step.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> class OwnSteps(ManualGeneralizer):  # makes the steps of ERM by itself
        ...     def update(self, batch):
        ...         loss = self.objective(batch)
        ...         self.step(self.gradient(loss))
        ...         return loss
        >>> OwnSteps(MLP((2,)), num_classes=2).automatic_optimization
        False
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        self.automatic_optimization = False

    @abstractmethod
    def update(self, batch: Batch) -> Tensor:
        """Trains on a batch.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, to be logged.
        """

    def setup(self, stage: str) -> None:
        """Checks source domains, precision and strategy."""
        super().setup(stage)
        if stage != "fit" or self.automatic_optimization:
            return
        name, strategy = type(self).__name__, self.trainer.strategy
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise MisconfigurationException(
                f"{name} computes several gradients a step, which float16's loss scaling does not "
                f"allow, got precision={self.trainer.precision!r}. Take 'bf16-mixed' or '32-true'."
            )
        plain = isinstance(strategy, SingleDeviceStrategy | DDPStrategy)
        if not plain or isinstance(strategy, DeepSpeedStrategy):
            raise MisconfigurationException(
                f"{name} needs all parameters on every process, so it works with a single device "
                f"and with DDP, got {type(strategy).__name__}."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Trains on a batch and logs the loss."""
        loss = self.update(batch)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=1)

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [param for param in self.parameters() if param.requires_grad]

    def gradient(self, loss: Tensor, params: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Differentiates a loss.

        Args:
            loss: A scalar with a graph, which is freed.
            params: The parameters to differentiate with respect to; all trained ones if None.

        Returns:
            The gradient in each of these parameters, averaged over the processes.
        """
        params = self.trained if params is None else params
        found = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
        if self.trainer.world_size == 1:
            return list(found)
        flat = self.mean_over_processes(torch.cat([part.flatten() for part in found]))
        parts = flat.split([part.numel() for part in found])
        return [part.view_as(like) for part, like in zip(parts, found, strict=True)]

    def domain_gradients(self, batch: Batch) -> tuple[Tensor, list[list[Tensor]]]:
        """Differentiates each domain's risk, domain after domain.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The mean risk, without a graph, and each domain's gradient.
        """
        losses, gradients = [], []
        for part in batch.values():
            loss = self.domain_loss(part)
            losses.append(loss.detach())
            gradients.append(self.gradient(loss))
        return torch.stack(losses).mean(), gradients

    def step(
        self,
        gradients: Iterable[Tensor],
        params: Sequence[nn.Parameter] | None = None,
        *,
        counts: bool = True,
    ) -> None:
        """Makes a step of the optimizer.

        Args:
            gradients: A tensor for each of the parameters.
            params: The parameters that move; all trained ones if None.
            counts: Whether this is the update's one step that the trainer counts and callbacks
                see.
        """
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.zero_grad()
        for param, gradient in zip(params or self.trained, gradients, strict=True):
            param.grad = gradient
        (optimizer if counts else optimizer.optimizer).step()

    @contextlib.contextmanager
    def displaced(
        self, direction: Sequence[Tensor], length: Tensor | float
    ) -> Generator[None, None, None]:
        """Displaces the trained parameters while the body of the ``with`` statement runs.

        Running statistics of normalization layers, which belong to the parameters, are not
        updated meanwhile.

        Args:
            direction: A tensor for each trained parameter.
            length: Factor on the direction.

        Yields:
            Nothing.
        """
        params = self.trained
        start = [param.detach().clone() for param in params]
        tracking: list[Any] = [
            module for module in self.modules() if getattr(module, "track_running_stats", False)
        ]
        try:
            with torch.no_grad():
                for param, part in zip(params, direction, strict=True):
                    param.add_(part * length)
            for module in tracking:
                module.track_running_stats = False
            yield
        finally:
            for module in tracking:
                module.track_running_stats = True
            with torch.no_grad():
                for param, value in zip(params, start, strict=True):
                    param.copy_(value)

    def from_first_process(self, drawn: Tensor) -> Tensor:
        """Gives all processes the random numbers of the first process.

        Args:
            drawn: This process's random numbers, a tensor on the CPU.

        Returns:
            The first process's random numbers.
        """
        if self.trainer.world_size == 1:
            return drawn
        return self.trainer.strategy.broadcast(drawn)
