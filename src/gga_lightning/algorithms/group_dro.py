"""Group distributionally robust optimization (GroupDRO)."""

from typing import Any

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import Batch, DomainGeneralizer

__all__ = ["GroupDRO"]


class GroupDRO(DomainGeneralizer):
    """Minimizes a weighted mean of the domains' losses, the weights following the worst.

    At each step a domain's weight is multiplied by exp(eta * its loss), and the weights are
    normalized to sum to 1. They are kept by the domains' names and saved with the weights of the
    network; on several processes they follow the losses' mean over them.

    Source: Sagawa et al., ICLR 2020, arXiv 1911.08731, Algorithm 1. As DomainBed since 2021; SWAD
    and the paper's suite divide the loss by the number of domains. All domains go through the
    network in one pass, which differs from theirs where BatchNorm is in training mode.
    """

    def __init__(
        self, featurizer: nn.Module, num_classes: int, *, eta: float = 0.01, **settings: Any
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            eta: The weights' step size; not negative.
            **settings: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If ``eta`` is negative.
        """
        super().__init__(featurizer, num_classes, **settings)
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
        losses = self.domain_losses(batch)
        seen = self.mean_over_processes(losses)
        one = torch.ones_like(seen[0])
        new = torch.stack([self.weights.get(name, one).to(seen) for name in batch])
        new = new * (self.eta * seen).exp()
        new = new / new.sum()
        self.weights.update(zip(batch, new.unbind(), strict=True))
        return torch.dot(losses, new)

    def get_extra_state(self) -> dict[str, Tensor]:
        """The domains' weights, for the state dict."""
        return {name: weight.clone() for name, weight in self.weights.items()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Takes the domains' weights from a state dict."""
        self.weights = dict(state)
