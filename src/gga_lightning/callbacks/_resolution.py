"""Measures which changes of the objective the arithmetic of a search can resolve."""

import contextlib
import math
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from gga_lightning.alignment import Guided, Objective, Proposal, uniform_noise
from gga_lightning.callbacks._reader import DomainReader, StepStart
from gga_lightning.callbacks._records import SearchRecord

__all__ = ["Resolution", "measure_resolution", "resolution_lines"]

_POINTS = 3  # drawn a measurement
_DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
_DROPPING = ((_DROPOUTS, "p"), (nn.MultiheadAttention, "dropout"), (nn.RNNBase, "dropout"))


class Resolution(NamedTuple):
    """How well the arithmetic of a search resolves changes of the objective.

    Attributes:
        step: The optimizer step at which it was measured.
        change: The true change between the present point and one drawn at the search's radius,
            computed in float64: root mean square over the points. In units of a cosine. None
            without points.
        error: The error of the search's own change: root mean square over the points. None
            without points.
        points: The number of points that were drawn; 0 if nothing could be measured.
        reason: The reason if there are fewer points than usual, else None.
    """

    step: int
    change: float | None = None
    error: float | None = None
    points: int = 0
    reason: str | None = None


def measure_resolution(
    reader: DomainReader,
    start: StepStart,
    compared: Sequence[nn.Parameter],
    params: Sequence[nn.Parameter],
    *,
    proposal: Proposal,
    objective: Objective,
    draw: torch.Generator,
    shuffle: torch.Generator | None,
) -> Resolution:
    """Measures, on a batch, the rounding error of changes of the objective.

    The objective is computed at the present point and at three points at the search's radius,
    once as the search does it and once on a float64 copy of the module and the batch. Dropout
    layers drop nothing during this, because they would draw other masks in float64.

    Args:
        reader: Opens the batch.
        start: The batch.
        compared: The parameters whose gradients are compared.
        params: The parameters that the search moves. They end where they are.
        proposal: The search's proposal, for its radius.
        objective: Which of the pairwise cosines counts.
        draw: A CPU generator for the points.
        shuffle: If given, assigns the samples to the domains at random. It is not advanced.

    Returns:
        The measurement.
    """
    if start.trainer.world_size > 1:
        return Resolution(start.step, reason="there are several processes")
    before = [param.detach().clone() for param in params]
    found: list[tuple[float, float]] = []
    reason = None
    try:
        with _without_dropout(start.module):
            for point in range(_POINTS + 1):
                if point:
                    _move(params, before, proposal, draw)
                pair = _objectives(reader, start, compared, objective, shuffle)
                if not all(map(math.isfinite, pair)):
                    reason = "the objective is not finite"
                    break
                found.append(pair)
    except Exception as error:  # of the module's code in float64, or of full memory
        reason = str(error).partition("\n")[0] or type(error).__name__
    finally:
        _put_back(params, before)
    points = len(found) - 1
    if points < 1:
        return Resolution(start.step, reason=reason)
    (seen_here, true_here), *others = found
    changes = [true - true_here for _, true in others]
    errors = [seen - seen_here - change for (seen, _), change in zip(others, changes, strict=True)]
    return Resolution(start.step, _rms(changes), _rms(errors), points, reason)


def resolution_lines(
    measured: Sequence[Resolution], records: Sequence[SearchRecord], objective: Objective
) -> Iterator[str]:
    """Reports the measurements, and whether rounding errors decided the selection.

    Args:
        measured: The measurements of a window.
        records: Its searched steps.
        objective: The objective that was raised.

    Yields:
        A line, if there was any measurement.
    """
    good = [found for found in measured if found.points]
    if measured and not good:
        yield f"the rounding error was not measured: {(measured[0].reason or '').rstrip('.')}."
    if not good:
        return
    change, error = overall(good)
    gain, accepted = sum(r.gain for r in records), sum(r.accepted for r in records)
    verdict = ""
    if error >= change:
        verdict = (
            " Rounding errors are the larger ones, so candidates were selected by rounding error "
            "and not by agreement. Compute in a higher precision, or take a larger radius."
        )
    elif accepted and gain / accepted < error:
        verdict = (
            f" An accepted candidate gains {gain / accepted:.1e} on average, which is within "
            "rounding error: nothing was selected. Compute in a higher precision, or take a "
            "larger radius."
        )
    yield (
        f"at this radius the {objective} cosine changes by {change:.1e}, and rounding errors are "
        f"{error:.1e} (root mean square of {sum(found.points for found in good)} draws).{verdict}"
    )


def overall(measured: Sequence[Resolution]) -> tuple[float, float]:
    """Pools measurements.

    Args:
        measured: Those with points.

    Returns:
        Change and error, root mean square over all their points.
    """
    total = sum(found.points for found in measured)
    change = sum(found.points * (found.change or 0.0) ** 2 for found in measured)
    error = sum(found.points * (found.error or 0.0) ** 2 for found in measured)
    return math.sqrt(change / total), math.sqrt(error / total)


def _objectives(
    reader: DomainReader,
    start: StepStart,
    compared: Sequence[nn.Parameter],
    objective: Objective,
    shuffle: torch.Generator | None,
) -> tuple[float, float]:
    """Computes the objective as the search does, and in float64."""
    values: list[float] = []
    for double in (False, True):
        again = None if shuffle is None else shuffle.clone_state()
        with reader.open(start, compared, again, double=double) as probe:
            if probe is None:
                return math.nan, math.nan
            score = probe.score(objective)
            assert score is not None
            if double and probe.draws_random_numbers:
                raise RuntimeError(
                    "the loss draws random numbers, other than in dropout layers, and draws "
                    "other ones in float64"
                )
            values.append(score.objective if score.finite else math.nan)
    return values[0], values[1]


@torch.no_grad()
def _move(
    params: Sequence[nn.Parameter],
    before: Sequence[Tensor],
    proposal: Proposal,
    generator: torch.Generator,
) -> None:
    """Moves the parameters to a random point at the proposal's radius."""
    if isinstance(proposal, Guided) and proposal.relative:
        # uniform noise that is as long as the full step
        size = sum(value.numel() for value in before)
        radii = [proposal.radius * float(get_total_norm(before)) * math.sqrt(3 / size)] * len(
            before
        )
    else:
        radii = proposal.radii(before)
    for param, value, radius in zip(params, before, radii, strict=True):
        # on the CPU, for the same points on every device
        noise = uniform_noise(torch.empty_like(value, device="cpu"), radius, generator)
        param.copy_(value + noise.to(value))


@torch.no_grad()
def _put_back(params: Sequence[nn.Parameter], before: Sequence[Tensor]) -> None:
    for param, value in zip(params, before, strict=True):
        param.copy_(value)


@contextlib.contextmanager
def _without_dropout(module: nn.Module) -> Generator[None]:
    """Sets the probability of dropout layers to 0 in the body, and so in copies made there."""
    layers = [
        (part, name, getattr(part, name))
        for part in module.modules()
        for kind, name in _DROPPING
        if isinstance(part, kind)
    ]
    for part, name, _ in layers:
        setattr(part, name, 0.0)
    try:
        yield
    finally:
        for part, name, probability in layers:
            setattr(part, name, probability)


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values) / len(values))
