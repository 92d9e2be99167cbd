"""What all tasks share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from gga_lightning.tasks.predictions import AnyPrediction

__all__ = ["Task"]


class Task(ABC):
    """Says what the targets are, what a model loses on them, and how good its outputs are.

    A task has no state: the same object serves any number of models. A task of your own is a
    subclass that sets the class attributes and implements the abstract methods.

    Attributes:
        name: What the task is called in results, and in the Hydra group ``task``.
        metric: The name of its metric in logs and results: a model logs ``val/<domain>/<metric>``.
        metric_title: The metric's name in tables.
        higher_is_better: Whether the best value of the metric is the highest.
        in_percent: Whether the metric is in [0, 1], and shown in percent.
        offers: What an algorithm can rely on, see
            :attr:`gga_lightning.algorithms.DomainGeneralizer.needs`: ``"classes"``, one class
            for each sample; ``"logits"``, outputs that are logits; ``"vectors"``, features that
            are one vector for each sample.

    Example:
        >>> from gga_lightning.tasks import Regression
        >>> Regression().metric, Regression().higher_is_better
        ('rmse', False)
    """

    name: ClassVar[str]
    metric: str
    metric_title: str
    higher_is_better: bool = True
    in_percent: bool = True
    offers: ClassVar[frozenset[str]] = frozenset()

    @property
    def dense(self) -> bool:
        """Whether there is an output for each position of an input, from feature maps."""
        return "vectors" not in self.offers

    def make_classifier(self, featurizer: nn.Module, features: int, outputs: int) -> nn.Linear:
        """Makes the layer from features to outputs.

        Args:
            featurizer: The module that computes the features.
            features: How many features it gives, for each sample or for each position.
            outputs: How many outputs there are: classes, labels or values.

        Returns:
            A linear layer.

        Raises:
            ValueError: If the featurizer gives feature maps where vectors are needed, or the
                other way round.
        """
        if getattr(featurizer, "out_stride", None) is not None:
            raise ValueError(
                f"`featurizer` must give one feature vector for each sample for the task "
                f"{self.name}, got {type(featurizer).__name__} with `dense=True`, which gives maps."
            )
        return nn.Linear(features, outputs)

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes each sample's loss.

        Args:
            outputs: The model's, with the samples in the first dimension.
            targets: As many targets.

        Returns:
            Shape ``(N,)``.
        """

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the mean loss, whose gradients the callbacks compare between domains.

        Args:
            outputs: The model's, with the samples in the first dimension.
            targets: As many targets.

        Returns:
            A scalar.
        """
        return self.losses(outputs, targets).mean()

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Differentiates each sample's loss in its outputs.

        Args:
            outputs: The model's, with the samples in the first dimension.
            targets: As many targets.

        Returns:
            The shape of the outputs, with a graph.
        """
        with torch.enable_grad():
            seen = outputs if outputs.requires_grad else outputs.detach().requires_grad_()
            total = self.losses(seen, targets).sum()
            return torch.autograd.grad(total, seen, create_graph=True)[0]

    def scale_slope(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Differentiates the mean loss in a factor on the outputs, at the factor 1.

        Args:
            outputs: The model's, with the samples in the first dimension.
            targets: As many targets.

        Returns:
            A scalar, with a graph.
        """
        return (self.errors(outputs, targets) * outputs).flatten(1).sum(1).mean()

    @abstractmethod
    def make_metric(self, outputs: int) -> Metric:
        """Makes the metric of an evaluation.

        Args:
            outputs: How many outputs there are.

        Returns:
            A metric that is updated with what :meth:`comparable` gives, and with targets.
        """

    def comparable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Prepares outputs and targets for the metric.

        Args:
            outputs: The model's.
            targets: As many targets.

        Returns:
            What the metric is updated with; outputs and targets unless a subclass overrides it.
        """
        return outputs, targets

    @abstractmethod
    def check(self, targets: Tensor, outputs: int, where: str) -> None:
        """Checks targets, before a training.

        Args:
            targets: Some or all targets of a domain, with the samples in the first dimension.
            outputs: How many outputs the model has.
            where: What the targets belong to, for the message.

        Raises:
            ValueError: If the task cannot use such targets.
        """

    @abstractmethod
    def predictions(
        self, outputs: Tensor, classes: Sequence[str], sources: Sequence[str | None]
    ) -> Sequence[AnyPrediction]:
        """Turns outputs into predictions.

        Args:
            outputs: The model's outputs of N samples, float64 on the CPU.
            classes: The outputs' names.
            sources: Each sample's file as a path, or None.

        Returns:
            N predictions.
        """

    def _refuse(self, targets: Tensor, where: str, rule: str) -> None:
        """Raises the error that targets do not follow a rule."""
        raise ValueError(
            f"the targets of {where} must be {rule} for the task {self.name}, got a tensor of "
            f"{str(targets.dtype).removeprefix('torch.')} of shape {tuple(targets.shape)}"
            f"{_extent(targets)}. Choose the task by `task=...`."
        )


def _extent(targets: Tensor) -> str:
    """The range of the values, if there is one."""
    if not targets.numel() or targets.is_complex():
        return ""
    return f" with values from {targets.min().item():g} to {targets.max().item():g}"
