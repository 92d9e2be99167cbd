"""Saves a sheet of held-out pictures with the classes that the trained model predicts."""

from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from gga_lightning.data.loaders import DomainLoaders
from gga_lightning.experiments.tasks import metric_of
from gga_lightning.plots import plot_predictions
from gga_lightning.report.metric import ACCURACY

__all__ = ["PredictionSheet"]

_LOOKED_AT = 256  # largest number of held-out samples to predict; the sheet shows some of them


class PredictionSheet(Callback):
    """Saves ``predictions.png`` when a training ends: held-out pictures, half of them wrong.

    The model is that of the last step. The pictures are spread over the reported parts of the
    held-out domains. Nothing is saved if inputs are no pictures, or the task is not
    classification.
    """

    def __init__(self, folder: str | Path, count: int = 24) -> None:
        """Configures the sheet.

        Args:
            folder: The folder of the file.
            count: How many pictures to show; at least 1.

        Raises:
            ValueError: If ``count`` is less than 1.
        """
        if count < 1:
            raise ValueError(f"`count` must be at least 1, got {count}.")
        self._folder = Path(folder)
        self._count = count

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when fit ends, with the model still on its device: draws and saves."""
        data: Any = getattr(trainer, "datamodule", None)
        if not trainer.is_global_zero or not isinstance(data, DomainLoaders):
            return
        if metric_of(getattr(pl_module, "task", None)) != ACCURACY:
            return
        samples = data.sample_images("test", _LOOKED_AT)
        if samples is None:
            return
        images, targets = samples
        probabilities = _predict(pl_module, data, images)
        best, predicted = probabilities.max(dim=1)
        chosen = _half_wrong(predicted == targets, self._count)
        right = (predicted == targets).double().mean()
        domains = ", ".join(cast(Any, data).test_domains)
        plot_predictions(
            images[chosen],
            [data.classes[target] for target in targets[chosen]],
            [data.classes[index] for index in predicted[chosen]],
            best[chosen].tolist(),
            title=f"{data.name}, {domains} held out, step {trainer.global_step}: "
            f"{right:.0%} of {len(targets)} pictures right",
        ).savefig(self._folder / "predictions.png", dpi=120)


def _predict(module: LightningModule, data: DomainLoaders, images: Tensor) -> Tensor:
    """Predicts probabilities, on the CPU. Modes and random state do not change."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            logits = [
                module(data.to_inputs(batch.to(module.device), module))
                for batch in images.split(64)
            ]
    finally:
        for part, training in modes.items():
            part.training = training
    return torch.cat(logits).float().softmax(dim=1).cpu()


def _half_wrong(right: Tensor, count: int) -> Tensor:
    """Chooses right and wrong predictions, evenly spread, half of each if there are enough."""
    places = [torch.nonzero(right).flatten(), torch.nonzero(~right).flatten()]
    wrong = min(len(places[1]), max(count // 2, count - len(places[0])))
    wanted = min(count - wrong, len(places[0])), wrong
    found = [
        kind[torch.linspace(0, len(kind) - 1, size).round().long()] if size else kind[:0]
        for kind, size in zip(places, wanted, strict=True)
    ]
    return torch.cat(found)
