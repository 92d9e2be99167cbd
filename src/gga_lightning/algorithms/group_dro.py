"""Group distributionally robust optimization (GroupDRO)."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import (
    ADAM,
    Batch,
    DomainGeneralizer,
    OptimizerFactory,
    require_domains,
)
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["GroupDRO"]


class GroupDRO(DomainGeneralizer):
    """Minimizes a mean of the domains' losses that gives domains with a high loss more weight.

    At each step a domain's weight is multiplied by exp(eta * its loss), and the weights are
    normalized to sum to 1 (over the domains of a batch, where some are missing). They are kept by
    the domains' names and saved with the weights of the network. With several processes they follow
    the mean of the losses over the processes.

    Source: Sagawa et al., ICLR 2020, arXiv 1911.08731, Algorithm 1. As in DomainBed since 2021;
    SWAD and the paper's code divide the loss by the number of domains. All domains go through the
    network in one pass, which differs from theirs where BatchNorm is in training mode.

    Example:
        The true classes have probabilities 3/4 and 1/4. With eta = 1, the weights are then in the
        ratio of 4/3 to 4:

        >>> from gga_lightning.backbones import MLP
        >>> model = GroupDRO(MLP((2,)), num_classes=2, eta=1.0)
        >>> model.forward = lambda logits: logits
        >>> logits = torch.tensor([[3.0, 1.0]]).log()
        >>> batch = {"a": (logits, torch.tensor([0])), "b": (logits, torch.tensor([1]))}
        >>> _ = model.objective(batch)
        >>> {name: round(float(weight), 2) for name, weight in model.weights.items()}
        {'a': 0.25, 'b': 0.75}
    """

    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        eta: float = 0.01,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            eta: The weights' step size; not negative.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``eta`` is negative.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not eta >= 0:
            raise ValueError(f"`eta` must not be negative, got {eta}.")
        self.eta = eta
        self.weights: dict[str, Tensor] = {}

    def objective(self, batch: Batch) -> Tensor:
        """Updates the weights and computes the weighted loss.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        if not self.weights:  # later batches may lack domains
            require_domains(batch, "GroupDRO")
        losses = self.domain_losses(batch)
        seen = self.mean_over_processes(losses)
        old = {name: weight.to(seen) for name, weight in self.weights.items()}
        # a domain seen for the first time begins with the others' mean weight
        start = torch.stack([*old.values()]).mean() if old else torch.ones_like(seen[0])
        factors = dict(zip(batch, (self.eta * seen).exp(), strict=True))
        new = {name: old.get(name, start) * factors.get(name, 1.0) for name in old | factors}
        total = torch.stack([*new.values()]).sum()
        self.weights = {name: weight / total for name, weight in new.items()}
        present = torch.stack([self.weights[name] for name in batch])
        return torch.dot(losses, present / present.sum())

    def get_extra_state(self) -> dict[str, Tensor]:
        """The domains' weights, for the state dict."""
        return {name: weight.clone() for name, weight in self.weights.items()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Takes the domains' weights from a state dict."""
        self.weights = dict(state)
