"""Records of searched steps, and the lines that sum them up."""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gga_lightning.alignment import Guided, Objective, Proposal, SearchResult

__all__ = ["SearchRecord", "closing_lines", "entry_line", "next_proposal"]


class SearchRecord(NamedTuple):
    """The result of the search at one step.

    Attributes:
        step: The optimizer step.
        min_cosine_start: The lowest pairwise cosine before the search, in [-1, 1].
        min_cosine_end: The lowest pairwise cosine after the search.
        gain: By how much the objective rose.
        candidates: The number of candidates tried.
        accepted: The number of candidates accepted.
        loss_change: By how much the loss changed on the step's batch.
        seconds: How long it took.
        transfer: The difference of the objective between the same two points on the next batch,
            which the search has not seen; None if it was not measured.
        share: The share of a guided step's full length that was accepted last; None for random
            proposals, or if none was accepted.

    Example:
        >>> record = SearchRecord(
        ...     step=100,
        ...     min_cosine_start=-0.25,
        ...     min_cosine_end=0.0,
        ...     gain=0.25,
        ...     candidates=250,
        ...     accepted=10,
        ...     loss_change=0.01,
        ...     seconds=1.5,
        ... )
        >>> record.accepted / record.candidates
        0.04
    """

    step: int
    min_cosine_start: float
    min_cosine_end: float
    gain: float
    candidates: int
    accepted: int
    loss_change: float
    seconds: float
    transfer: float | None = None
    share: float | None = None

    @classmethod
    def of(cls, step: int, result: SearchResult, seconds: float) -> "SearchRecord":
        """Makes the record of a search.

        Args:
            step: The optimizer step.
            result: The result of the search.
            seconds: How long it took.

        Returns:
            The record.
        """
        return cls(
            step=step,
            min_cosine_start=result.start.min_cosine,
            min_cosine_end=result.end.min_cosine,
            gain=result.gain,
            candidates=len(result.scores),
            accepted=len(result.accepted),
            loss_change=result.loss_change,
            seconds=seconds,
            share=result.share,
        )


def next_proposal(
    proposal: Proposal, records: Sequence[SearchRecord], radius_left: float
) -> Proposal:
    """Adapts a proposal to what was accepted at earlier steps.

    Args:
        proposal: The proposal.
        records: The steps searched so far.
        radius_left: The share of its radius that this step has.

    Returns:
        The proposal for the next step: a guided one begins at twice the share that was accepted
        last.
    """
    shares = (record.share for record in reversed(records))
    share = next((share for share in shares if share is not None), None)
    if isinstance(proposal, Guided) and share is not None:
        proposal = dataclasses.replace(proposal, first=min(1.0, 2 * share))
    return proposal if radius_left == 1.0 else proposal.scaled(radius_left)


def entry_line(step: int, end: int | None, domains: str, candidates: int, moved: int) -> str:
    """Describes the search, at the first step of a window.

    Args:
        step: The step.
        end: The step before which the window ends.
        domains: A description of the domains and where they were found.
        candidates: The largest number of candidates of a step.
        moved: The number of parameters that are moved.

    Returns:
        The line.
    """
    return (
        f"searching steps {step} to {(end or 0) - 1} for agreement of {domains}, at most "
        f"{candidates} candidates a step, moving {moved:,} parameters"
    )


def closing_lines(
    records: Sequence[SearchRecord],
    skipped: int,
    same_samples: int,
    objective: Objective,
    window: str,
) -> Iterator[str]:
    """Sums up a window.

    Args:
        records: The searched steps.
        skipped: The number of batches that could not be searched.
        same_samples: The number of batches after a search that had the search's own samples.
        objective: The objective that was raised.
        window: The window in words, for one in which nothing was searched.

    Yields:
        A line on the searches and, if it was measured, one on whether their gains hold on other
        batches.
    """
    left_out = f"; {skipped} steps could not be searched" if skipped else ""
    if not records:
        yield f"searched no step{left_out or f' of its window ({window})'}."
        return
    before = statistics.fmean(record.min_cosine_start for record in records)
    after = statistics.fmean(record.min_cosine_end for record in records)
    gain = statistics.fmean(record.gain for record in records)
    tried = sum(record.candidates for record in records)
    accepted = sum(record.accepted for record in records)
    share = f" ({accepted / tried:.1%})" if tried else ""
    seconds = math.fsum(record.seconds for record in records)
    raised = "" if objective == "min" else f", {objective} cosine"
    yield (
        f"searched {len(records)} steps in {seconds:.1f} s{left_out}; min cosine "
        f"{before:+.4f} -> {after:+.4f}{raised} (gain {gain:+.5f}, mean over the steps), "
        f"{accepted} of {tried} candidates accepted{share}."
    )
    transfers = [record.transfer for record in records if record.transfer is not None]
    if same_samples:
        yield (
            f"{same_samples} times the next batch held the same samples as the search's own, so "
            "that it could not show whether the gain holds on others. With one batch an epoch "
            "use a smaller batch size."
        )
    if len(transfers) < 2:
        return
    mean = statistics.fmean(transfers)
    error = statistics.stdev(transfers) / math.sqrt(len(transfers))
    verdict = "So the gain is not luck with one batch."
    if mean <= 2 * error:
        guided = any(record.share is not None for record in records)
        other = "" if guided else "proposal=Guided(0.01, relative=True, orthogonal=True), or "
        verdict = (
            "That is not above zero: what the search gains is luck with its own batch. Try "
            f"{other}more samples a domain."
        )
    yield (
        f"on the next batch, which the search never saw, the {objective} cosine changes by "
        f"{mean:+.5f} (standard error {error:.5f}, {len(transfers)} steps), on its own by "
        f"{gain:+.5f}. {verdict}"
    )
