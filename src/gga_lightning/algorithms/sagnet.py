"""Style-agnostic network (SagNet)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, pool
from gga_lightning.algorithms.manual import ManualGeneralizer
from gga_lightning.algorithms.style import style
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["SagNet"]


class SagNet(ManualGeneralizer):
    """Learns features that tell the class by their content and not by their style.

    The style of a sample is the mean and the standard deviation of its features; the content is the
    normalized features. Each update has three steps:

    1. Featurizer and classifier learn from features whose style is mixed with another sample's.
    2. A second head learns to tell the class from features with the content of another sample.
    3. The featurizer learns to make that head's prediction uniform.

    The trainer counts them as one step, and callbacks that change gradients (GGA-L) see the first.

    Source: Nam et al., CVPR 2021, arXiv 1910.11645, Algorithm 1, in DomainBed's form: on the
    feature vector, whose features count as the positions of one channel. The paper takes the
    feature maps in the middle of a ResNet.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from gga_lightning.backbones import MLP
        >>> from gga_lightning.data import DomainDataModule, Toy
        >>> model = SagNet(MLP((2,)), num_classes=2)
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = Trainer(fast_dev_run=True, accelerator="cpu", **quiet)
        >>> trainer.fit(model, DomainDataModule(Toy()))
        >>> trainer.global_step  # the three steps count as one
        1
        >>> model.style_classifier.out_features
        2
    """

    needs = ("classes", "vectors")

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        adversary_weight: float = 0.1,
        adversary: Literal["featurizer", "normalization"] = "featurizer",
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            adversary_weight: The weight of the third step's loss; not negative.
            adversary: What the third step trains: ``"featurizer"`` for the whole featurizer, as in
                DomainBed, or ``"normalization"`` for the weights of its normalization layers, as in
                the paper.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range, or there are no normalization layers.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not adversary_weight >= 0:
            raise ValueError(f"`adversary_weight` must not be negative, got {adversary_weight}.")
        if adversary not in ("featurizer", "normalization"):
            raise ValueError(
                f"`adversary` must be 'featurizer' or 'normalization', got {adversary!r}."
            )
        self.adversary_weight = adversary_weight
        self.adversary = adversary
        self.style_classifier = nn.Linear(self.classifier.in_features, num_classes)
        if not self._adversary():
            raise ValueError(
                "`adversary` must be 'featurizer' with a featurizer without normalization layers "
                f"({type(featurizer).__name__}), got {adversary!r}."
            )

    def update(self, batch: Batch) -> Tensor:
        """Makes the three steps.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, to be logged.
        """
        inputs, targets = pool(batch)
        main = [*_trained(self.featurizer), *_trained(self.classifier)]
        logits = self.classifier(_mixed_style(self.featurizer(inputs)))
        loss = functional.cross_entropy(logits, targets)
        self.step(self.gradient(loss, main), main)

        head = _trained(self.style_classifier)
        with torch.no_grad():
            features = _mixed_content(self.featurizer(inputs))
        style_loss = functional.cross_entropy(self.style_classifier(features), targets)
        self.step(self.gradient(style_loss, head), head, counts=False)

        moved = self._adversary()
        logits = self.style_classifier(_mixed_content(self.featurizer(inputs)))
        adversary_loss = -self.adversary_weight * logits.log_softmax(1).mean()
        self.step(self.gradient(adversary_loss, moved), moved, counts=False)
        return loss

    def _adversary(self) -> list[nn.Parameter]:
        if self.adversary == "featurizer":
            return _trained(self.featurizer)
        kinds = nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm  # pyright: ignore[reportPrivateUsage]
        layers = [module for module in self.featurizer.modules() if isinstance(module, kinds)]
        return [param for layer in layers for param in _trained(layer)]


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [param for param in module.parameters() if param.requires_grad]


def _mixed_style(features: Tensor) -> Tensor:
    """Each sample's content, in a style between its own and another's."""
    share, other = _draw(features)
    mean, deviation = style(features, 1e-5)
    mixed_deviation = _between(deviation.square(), other, share).sqrt()
    return (features - mean) / deviation * mixed_deviation + _between(mean, other, share)


def _mixed_content(features: Tensor) -> Tensor:
    """Each sample's style, with another's content, through which no gradient flows."""
    _, other = _draw(features)
    mean, deviation = style(features, 1e-5)
    return ((features - mean) / deviation)[other].detach() * deviation + mean


def _draw(features: Tensor) -> tuple[Tensor, Tensor]:
    """Shares and partners, drawn on the CPU."""
    share = torch.rand(len(features), *[1] * (features.ndim - 1))
    return share.to(features), torch.randperm(len(features)).to(features.device)


def _between(values: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return share * values + (1 - share) * values[other]
