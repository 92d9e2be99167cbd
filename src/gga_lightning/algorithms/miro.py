"""Mutual-information regularization with an oracle (MIRO)."""

import contextlib
import copy
import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from gga_lightning.algorithms.base import ADAM, Batch, DomainGeneralizer, OptimizerFactory, pool
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["MIRO"]

_SMALLEST = 1e-5
_START = 0.1


class MIRO(DomainGeneralizer):
    """Keeps the features of several layers near those of the pretrained network.

    A frozen copy of the featurizer, the oracle, sees the same inputs. Let f_l be the output of
    layer l and g_l that of the oracle. Every channel of every layer has a variance v_l, which is
    trained too. The objective is

        L + penalty_weight * sum over l of mean of ((f_l - g_l)^2 / v_l + log v_l) / 2,

    with L the mean cross-entropy over all samples and the mean over all entries of the layer's
    output. It can be negative, because of the logarithm. With v = softplus(b) + 1e-5, the trained
    numbers are b; v starts at 0.1.

    The copy is made together with the model. The featurizer must have its pretrained weights by
    then; with random weights there is nothing worth keeping. The copy runs in evaluation mode. It
    is saved in checkpoints, which are therefore about twice as large.

    Source: Cha, Lee, Park & Chun, ECCV 2022, arXiv 2203.10789, and its code. There weight decay
    also pulls b to 0, where v is 0.69; here it does not act on b.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = MIRO(MLP((2,)), num_classes=2, input_shape=(2,), penalty_weight=0.1)
        >>> batch = {"photo": (torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))}
        >>> penalty = model.objective(batch) - model.domain_loss(pool(batch))
        >>> round(penalty.item(), 4)  # 0.1 * log(0.1) / 2: the features are still those of the copy
        -0.1151
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        input_shape: Sequence[int],
        penalty_weight: float = 0.1,
        layers: Sequence[str] | None = None,
        variance_lr_factor: float = 10.0,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`; with pretrained weights.
            num_classes: How many classes there are.
            input_shape: Shape of one input. Zeros of this shape show how many channels a layer has.
            penalty_weight: The penalty's weight; not negative.
            layers: The featurizer's submodules whose outputs are kept, by their names in it. Their
                outputs have the channels in dimension 1 if they have four dimensions, else in the
                last one. Default: all of its ``stages``, and the max pooling before them in a
                ResNet; without stages the ``blocks`` of a network of timm.
            variance_lr_factor: Factor on the learning rate for the variances; positive.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range, or the featurizer has no such layers.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not penalty_weight >= 0:
            raise ValueError(f"`penalty_weight` must not be negative, got {penalty_weight}.")
        if not variance_lr_factor > 0:
            raise ValueError(f"`variance_lr_factor` must be positive, got {variance_lr_factor}.")
        self.layers = _layers(featurizer) if layers is None else list(layers)
        known = [name for name, _ in featurizer.named_modules() if name]
        if not self.layers or not set(self.layers) <= set(known):
            raise ValueError(
                f"`layers` must name submodules of the featurizer ({type(featurizer).__name__}), "
                f"such as {known[:8]}, got {self.layers}."
            )
        self.penalty_weight = penalty_weight
        self.variance_lr_factor = variance_lr_factor
        self.oracle = copy.deepcopy(featurizer).requires_grad_(False)
        outputs = self._kept(torch.zeros(2, *input_shape))
        if len(outputs) != len(self.layers):
            raise ValueError(
                "`layers` must name submodules that run once in a pass, got "
                f"{self.layers}, with {len(outputs)} outputs."
            )
        start = math.log(math.expm1(_START - _SMALLEST))
        self.variances = nn.ParameterList(
            torch.full((output.shape[_channels(output)],), start) for output in outputs
        )

    def configure_optimizers(self) -> Optimizer:
        """Makes one optimizer, with the variances in a group of their own."""
        main = [*self.featurizer.parameters(), *self.classifier.parameters()]
        own = {"params": list(self.variances), "weight_decay": 0.0, "variances": True}
        optimizer = self._optimizer([{"params": main}, own])
        for group in optimizer.param_groups:
            if group.pop("variances", False):
                group["lr"] = self.variance_lr_factor * group["lr"]
        return optimizer

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss over all samples and the penalty.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        inputs, targets = pool(batch)
        features, outputs = self._outputs(self.featurizer, inputs)
        kept = self._kept(inputs)
        loss = self.task.loss(self.classifier(features), targets)
        terms = [
            _information(own, other, variance)
            for own, other, variance in zip(outputs, kept, self.variances, strict=True)
        ]
        return loss + self.penalty_weight * torch.stack(terms).sum()

    @torch.no_grad()
    def _kept(self, inputs: Tensor) -> list[Tensor]:
        """The oracle's outputs of the layers, in evaluation mode."""
        # only for as long as it runs: Lightning warns of trainings that begin in evaluation mode
        mode = self.oracle.training
        self.oracle.eval()
        try:
            return self._outputs(self.oracle, inputs)[1]
        finally:
            self.oracle.train(mode)

    def _outputs(self, featurizer: nn.Module, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The features, and the outputs of the layers in the order in which they run."""
        outputs: list[Tensor] = []

        def keep(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            outputs.append(output)

        with contextlib.ExitStack() as hooks:
            for name in self.layers:
                layer = featurizer.get_submodule(name)
                hooks.enter_context(layer.register_forward_hook(keep))
            return featurizer(inputs), outputs


def _information(own: Tensor, kept: Tensor, variance: Tensor) -> Tensor:
    """A layer's part of the penalty."""
    with torch.autocast(own.device.type, enabled=False):
        wide = torch.promote_types(own.dtype, torch.float32)
        v = functional.softplus(variance.to(wide)) + _SMALLEST
        difference = (own.to(wide) - kept.to(wide)).square().movedim(_channels(own), -1)
        return (difference / v + v.log()).mean() / 2


def _channels(output: Tensor) -> int:
    return 1 if output.ndim == 4 else output.ndim - 1


def _layers(featurizer: nn.Module) -> list[str]:
    """The layers that are kept by default."""
    known = [name for name, _ in featurizer.named_modules()]
    stages: list[str] = list(getattr(featurizer, "stages", ()))
    if not stages:
        return [name for name in known if re.fullmatch(r"network\.blocks\.\d+", name)]
    pooling = f"{stages[0].rpartition('.')[0]}.maxpool"  # the end of a ResNet's first layers
    return [pooling, *stages] if pooling in known else stages
