"""PGrad: steps along the principal directions of a walk over the domains."""

import torch
from torch import Tensor, nn

from gga_lightning.algorithms.base import (
    ADAM,
    Batch,
    DomainBatch,
    OptimizerFactory,
    require_domains,
)
from gga_lightning.algorithms.manual import ManualGeneralizer
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["PGrad"]


class PGrad(ManualGeneralizer):
    """Moves along the principal directions of the points that a walk over the domains visits.

    Each domain's batch is cut into R parts. In R rounds the optimizer makes one step for each of
    the D domains, in a random order that is drawn anew in each round, on that round's part of the
    domain's batch. The walk visits the points theta_0, ..., theta_{RD}. The points are centered by
    their mean; u_k are their principal directions (of length 1) and e_k the eigenvalues of their
    covariance. With delta = theta_0 - theta_{RD}, the gradient is::

        G = |delta| * sum over k of (e_k / |e|) * s_k * u_k,    s_k = 1 if u_k . delta > 0, else -1,

    over the first ``num_directions`` directions, where ``|e|`` is the norm of their eigenvalues.
    The update ends at theta_0 - meta_lr * G. The trainer counts it as one step, and callbacks that
    change gradients (GGA-L) see the walk's last. R * D + 1 copies of the parameters are in memory.

    Directions with eigenvalue 0, which are not defined, have no part in G. If all points lie on a
    line, G = delta, and the update is that of Fish with the same ``meta_lr``.

    Source: Wang, Grigsby & Qi, ICLR 2023, arXiv 2305.01134, and its code. There weight decay acts
    on the last step and not in the walk; here it is the optimizer's, and acts in the walk. There
    running statistics of normalization layers never move.

    Example:
        On equal domains the walk is nearly a line of two steps of 0.001, of which half is kept:

        >>> from lightning.pytorch import Trainer
        >>> from torch.utils.data import DataLoader
        >>> from gga_lightning.backbones import MLP
        >>> x, y = torch.ones(1, 4), torch.tensor([0])
        >>> model = PGrad(MLP((4,)), num_classes=2, rounds=1, meta_lr=0.5)
        >>> before = model.classifier.bias.detach().clone()
        >>> train = DataLoader([{"a": (x, y), "b": (x, y)}], batch_size=None)
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = Trainer(fast_dev_run=True, accelerator="cpu", **quiet)
        >>> trainer.fit(model, train, DataLoader([(x, y)], batch_size=None))
        >>> [round(change, 4) for change in (model.classifier.bias - before).tolist()]
        [0.001, -0.001]
    """

    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        meta_lr: float = 0.1,
        rounds: int = 3,
        num_directions: int = 4,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            meta_lr: The step along G; positive.
            rounds: How often the walk goes over the domains (R), and into how many parts batches
                are cut; at least 1. Each domain needs as many samples.
            num_directions: How many principal directions count; at least 1.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not meta_lr > 0:
            raise ValueError(f"`meta_lr` must be positive, got {meta_lr}.")
        for name, value in (("rounds", rounds), ("num_directions", num_directions)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        self.meta_lr = meta_lr
        self.rounds = rounds
        self.num_directions = num_directions

    def update(self, batch: Batch) -> Tensor:
        """Walks over the domains and makes a step from the start.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The mean loss along the walk, to be logged.
        """
        require_domains(batch, "PGrad", samples=self.rounds)
        start = [param.detach().clone() for param in self.trained]
        walk = self._walk(list(batch.values()))
        # differences from the start, because products of the points themselves lose digits
        points = [old.new_zeros(len(walk) + 1, *old.shape) for old in start]
        losses: list[Tensor] = []
        for number, part in enumerate(walk, start=1):
            loss = self.domain_loss(part)
            losses.append(loss.detach())
            self.step(self.gradient(loss), counts=number == len(walk))
            for own, param, old in zip(points, self.trained, start, strict=True):
                torch.sub(param.detach(), old, out=own[number])
        with torch.no_grad(), torch.autocast(losses[0].device.type, enabled=False):
            shares = self._shares(points)
            for param, old, own in zip(self.trained, start, points, strict=True):
                direction = torch.tensordot(shares.to(own), own, dims=1)
                param.copy_(old - self.meta_lr * direction)
        return torch.stack(losses).mean()

    def _walk(self, parts: list[DomainBatch]) -> list[DomainBatch]:
        """What the walk's steps are made on."""
        walk: list[DomainBatch] = []
        for turn in range(self.rounds):
            order = self.from_first_process(torch.randperm(len(parts))).tolist()
            for inputs, targets in (parts[index] for index in order):
                begin, end = (len(targets) * place // self.rounds for place in (turn, turn + 1))
                walk.append((inputs[begin:end], targets[begin:end]))
        return walk

    def _shares(self, points: list[Tensor]) -> Tensor:
        """G as a combination of the n points, shape (n,), by the points' products alone."""
        # With X the centered points and v an eigenvector of X X^T of eigenvalue a, a direction is
        # u = X^T v / sqrt(a), and e is proportional to a. Hence e u needs no division by a.
        exact = torch.float32 if points[0].device.type == "mps" else torch.float64
        flat = (own.reshape(len(own), -1).to(exact) for own in points)
        products = torch.stack([own @ own.T for own in flat]).sum(0)
        number = len(products)
        center = torch.eye(number, dtype=exact, device=products.device) - 1 / number
        values, vectors = torch.linalg.eigh(center @ products @ center)
        values = values[-self.num_directions :]
        rounding = number * torch.finfo(exact).eps * values[-1]
        values = torch.where(values > rounding, values, 0.0)  # of these the direction is undefined
        combined = center @ vectors[:, -self.num_directions :]
        # delta is minus the last difference
        along = -(products[-1] @ combined)
        signs = torch.where(along > 0, 1.0, -1.0).to(exact)
        length = products[-1, -1].sqrt() / values.norm().clamp(min=torch.finfo(exact).tiny)
        return combined @ (length * signs * values.sqrt())
