"""Scrambles the move of a search, or scores it on another batch."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from gga_lightning.alignment import Objective
from gga_lightning.probing.probe import Probe

__all__ = ["PendingTransfer", "copies", "named_trainable", "scramble"]


class PendingTransfer(NamedTuple):
    """A move that is still to be scored on the next batch.

    It holds all trainable parameters, not only those that the search moves: by then the training
    step will have moved the others too.

    Attributes:
        step: The optimizer step of the search.
        samples: A number that identifies the samples of the search's batch, see
            :meth:`Probe.samples`.
        before: The parameters before the move, by name; empty if the search did not move.
        after: The parameters after it.
    """

    step: int
    samples: int
    before: dict[str, Tensor]
    after: dict[str, Tensor]

    @property
    def moved(self) -> bool:
        """Whether the search moved the parameters."""
        return bool(self.after)

    def gain(self, params: Mapping[str, nn.Parameter], probe: Probe, objective: Objective) -> float:
        """Computes by how much the move raises the objective on an opened batch.

        Args:
            params: The trainable parameters by name. Their values are restored at the end. Those
                that have become trainable since the move are ignored.
            probe: The batch.
            objective: Which of the pairwise cosines counts.

        Returns:
            The difference; NaN where a loss or an objective is not finite.
        """
        after = _objective_at(self.after, params, probe, objective)
        return after - _objective_at(self.before, params, probe, objective)


def named_trainable(module: LightningModule) -> dict[str, nn.Parameter]:
    """Finds the trainable parameters.

    Args:
        module: The module.

    Returns:
        The parameters by name.
    """
    return {name: param for name, param in module.named_parameters() if param.requires_grad}


def copies(params: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Copies the values of parameters.

    Args:
        params: The parameters by name.

    Returns:
        Their values by name.
    """
    return {name: param.detach().clone() for name, param in params.items()}


@torch.no_grad()
def scramble(
    module: LightningModule,
    params: Iterable[nn.Parameter],
    before: Mapping[str, Tensor],
    generator: torch.Generator,
) -> None:
    """Replaces the sign of every coordinate of a move by a random one.

    Args:
        module: The module, after the move.
        params: The parameters that were moved.
        before: The values of all trainable parameters before the move, by name.
        generator: A CPU generator.
    """
    names = {id(param): name for name, param in named_trainable(module).items()}
    for param in params:
        old = before[names[id(param)]]
        signs = torch.randint(2, param.shape, generator=generator).to(param) * 2 - 1
        param.copy_(old + (param - old) * signs)


@torch.no_grad()
def _objective_at(
    values: Mapping[str, Tensor],
    params: Mapping[str, nn.Parameter],
    probe: Probe,
    objective: Objective,
) -> float:
    """Computes the objective at another point; NaN if it or the loss is not finite."""
    moved = {name: params[name] for name in values if name in params}
    here = copies(moved)
    try:
        for name, param in moved.items():
            param.copy_(values[name])
        with torch.enable_grad():
            score = probe.score(objective)
        assert score is not None
        return score.objective if score.finite else torch.nan
    finally:
        for name, param in moved.items():
            param.copy_(here[name])
