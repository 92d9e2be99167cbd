"""Numbers for each sample."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, R2Score

from gga_lightning.tasks.predictions import ValuesPrediction
from gga_lightning.tasks.task import Task

__all__ = ["Regression"]

_TITLES = {"rmse": "RMSE", "mae": "MAE", "r2": "R2"}


class Regression(Task):
    """Predicts numbers: the squared or absolute error, and one of three metrics.

    Outputs are K numbers. Targets have shape ``(N, K)``, or ``(N,)`` for a single number. A
    sample's loss is the mean over its numbers. Targets are not scaled: divide them by their
    standard deviation beforehand if they are far from the size of 1.

    Example:
        >>> task = Regression()
        >>> outputs, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 3.0])
        >>> task.loss(outputs, targets)
        tensor(0.5000)
        >>> metric = task.make_metric(1)
        >>> metric(*task.comparable(outputs, targets))
        tensor(0.7071)
    """

    name = "regression"
    offers = frozenset({"vectors"})

    def __init__(
        self,
        loss: Literal["squared", "absolute"] = "squared",
        metric: Literal["rmse", "mae", "r2"] = "rmse",
    ) -> None:
        """Sets loss and metric.

        Args:
            loss: The error that is minimized: ``"squared"`` or ``"absolute"``.
            metric: What is logged and selects: ``"rmse"``, the root of the mean squared error;
                ``"mae"``, the mean absolute error; ``"r2"``, the coefficient of determination,
                the mean over the numbers, which is 1 at best and needs two samples.

        Raises:
            ValueError: If there is no such loss or metric.
        """
        if loss not in ("squared", "absolute"):
            raise ValueError(f"`loss` must be 'squared' or 'absolute', got {loss!r}.")
        if metric not in _TITLES:
            raise ValueError(f"`metric` must be one of {list(_TITLES)}, got {metric!r}.")
        self.kind = loss
        self.metric = metric
        self.metric_title = _TITLES[metric]
        self.higher_is_better = metric == "r2"
        self.in_percent = False

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the mean error of each sample; see :meth:`Task.losses`."""
        outputs, targets = self.comparable(outputs, targets)
        errors = outputs - targets
        return (errors.square() if self.kind == "squared" else errors.abs()).flatten(1).mean(1)

    def make_metric(self, outputs: int) -> Metric:
        """Makes the metric; see :meth:`Task.make_metric`."""
        if self.metric == "rmse":
            return MeanSquaredError(squared=False)
        return MeanAbsoluteError() if self.metric == "mae" else R2Score()

    def comparable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Brings both to one shape and type; see :meth:`Task.comparable`."""
        shaped = targets[:, None] if targets.ndim == 1 else targets
        if shaped.shape != outputs.shape:
            self._refuse(targets, "a batch", f"of the outputs' shape {tuple(outputs.shape)}")
        wide = torch.promote_types(torch.promote_types(outputs.dtype, targets.dtype), torch.float32)
        return outputs.to(wide), shaped.to(wide)

    def check(self, targets: Tensor, outputs: int, where: str) -> None:
        """Checks that there are finite numbers for each sample; see :meth:`Task.check`."""
        shape = tuple(targets.shape[1:])
        right = shape == (outputs,) or (targets.ndim == 1 and outputs == 1)
        if not right or targets.is_complex() or not bool(targets.isfinite().all()):
            named = "(N,) or (N, 1)" if outputs == 1 else f"(N, {outputs})"
            self._refuse(targets, where, f"finite numbers of shape {named}")

    def predictions(
        self, outputs: Tensor, classes: Sequence[str], sources: Sequence[str | None]
    ) -> list[ValuesPrediction]:
        """Names the numbers; see :meth:`Task.predictions`."""
        return [
            ValuesPrediction(dict(zip(classes, values, strict=True)), source)
            for source, values in zip(sources, outputs.tolist(), strict=True)
        ]
