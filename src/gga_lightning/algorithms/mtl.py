"""Marginal transfer learning (MTL): a classifier that sees an embedding of the domain."""

from typing import Literal

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, Batch, DomainGeneralizer, OptimizerFactory, pool
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["MTL"]


class MTL(DomainGeneralizer):
    """Classifies features together with an embedding of their domain, the domain's mean feature.

    In training, the embedding is an exponential average over the steps, kept by the domain's name
    and saved with the weights. Elsewhere (:meth:`forward`, evaluation, :meth:`domain_loss`) it is
    the mean of the current batch. Predictions therefore depend on the other samples of the batch.

    Source: Blanchard et al., JMLR 2021, arXiv 1711.07910, with DomainBed's neural network in place
    of kernels. DomainBed and the code derived from it overwrite the embedding with random noise, in
    training and in evaluation (``embedding="noise"``, from which the published numbers come). They
    swap ``ema`` and 1 - ``ema``, begin the averages at zero (ours begin at the first batch's mean),
    and sum the domains' losses. All domains go through the network in one pass.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = MTL(MLP((2,)), num_classes=2)
        >>> model.classifier.in_features  # 32 of the sample and 32 of its domain
        64
        >>> loss = model.objective({"photo": (torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))})
        >>> model.averages["photo"].shape
        torch.Size([32])
    """

    needs = ("vectors",)
    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        ema: float = 0.99,
        embedding: Literal["mean", "noise"] = "mean",
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            ema: The averages' decay, in [0, 1): 0 is the batch's own mean.
            embedding: ``"mean"``, or ``"noise"``: numbers drawn from N(0, 1), anew each time.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not 0 <= ema < 1:
            raise ValueError(f"`ema` must be in [0, 1), got {ema}.")
        if embedding not in ("mean", "noise"):
            raise ValueError(f"`embedding` must be 'mean' or 'noise', got {embedding!r}.")
        self.classifier = nn.Linear(2 * self.classifier.in_features, num_classes)
        self.ema = ema
        self.embedding = embedding
        self.averages: dict[str, Tensor] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        """Computes the logits of a batch of one domain.

        Args:
            inputs: Shape ``(N, ...)``.

        Returns:
            Shape ``(N, num_classes)``.
        """
        features = self.featurizer(inputs)
        return self._classify(features, features.mean(0))

    def objective(self, batch: Batch) -> Tensor:
        """Updates the averages and computes the mean of the domains' losses.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        targets = [own for _, own in batch.values()]
        features = self.featurizer(pool(batch)[0]).split([len(own) for own in targets])
        losses = [
            self.task.loss(self._classify(own, self._average(name, own.mean(0))), y)
            for name, own, y in zip(batch, features, targets, strict=True)
        ]
        return torch.stack(losses).mean()

    def _classify(self, features: Tensor, embedding: Tensor) -> Tensor:
        repeated = embedding.expand_as(features)
        if self.embedding == "noise":
            repeated = torch.randn_like(features)
        return self.classifier(torch.cat([features, repeated], 1))

    def _average(self, name: str, mean: Tensor) -> Tensor:
        """The domain's average with this batch's mean in it, through which gradients flow."""
        seen = self.mean_over_processes(mean)
        old = self.averages.get(name, seen).to(seen)
        self.averages[name] = torch.lerp(seen, old, self.ema)
        return self.ema * old + (1 - self.ema) * mean

    def get_extra_state(self) -> dict[str, Tensor]:
        """The domains' averages, for the state dict."""
        return {name: average.clone() for name, average in self.averages.items()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Takes the domains' averages from a state dict."""
        self.averages = dict(state)
