"""Uniform risk minimization (URM)."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim import Optimizer

from gga_lightning.algorithms.base import ADAM, Batch, DomainGeneralizer, OptimizerFactory, pool
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["URM"]

_WIDTH = 100
_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


class URM(DomainGeneralizer):
    """Learns features that a discriminator cannot tell from uniform noise.

    The features z are the featurizer's output after tanh or ReLU, in training and in prediction.
    The discriminator D is trained to give 1 for noise u, uniform on [-1, 1) for tanh and on [0, 1)
    for ReLU, and 0 for z. With L the mean cross-entropy over all samples and B the binary
    cross-entropy on logits, the network minimizes

        L + adversary_weight * B(D(z), 1),

    and the discriminator B(D(u), 1) + adversary_weight * B(D(z), 0). Both gradients are taken at
    the same weights. One step on the sum of both is therefore the same as two steps. Domains are
    not used. Features after ReLU have no upper bound, while the noise is less than 1.

    Source: Krishnamachari, Ng & Foo, TMLR 2024. As in DomainBed, which accepts only its own
    featurizers.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = URM(MLP((2,)), num_classes=2, discriminator_optimizer={"lr": 5e-5})
        >>> [group["lr"] for group in model.configure_optimizers().param_groups]
        [0.001, 5e-05]
        >>> batch = {"photo": (torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))}
        >>> (model.objective(batch) > model.domain_loss(pool(batch))).item()
        True
    """

    needs = ("vectors",)

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        adversary_weight: float = 0.1,
        activation: Literal["tanh", "relu"] = "tanh",
        hidden_layers: int = 1,
        discriminator_optimizer: Mapping[str, Any] | None = None,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            adversary_weight: The weight of the features' terms; not negative.
            activation: The function applied to the featurizer's output: ``"tanh"`` or ``"relu"``.
            hidden_layers: Hidden layers of the discriminator beyond the first, of width 100; not
                negative.
            discriminator_optimizer: Settings of the optimizer that differ for the discriminator,
                such as ``{"lr": 5e-5}``.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not adversary_weight >= 0:
            raise ValueError(f"`adversary_weight` must not be negative, got {adversary_weight}.")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"`activation` must be 'tanh' or 'relu', got {activation!r}.")
        if hidden_layers < 0:
            raise ValueError(f"`hidden_layers` must not be negative, got {hidden_layers}.")
        self.adversary_weight = adversary_weight
        self.activation = activation
        self.discriminator_optimizer = dict(discriminator_optimizer or {})
        layers: list[nn.Module] = []
        size = self.classifier.in_features
        for _ in range(hidden_layers + 1):
            layers += [nn.Linear(size, _WIDTH), nn.LeakyReLU()]
            size = _WIDTH
        self.discriminator = nn.Sequential(*layers, nn.Linear(size, 1))

    def configure_optimizers(self) -> Optimizer:
        """Makes one optimizer, with the discriminator's parameters in a group of their own."""
        main = [*self.featurizer.parameters(), *self.classifier.parameters()]
        own = {"params": list(self.discriminator.parameters()), **self.discriminator_optimizer}
        return self._optimizer([{"params": main}, own])

    def forward(self, inputs: Tensor) -> Tensor:
        """Computes logits.

        Args:
            inputs: Shape ``(N, ...)``.

        Returns:
            Shape ``(N, num_classes)``.
        """
        return self.classifier(self._features(inputs))

    def objective(self, batch: Batch) -> Tensor:
        """Computes the sum of the network's and the discriminator's objective.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        inputs, targets = pool(batch)
        features = self._features(inputs)
        noise = torch.rand_like(features, dtype=torch.promote_types(features.dtype, torch.float32))
        if self.activation == "tanh":
            noise = 2 * noise - 1
        fixed = {name: param.detach() for name, param in self.discriminator.named_parameters()}
        seen = functional_call(self.discriminator, fixed, (features,))
        network = self.task.loss(self.classifier(features), targets)
        network = network + self.adversary_weight * _against(seen, 1.0)
        of_noise = _against(self.discriminator(noise), 1.0)
        of_features = _against(self.discriminator(features.detach()), 0.0)
        return network + of_noise + self.adversary_weight * of_features

    def _features(self, inputs: Tensor) -> Tensor:
        return _ACTIVATIONS[self.activation](self.featurizer(inputs))


def _against(logits: Tensor, target: float) -> Tensor:
    """The mean binary cross-entropy of logits against one target."""
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
