"""Transfer: features for which no nearby classifier has very different domain losses."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, pool, require_domains
from gga_lightning.algorithms.manual import ManualGeneralizer
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["Transfer"]


class Transfer(ManualGeneralizer):
    """Minimizes the loss, and the gap between the domains' losses for the worst classifier nearby.

    The gap of a classifier h is the highest minus the lowest of its domain losses. Each update has
    four parts:

    1. A step of the optimizer on the mean loss over all samples.
    2. A step of the optimizer on gap_weight times the gap of the adversary, a second classifier h,
       which moves the featurizer only.
    3. h is set to the classifier w.
    4. ``adversary_steps`` steps of gradient ascent on gap_weight times the gap move h. After each,
       h is projected to the ball of radius ``delta`` around w.

    The trainer counts them as one step, and callbacks that change gradients (GGA-L) see the first.
    The features of part 4, which do not change there, are computed once. Several processes agree on
    the domains with the highest and the lowest loss.

    Source: Zhang, Zhao, Yu & Poupart, NeurIPS 2021, arXiv 2106.03632, Algorithm 1, as in DomainBed
    with ``gda=False``. DomainBed's random search always has ``gda=True``, with which featurizer and
    classifier are not trained at all; that form is not here.

    Example:
        Long steps take the adversary to the edge of the ball:

        >>> from lightning.pytorch import Trainer
        >>> from torch.utils.data import DataLoader
        >>> from gga_lightning.backbones import MLP
        >>> x, y = torch.ones(1, 4), torch.tensor([0])
        >>> model = Transfer(MLP((4,)), num_classes=2, delta=0.5, adversary_lr=10.0)
        >>> train = DataLoader([{"a": (x, y), "b": (x, 1 - y)}], batch_size=None)
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = Trainer(fast_dev_run=True, accelerator="cpu", **quiet)
        >>> trainer.fit(model, train, DataLoader([(x, y)], batch_size=None))
        >>> adversary, center = map(nn.utils.parameters_to_vector, (
        ...     model.adversary.parameters(), model.classifier.parameters()))
        >>> round(float((adversary - center).norm().detach()), 3)
        0.5
    """

    needs = ("vectors",)
    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        gap_weight: float = 1.0,
        delta: float = 2.0,
        adversary_steps: int = 10,
        adversary_lr: float = 1e-3,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            gap_weight: The gap's weight; not negative.
            delta: How far the adversary may be from the classifier, as the norm over all weights
                and biases; not negative.
            adversary_steps: Steps of the adversary in each update; at least 1.
            adversary_lr: Their learning rate; positive.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        for name, value in (("gap_weight", gap_weight), ("delta", delta)):
            if not value >= 0:
                raise ValueError(f"`{name}` must not be negative, got {value}.")
        if adversary_steps < 1:
            raise ValueError(f"`adversary_steps` must be at least 1, got {adversary_steps}.")
        if not adversary_lr > 0:
            raise ValueError(f"`adversary_lr` must be positive, got {adversary_lr}.")
        self.gap_weight = gap_weight
        self.delta = delta
        self.adversary_steps = adversary_steps
        self.adversary_lr = adversary_lr
        self.adversary = nn.Linear(self.classifier.in_features, num_classes)
        self.adversary.load_state_dict(self.classifier.state_dict())

    def configure_optimizers(self) -> Optimizer:
        """Makes the optimizer of featurizer and classifier."""
        main = [*self.featurizer.parameters(), *self.classifier.parameters()]
        return self._optimizer([{"params": main}])

    def update(self, batch: Batch) -> Tensor:
        """Makes the four parts of an update.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The mean loss, to be logged.
        """
        require_domains(batch, "Transfer")
        inputs, _ = pool(batch)
        fixed = {id(param) for param in self.adversary.parameters()}
        main = [param for param in self.trained if id(param) not in fixed]
        loss = self.objective(batch)
        self.step(self.gradient(loss, main), main)

        inside = [param for param in self.featurizer.parameters() if param.requires_grad]
        if inside:  # none if the network is frozen
            gap = self.gap_weight * self._gap(batch, self.featurizer(inputs))
            self.step(self.gradient(gap, inside), inside, counts=False)

        self.adversary.load_state_dict(self.classifier.state_dict())
        with torch.no_grad():
            features = self.featurizer(inputs)
        own = list(self.adversary.parameters())
        for _ in range(self.adversary_steps):
            gap = self.gap_weight * self._gap(batch, features)
            self._ascend(self.gradient(gap, own))
        return loss

    def _gap(self, batch: Batch, features: Tensor) -> Tensor:
        """The highest minus the lowest of the adversary's domain losses."""
        targets = [own for _, own in batch.values()]
        logits = self.adversary(features).split([len(own) for own in targets])
        pairs = zip(logits, targets, strict=True)
        losses = torch.stack([self.task.loss(z, y) for z, y in pairs])
        found = self.mean_over_processes(losses)
        return losses[found.argmax()] - losses[found.argmin()]

    @torch.no_grad()
    def _ascend(self, gradient: list[Tensor]) -> None:
        """Moves the adversary along a gradient, and back to the ball around the classifier."""
        differences = [
            own.add_(part, alpha=self.adversary_lr) - center
            for own, part, center in zip(
                self.adversary.parameters(), gradient, self.classifier.parameters(), strict=True
            )
        ]
        distance = torch.stack([part.square().sum() for part in differences]).sum().sqrt()
        inside = self.delta / distance.clamp(min=max(self.delta, 1e-30))
        for own, part, center in zip(
            self.adversary.parameters(), differences, self.classifier.parameters(), strict=True
        ):
            own.copy_(torch.where(inside < 1, center + inside * part, own))
