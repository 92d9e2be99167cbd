"""Empirical risk minimization."""

from torch import Tensor

from gga_lightning.algorithms.base import Batch, DomainGeneralizer, pool

__all__ = ["ERM"]


class ERM(DomainGeneralizer):
    """Minimizes the mean loss over all source domains' samples, taken together.

    Source: Vapnik, 1998.
    """

    def objective(self, batch: Batch) -> Tensor:
        """Computes the mean cross-entropy over the joined batch.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, a scalar.
        """
        return self.domain_loss(pool(batch))
