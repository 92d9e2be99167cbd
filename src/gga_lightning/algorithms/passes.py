"""What a model logs of a pass over its evaluation dataloaders."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

if TYPE_CHECKING:
    from gga_lightning.algorithms.base import DomainBatch, DomainGeneralizer

__all__ = ["PassMetrics"]


class PassMetrics:
    """One pass over the evaluation dataloaders: metric and mean loss of each, by its name."""

    def __init__(self, stage: str, dataloaders: Any, module: "DomainGeneralizer") -> None:
        """Makes a metric and a mean loss for each dataloader.

        Args:
            stage: What comes before the names of dataloaders that do not name their part.
            dataloaders: Those of the trainer.
            module: The model.
        """
        self._module = module
        self._metrics = {
            name: (
                module.task.make_metric(module.num_classes).to(module.device),
                MeanMetric(nan_strategy=math.nan).to(module.device),
            )
            for name in _names(stage, dataloaders)
        }

    def update(self, index: int, batch: "DomainBatch") -> None:
        """Counts a batch.

        Args:
            index: The dataloader's place.
            batch: Inputs and targets.
        """
        inputs, targets = batch
        task, outputs = self._module.task, self._module(inputs)
        metric, loss = list(self._metrics.values())[index]
        metric.update(*task.comparable(outputs, targets))
        loss.update(task.loss(outputs, targets), weight=len(targets))

    def log(self) -> None:
        """Logs each dataloader's and each part's metric and loss."""
        name_of_metric = self._module.task.metric
        values: dict[str, Tensor] = {}
        parts: dict[str, list[Tensor]] = {}
        for name, both in self._metrics.items():
            for kind, metric in zip((name_of_metric, "loss"), both, strict=True):
                values[f"{name}/{kind}"] = value = metric.compute()
                part = name.partition("/")[0]
                parts.setdefault(f"{part}/{kind}", []).append(value)
        values |= {name: torch.stack(found).mean() for name, found in parts.items()}
        for name, value in values.items():
            shown = name in (f"val/{name_of_metric}", f"test/{name_of_metric}")
            # equal on all ranks already; sync_dist is for Lightning's peace of mind
            self._module.log(name, value, prog_bar=shown, sync_dist=True, batch_size=1)


def _names(stage: str, dataloaders: Any) -> list[str]:
    """The dataloaders' names as ``<part>/<domain>``, or by their place where they have none."""
    if isinstance(dataloaders, Mapping):
        return [name if "/" in name else f"{stage}/{name}" for name in dataloaders]
    if isinstance(dataloaders, list | tuple):
        return [f"{stage}/{index}" for index in range(len(dataloaders))]
    return [f"{stage}/all"]
