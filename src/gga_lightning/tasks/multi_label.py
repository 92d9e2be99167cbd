"""Several labels for each sample."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.classification import MultilabelF1Score

from gga_lightning.tasks.predictions import LabelsPrediction
from gga_lightning.tasks.task import Task

__all__ = ["MultiLabel"]


class MultiLabel(Task):
    """Predicts which of several labels apply: binary cross-entropy, and the macro F1 (``f1``).

    Outputs are one logit for each of K labels. Targets have shape ``(N, K)``: 1 where a label
    applies, else 0. A sample's loss is the mean over its labels. The metric is the F1 score of
    each label at a probability of 0.5, averaged over the labels.

    Example:
        >>> task = MultiLabel()
        >>> logits, targets = torch.tensor([[2.0, -2.0]]), torch.tensor([[1, 1]])
        >>> task.losses(logits, targets)
        tensor([1.1269])
        >>> task.predictions(logits.double(), ["cat", "dog"], [None])[0].labels
        ['cat']
    """

    name = "multi_label"
    metric = "f1"
    metric_title = "F1"
    offers = frozenset({"logits", "vectors"})

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the mean binary cross-entropy of each sample; see :meth:`Task.losses`."""
        if outputs.shape != targets.shape:
            self._refuse(targets, "a batch", f"0 or 1, of the outputs' shape {outputs.shape},")
        wide = torch.promote_types(outputs.dtype, torch.float32)
        found = functional.binary_cross_entropy_with_logits(
            outputs.to(wide), targets.to(wide), reduction="none"
        )
        return found.mean(1)

    def make_metric(self, outputs: int) -> Metric:
        """Makes the F1 score, the mean over the labels; see :meth:`Task.make_metric`."""
        return MultilabelF1Score(outputs)

    def comparable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Computes probabilities; see :meth:`Task.comparable`."""
        # torchmetrics would take logits that happen to be in [0, 1] for probabilities
        return outputs.float().sigmoid(), targets.long()

    def check(self, targets: Tensor, outputs: int, where: str) -> None:
        """Checks that each label applies or not; see :meth:`Task.check`."""
        right = targets.ndim == 2 and targets.shape[1] == outputs
        if not right or not bool(((targets == 0) | (targets == 1)).all()):
            self._refuse(targets, where, f"0 or 1, of shape (N, {outputs}),")

    def predictions(
        self, outputs: Tensor, classes: Sequence[str], sources: Sequence[str | None]
    ) -> list[LabelsPrediction]:
        """Finds the probable labels; see :meth:`Task.predictions`."""
        found: list[LabelsPrediction] = []
        for source, probabilities in zip(sources, outputs.sigmoid().tolist(), strict=True):
            named = dict(zip(classes, probabilities, strict=True))
            labels = [name for name, probability in named.items() if probability >= 0.5]
            found.append(LabelsPrediction(labels, named, source))
        return found
