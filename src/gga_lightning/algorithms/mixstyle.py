"""MixStyle: the styles of feature maps mixed between samples."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Beta

from gga_lightning.algorithms.base import (
    ADAM,
    Batch,
    DomainGeneralizer,
    OptimizerFactory,
    require_domains,
)
from gga_lightning.algorithms.style import style
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["MixStyle"]


class MixStyle(DomainGeneralizer):
    """Trains on feature maps whose mean and deviation are mixed with those of other samples.

    After each of some layers, with a probability each time, every sample's feature map gets
    the style l s + (1 - l) s'. Here s is its own style (mean and standard deviation), s' that of
    another sample, and l ~ Beta(alpha, alpha). Only the objective mixes: :meth:`forward` and
    :meth:`domain_loss` are plain.

    Source: Zhou et al., ICLR 2021, arXiv 2104.02008, and its code. GGA's code mixes nowhere in its
    ResNet-18, and always (probability 1) in its ResNet-50.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = MixStyle(MLP((2,), widths=(8, 8)), num_classes=2, probability=1.0)
        >>> x, y = torch.randn(1, 2).repeat(4, 1), torch.tensor([0, 1, 0, 1])  # of the same style
        >>> model.objective({"photo": (x, y)}).isclose(model.domain_loss((x, y)), rtol=1e-3).item()
        True
        >>> model(x).equal(model(x))  # predictions do not mix
        True
    """

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        alpha: float = 0.1,
        probability: float = 0.5,
        pairs: Literal["random", "domains"] = "random",
        layers: Sequence[str] | None = None,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            alpha: Both parameters of the Beta distribution; positive.
            probability: The probability of mixing after each layer, in [0, 1].
            pairs: The partner of each sample: ``"random"`` for any sample, ``"domains"`` for one of
                another domain (the domains are put in a circle at random, and each is paired with
                the next).
            layers: The featurizer's submodules after which to mix, by their names in it. Default:
                all of its ``stages`` but the last (``layer1`` to ``layer3`` of a ResNet), or the
                only one.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range, or the featurizer has no such layers.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not alpha > 0:
            raise ValueError(f"`alpha` must be positive, got {alpha}.")
        if not 0 <= probability <= 1:
            raise ValueError(f"`probability` must be in [0, 1], got {probability}.")
        if pairs not in ("random", "domains"):
            raise ValueError(f"`pairs` must be 'random' or 'domains', got {pairs!r}.")
        self.alpha = alpha
        self.probability = probability
        self.pairs = pairs
        self._sizes: list[int] = []  # of the domains, while the objective is computed
        stages = getattr(featurizer, "stages", ())
        names = list(stages[:-1] or stages if layers is None else layers)
        known = dict(featurizer.named_modules())
        if not names or not all(name in known for name in names):
            raise ValueError(
                f"`layers` must name submodules of the featurizer ({type(featurizer).__name__}), "
                f"such as {[name for name in known if name][:8]}, got {names}."
            )
        for name in names:
            known[name].register_forward_hook(self._after_layer)

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss over all samples, with mixed styles.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        if self.pairs == "domains":
            require_domains(batch, "MixStyle")
        self._sizes = [len(targets) for _, targets in batch.values()]
        try:
            return super().objective(batch)
        finally:
            self._sizes = []

    def _after_layer(self, layer: nn.Module, inputs: Any, features: Tensor) -> Tensor | None:
        # drawn on the CPU: the device need not be waited for
        if not self._sizes or torch.rand(()) >= self.probability:
            return None
        mean, deviation = (part.detach() for part in style(features, 1e-6))
        share = Beta(self.alpha, self.alpha).sample((len(features),)).to(mean)
        share = share.view(-1, *[1] * (features.ndim - 1))
        other = self._others().to(features.device)
        mixed_mean = share * mean + (1 - share) * mean[other]
        mixed_deviation = share * deviation + (1 - share) * deviation[other]
        return (features - mean) / deviation * mixed_deviation + mixed_mean

    def _others(self) -> Tensor:
        """The sample with which each is paired."""
        if self.pairs == "random":
            return torch.randperm(sum(self._sizes))
        starts = torch.tensor([0, *self._sizes]).cumsum(0).tolist()
        circle = torch.randperm(len(self._sizes)).tolist()
        others: dict[int, Tensor] = {}
        for place, domain in enumerate(circle):
            following = circle[(place + 1) % len(circle)]
            size = self._sizes[following]
            rows = torch.arange(self._sizes[domain]) % size
            others[domain] = starts[following] + torch.randperm(size)[rows]
        return torch.cat([others[domain] for domain in range(len(circle))])
