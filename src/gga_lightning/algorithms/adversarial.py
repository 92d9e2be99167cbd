"""What DANN and CDANN share: a discriminator of the domains, and training against it."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from gga_lightning.algorithms.base import ADAM, Batch, DomainGeneralizer, OptimizerFactory, pool
from gga_lightning.algorithms.manual import ManualGeneralizer
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["Adversarial"]


class Adversarial(ManualGeneralizer):
    """Learns features from which a discriminator cannot predict the domain.

    Let L be the mean cross-entropy of the classes and A the loss of the discriminator.

    ``scheme="reversal"`` is that of the paper. At each step the discriminator minimizes A, the
    classifier minimizes L, and the featurizer minimizes L - w * A, by a reversed gradient. The
    weight w is ``adversary_weight`` times 2 / (1 + exp(-10 p)) - 1, where the progress p rises from
    0 to 1 over the first ``ramp_steps`` steps. Lightning's automatic optimization makes the steps.

    ``scheme="alternating"`` is that of DomainBed. After ``discriminator_steps`` steps of the
    discriminator alone, one step of featurizer and classifier minimizes L - w * A, where w is
    ``adversary_weight`` from the beginning. The classifier is trained in no other steps. In
    a training, ``discriminator_steps - 1`` steps of the discriminator come before the first one.

    Example:
        >>> from gga_lightning.algorithms import DANN
        >>> from gga_lightning.backbones import MLP
        >>> settings = {"num_domains": 3, "discriminator_optimizer": {"lr": 5e-5}}
        >>> model = DANN(MLP((2,)), num_classes=2, scheme="alternating", **settings)
        >>> isinstance(model, Adversarial), model.automatic_optimization
        (True, False)
        >>> [group["lr"] for group in model.configure_optimizers().param_groups]
        [0.001, 5e-05]
    """

    needs = ("vectors",)
    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        num_domains: int,
        adversary_weight: float = 1.0,
        scheme: Literal["reversal", "alternating"] = "reversal",
        ramp_steps: int | None = None,
        discriminator_steps: int = 1,
        gradient_penalty: float = 0.0,
        width: int = 256,
        depth: int = 3,
        dropout: float = 0.0,
        discriminator_optimizer: Mapping[str, Any] | None = None,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            num_domains: How many domains a batch has.
            adversary_weight: The weight of the discriminator's loss for the featurizer (lambda);
                not negative.
            scheme: ``"reversal"`` or ``"alternating"``, see above.
            ramp_steps: Over how many steps the weight rises under ``"reversal"``: 0 for the full
                weight from the start, the whole training if None.
            discriminator_steps: Steps of the discriminator for each of the others, under
                ``"alternating"``; at least 1.
            gradient_penalty: The weight of a penalty in the discriminator's loss, on the squared
                gradient of its cross-entropy with respect to its input; not negative.
            width: Of the discriminator's hidden layers.
            depth: Its linear layers; at least 2.
            dropout: After each hidden layer, in [0, 1).
            discriminator_optimizer: Settings of the optimizer that differ for the discriminator,
                such as ``{"lr": 1e-4, "betas": (0.5, 0.9)}``.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        for name, value, minimum in (
            ("num_domains", num_domains, 2),
            ("adversary_weight", adversary_weight, 0),
            ("ramp_steps", ramp_steps or 0, 0),
            ("discriminator_steps", discriminator_steps, 1),
            ("gradient_penalty", gradient_penalty, 0),
            ("width", width, 1),
            ("depth", depth, 2),
        ):
            if not value >= minimum:
                raise ValueError(f"`{name}` must be at least {minimum}, got {value}.")
        if scheme not in ("reversal", "alternating"):
            raise ValueError(f"`scheme` must be 'reversal' or 'alternating', got {scheme!r}.")
        self.automatic_optimization = scheme == "reversal"
        self.num_domains = num_domains
        self.adversary_weight = adversary_weight
        self.scheme = scheme
        self.ramp_steps = ramp_steps
        self.discriminator_steps = discriminator_steps
        self.gradient_penalty = gradient_penalty
        self.discriminator_optimizer = dict(discriminator_optimizer or {})
        layers: list[nn.Module] = []
        size = self.classifier.in_features
        for _ in range(depth - 1):
            layers += [nn.Linear(size, width), nn.Dropout(dropout), nn.ReLU()]
            size = width
        self.discriminator = nn.Sequential(*layers, nn.Linear(size, num_domains))
        self.add_parts()

    def add_parts(self) -> None:
        """Adds what a subclass needs beside the discriminator. Called last by the constructor."""

    def condition(self, features: Tensor, targets: Tensor) -> Tensor:
        """Makes the discriminator's input.

        Args:
            features: Shape ``(N, F)``.
            targets: The classes, shape ``(N,)``.

        Returns:
            Shape ``(N, F)``; the features themselves, but for subclasses.
        """
        return features

    def discriminator_loss(self, logits: Tensor, domains: Tensor, targets: Tensor) -> Tensor:
        """Computes the discriminator's loss.

        Args:
            logits: Shape ``(N, D)``.
            domains: The domains' indices, shape ``(N,)``.
            targets: The classes, shape ``(N,)``.

        Returns:
            A scalar, the mean cross-entropy unless a subclass overrides it.
        """
        return functional.cross_entropy(logits, domains)

    def configure_optimizers(self) -> Optimizer:
        """Makes one optimizer, with the discriminator's parameters in a group of their own."""
        main = [*self.featurizer.parameters(), *self.classifier.parameters()]
        own = {"params": self._discriminating(), **self.discriminator_optimizer}
        return self._optimizer([{"params": main}, own])

    def on_train_start(self) -> None:
        """Checks that the number of steps over which the weight rises is known."""
        if self.automatic_optimization and not math.isfinite(self._ramp()):
            raise MisconfigurationException(
                "`ramp_steps` must be given where the trainer knows no last step, got None."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Trains on a batch and logs the loss."""
        kind = DomainGeneralizer if self.automatic_optimization else ManualGeneralizer
        return kind.training_step(self, batch, batch_idx)

    def objective(self, batch: Batch) -> Tensor:
        """Computes both losses; the discriminator's gradient is reversed for the featurizer.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        inputs, targets = pool(batch)
        features = self.featurizer(inputs)
        loss = self.task.loss(self.classifier(features), targets)
        reversed_features = _Reversed.apply(features, self._weight())
        return loss + self._against(batch, reversed_features, targets)

    def update(self, batch: Batch) -> Tensor:
        """Makes a step of the discriminator, or of the featurizer and the classifier.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, to be logged.
        """
        inputs, targets = pool(batch)
        if (self.global_step + 1) % (1 + self.discriminator_steps) < self.discriminator_steps:
            with torch.no_grad():
                features = self.featurizer(inputs)
            loss = self._against(batch, features, targets)
            moved = [param for param in self._discriminating() if param.requires_grad]
        else:
            features = self.featurizer(inputs)
            loss = self.task.loss(self.classifier(features), targets)
            loss = loss - self.adversary_weight * self._against(batch, features, targets)
            fixed = {id(param) for param in self._discriminating()}
            moved = [param for param in self.trained if id(param) not in fixed]
        self.step(self.gradient(loss, moved), moved)
        return loss

    def _against(self, batch: Batch, features: Tensor, targets: Tensor) -> Tensor:
        """The discriminator's loss."""
        if len(batch) != self.num_domains:
            raise MisconfigurationException(
                f"{type(self).__name__} needs batches of `num_domains={self.num_domains}` domains, "
                f"got {list(batch)}."
            )
        places = {name: place for place, name in enumerate(sorted(batch))}
        domains = torch.cat(
            [
                torch.full((len(own),), places[name], device=own.device)
                for name, (_, own) in batch.items()
            ]
        )
        seen = self.condition(features, targets)
        if self.gradient_penalty and not seen.requires_grad:
            seen = seen.requires_grad_()
        logits = self.discriminator(seen)
        loss = self.discriminator_loss(logits, domains, targets)
        if self.gradient_penalty:
            total = functional.cross_entropy(logits, domains, reduction="sum")
            (slope,) = torch.autograd.grad(total, seen, create_graph=True)
            loss = loss + self.gradient_penalty * slope.square().sum(1).mean()
        return loss

    def _discriminating(self) -> list[nn.Parameter]:
        return list(self.discriminator.parameters())

    def _ramp(self) -> float:
        if self.ramp_steps is not None:
            return self.ramp_steps
        planned = self.trainer.estimated_stepping_batches
        return planned if planned >= 0 else math.inf

    def _weight(self) -> float:
        ramp = self._ramp()
        progress = min(self.global_step / ramp, 1.0) if ramp else 1.0
        rise = 2 / (1 + math.exp(-10 * progress)) - 1 if ramp else 1.0
        return self.adversary_weight * rise


class _Reversed(torch.autograd.Function):
    """The same values, the gradient turned and weighted (Ganin & Lempitsky, ICML 2015)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return -ctx.weight * gradient, None
