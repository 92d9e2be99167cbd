"""Fishr: matching of the domains' gradient variances."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.annealed import AnnealedPenalty
from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, pool, require_domains
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["Fishr"]


class Fishr(AnnealedPenalty):
    """Matches the variances of the classifier's gradients between the domains.

    For each coordinate of the classifier's parameters, v_e is the variance over the samples of
    domain e of the gradient of a sample's loss. Its exponential average over the steps is saved
    with the weights. The penalty is the mean squared distance of these averages from their mean
    over the domains.

    With e the derivative of a sample's loss in the outputs and z its features, the gradient is
    e z^T. Therefore no gradient needs to be computed sample by sample. For the cross-entropy, e is
    p - y. Averages are means over the processes.

    Source: Rame, Dancette & Cord, ICML 2022, arXiv 2109.02934. As in DomainBed, also in that the
    average starts at zero and is divided by 1 - ``ema``.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> model = Fishr(MLP((2,)), num_classes=2, anneal_steps=0)
        >>> y = torch.tensor([0, 1, 0, 1])
        >>> batch = {"photo": (torch.randn(4, 2), y), "sketch": (torch.randn(4, 2), y)}
        >>> (model.objective(batch) > model.domain_loss(pool(batch))).item()
        True
        >>> {name: average.shape for name, average in model.averages.items()}
        {'photo': torch.Size([66]), 'sketch': torch.Size([66])}
    """

    needs = ("vectors",)
    min_domains = 2
    weight_before = 0.0

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        penalty_weight: float = 1000.0,
        anneal_steps: int = 1500,
        ema: float = 0.95,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            penalty_weight: The penalty's weight (lambda) from ``anneal_steps`` on; 0 before.
            anneal_steps: Number of optimizer steps before that.
            ema: The averages' decay, in [0, 1).
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``ema`` is out of range.
        """
        super().__init__(
            featurizer, num_classes, penalty_weight, anneal_steps, optimizer=optimizer, task=task
        )
        if not 0 <= ema < 1:
            raise ValueError(f"`ema` must be in [0, 1), got {ema}.")
        self.ema = ema
        self.averages: dict[str, Tensor] = {}

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean loss and the penalty.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        require_domains(batch, "Fishr")
        inputs, targets = pool(batch)
        features = self.featurizer(inputs)
        logits = self.classifier(features)
        sizes = [len(own) for _, own in batch.values()]
        parts = zip(
            batch, features.split(sizes), logits.split(sizes), targets.split(sizes), strict=True
        )
        variances = torch.stack(
            [self._averaged(name, _variance(self.task, *part)) for name, *part in parts]
        )
        penalty = (variances - variances.mean(0)).square().mean()
        return self.task.loss(logits, targets) + self.weight * penalty

    def _averaged(self, name: str, variance: Tensor) -> Tensor:
        """The average with this step's variance in it, divided by 1 - ema."""
        old = self.averages.get(name, torch.zeros_like(variance)).to(variance)
        self.averages[name] = self.ema * old + (1 - self.ema) * self.mean_over_processes(variance)
        return self.ema / (1 - self.ema) * old + variance

    def get_extra_state(self) -> dict[str, Tensor]:
        """The domains' averages, for the state dict."""
        return {name: average.clone() for name, average in self.averages.items()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Takes the domains' averages from a state dict."""
        self.averages = dict(state)


def _variance(task: Task, features: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """The variance over samples of the gradients in weights and biases, flat."""
    with torch.autocast(logits.device.type, enabled=False):
        wide = torch.promote_types(logits.dtype, torch.float32)
        errors = task.errors(logits.to(wide), targets)
        ones = features.new_ones(len(features), 1)
        inputs = torch.cat([features, ones], 1).to(wide)  # the bias is a weight of a constant
        mean = errors.T @ inputs / len(inputs)
        return (errors.square().T @ inputs.square() / len(inputs) - mean.square()).flatten()
