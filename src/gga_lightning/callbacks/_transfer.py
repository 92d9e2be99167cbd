"""Whether a move that a search made also gains on a batch that the search never saw."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gga_lightning.probing import Probe
from gga_lightning.score import Objective

__all__ = ["Move"]


class Move(NamedTuple):
    """A move still to be scored on the next batch: all compared parameters before and after it.

    All, since by then the training step will have moved those too that the search leaves alone.

    Attributes:
        step: The optimizer step of the search.
        before: The parameters before it; none where the search did not move them.
        after: The parameters after it.
    """

    step: int
    before: Sequence[Tensor] = ()
    after: Sequence[Tensor] = ()

    def gain(self, params: list[nn.Parameter], opened: Probe, objective: Objective) -> float:
        """Finds by how much the move raises the objective on an opened batch.

        Args:
            params: The compared parameters. They end where they are.
            opened: The batch.
            objective: Which of the pairwise cosines counts.

        Returns:
            The difference; NaN where a loss or an objective is not finite.
        """
        before, after = (
            _objective_at(end, params, opened, objective) for end in (self.before, self.after)
        )
        return after - before


@torch.no_grad()
def _objective_at(
    values: Sequence[Tensor], params: list[nn.Parameter], opened: Probe, objective: Objective
) -> float:
    """The objective at another point; NaN where its loss or it is not finite."""
    here = [param.clone() for param in params]
    try:
        for param, value in zip(params, values, strict=True):
            param.copy_(value)
        with torch.enable_grad():
            score = opened.score(objective)
        assert score is not None
        return score.objective if score.finite else torch.nan
    finally:
        for param, value in zip(params, here, strict=True):
            param.copy_(value)
