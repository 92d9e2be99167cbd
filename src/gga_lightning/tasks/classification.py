"""One class for each sample."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from gga_lightning.tasks.predictions import Prediction
from gga_lightning.tasks.task import Task

__all__ = ["CLASSIFICATION", "Classification"]


class Classification(Task):
    """Predicts one of several classes, by the mean cross-entropy and the accuracy (``acc``).

    Outputs are one logit for each class, and targets the classes' numbers, shape ``(N,)``.

    Example:
        >>> import torch
        >>> logits, targets = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])
        >>> metric = CLASSIFICATION.make_metric(2)
        >>> metric(*CLASSIFICATION.comparable(logits, targets))
        tensor(0.5000)
    """

    name = "classification"
    metric = "acc"
    metric_title = "accuracy"
    offers = frozenset({"classes", "logits", "vectors"})

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the cross-entropies; see :meth:`Task.losses`."""
        return functional.cross_entropy(outputs, targets, reduction="none")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the mean cross-entropy; see :meth:`Task.loss`."""
        return functional.cross_entropy(outputs, targets)

    def errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes probabilities minus one-hot targets; see :meth:`Task.errors`."""
        return outputs.softmax(1) - functional.one_hot(targets, outputs.shape[1])

    def scale_slope(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Differentiates the mean cross-entropy in a factor; see :meth:`Task.scale_slope`."""
        own = outputs.gather(1, targets[:, None]).squeeze(1)
        return ((outputs.softmax(1) * outputs).sum(1) - own).mean()

    def make_metric(self, outputs: int) -> Metric:
        """Makes the accuracy over all samples; see :meth:`Task.make_metric`."""
        return MulticlassAccuracy(outputs, average="micro")

    def check(self, targets: Tensor, outputs: int, where: str) -> None:
        """Checks that there is a class for each sample; see :meth:`Task.check`."""
        whole = not targets.is_floating_point() and not targets.is_complex()
        if targets.ndim != 1 or not whole or _outside(targets, outputs):
            rule = f"integers from 0 to {outputs - 1}, one for each sample,"
            self._refuse(targets, where, rule)

    def predictions(
        self, outputs: Tensor, classes: Sequence[str], sources: Sequence[str | None]
    ) -> list[Prediction]:
        """Finds the most probable classes; see :meth:`Task.predictions`."""
        found: list[Prediction] = []
        for source, probabilities in zip(sources, outputs.softmax(1).tolist(), strict=True):
            best: int = probabilities.index(max(probabilities))
            named = dict(zip(classes, probabilities, strict=True))
            found.append(Prediction(classes[best], probabilities[best], named, source))
        return found


def _outside(targets: Tensor, outputs: int) -> bool:
    return bool(((targets < 0) | (targets >= outputs)).any())


CLASSIFICATION = Classification()
"""The task of a model that is given none."""
