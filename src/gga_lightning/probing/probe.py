"""Evaluates the domains of a training batch without side effects."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch.distributed
from lightning.pytorch import Trainer
from torch import Tensor, nn

from gga_lightning.alignment import DomainEvaluator
from gga_lightning.probing.domains import Domain
from gga_lightning.probing.sandbox import Sandbox
from gga_lightning.probing.source import LossSource
from gga_lightning.probing.trees import content_sum

__all__ = ["Probe"]


class Probe(DomainEvaluator):
    """The domains of a training batch, to be evaluated as often as needed in a sandbox.

    Under several processes every domain is that of all ranks' batches joined. A rank counts by
    its number of samples, and one that has no sample of a domain adds nothing to it. Where
    ``training_step`` returns None, the domain's loss is NaN and its gradient zero.

    Attributes:
        domains: The names of the domains that have samples, on any rank, in a common order.
        missing: Rank to the domains it has no sample of, for the ranks that lack one.
        left_out: The domains that could not be evaluated, having a single sample.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        sandbox: Sandbox,
        source: LossSource,
        params: Sequence[Tensor],
        *,
        batch_idx: int,
        trainer: Trainer,
        loss_scale: float = 1.0,
    ) -> None:
        """Counts the domains' samples over all ranks.

        Args:
            domains: This rank's domains.
            sandbox: Where to evaluate, opened.
            source: What computes the losses.
            params: The parameters to take gradients for.
            batch_idx: The batch's index.
            trainer: The trainer at work.
            loss_scale: What losses are multiplied by while differentiated, against underflow
                in float16.
        """
        self._sandbox = sandbox
        self._source = source
        self._batch_idx = batch_idx
        self._inputs = {domain.name: source.input(domain) for domain in domains}
        alone = [domain.name for domain in domains if self._fails_alone(domain)]
        here = {domain.name: domain.size for domain in domains}
        ranks = [(here, alone)] if trainer.world_size == 1 else _gather((here, alone))
        self.left_out = tuple(dict.fromkeys(name for _, names in ranks for name in names))
        names = dict.fromkeys(name for sizes, _ in ranks for name in sizes)
        self.domains = tuple(name for name in names if name not in self.left_out)
        self.missing = {
            rank: lacking
            for rank, (sizes, _) in enumerate(ranks)
            if (lacking := [name for name in self.domains if name not in sizes])
        }
        totals = [sum(sizes.get(name, 0) for sizes, _ in ranks) for name in self.domains]
        shares = [here.get(n, 0) / total for n, total in zip(self.domains, totals, strict=True)]
        super().__init__(
            [self._loss_of(name) for name in self.domains],
            params,
            sizes=totals,
            shares=shares,
            reduce=_reducer(trainer),
            loss_scale=loss_scale,
        )

    def samples(self) -> int:
        """Computes a number that identifies the samples of the batch on all ranks.

        Returns:
            A number: equal for the same samples, whatever their order and their domains.
        """
        here = sum(content_sum(part) for part in self._inputs.values())
        return here if self._reduce is None else sum(_gather(here))

    @property
    def draws_random_numbers(self) -> bool:
        """Whether an evaluation has drawn random numbers."""
        return self._sandbox.draws_random_numbers

    @property
    def repeatable(self) -> bool:
        """Whether evaluations at the same point are equal: not if each draws new numbers."""
        return not (self._sandbox.redraws and self.draws_random_numbers)

    def around(self, index: int) -> AbstractContextManager[Any]:
        """Evaluates a domain in the sandbox; see :meth:`DomainEvaluator.around`."""
        name = self.domains[index]
        return self._sandbox.run(name, self._inputs[name])

    def rewind(self, index: int) -> None:
        """Undoes what a run changes in tensors; see :meth:`DomainEvaluator.rewind`."""
        self._sandbox.rewind(self.domains[index])

    def redraw(self, index: int) -> None:
        """Sets the random state of a run; see :meth:`DomainEvaluator.redraw`."""
        self._sandbox.redraw(self.domains[index])

    def not_recordable(self) -> str | None:
        """Explains why runs cannot be recorded; see :meth:`DomainEvaluator.not_recordable`."""
        if self._sandbox.redraws and self._sandbox.draws_elsewhere:
            return "`fixed_dropout=False` and the loss draws random numbers outside the GPU"
        if self._sandbox.changes_sparse:
            return "the loss changes a sparse tensor"
        return super().not_recordable()

    def _loss_of(self, name: str) -> Callable[[], Tensor | None]:
        return lambda: self._source(self._sandbox.module, self._sandbox.part, self._batch_idx, name)

    def _fails_alone(self, domain: Domain) -> bool:
        """Whether BatchNorm refuses a domain because it has a single sample here."""
        modules: Iterable[nn.Module] = self._sandbox.module.modules()
        if domain.size > 1 or not any(hasattr(m, "track_running_stats") for m in modules):
            return False  # only such normalization layers refuse one
        try:
            with self._sandbox.run(("alone", domain.name), self._inputs[domain.name]) as part:
                self._source(self._sandbox.module, part, self._batch_idx, domain.name)
        except ValueError as error:
            if "Expected more than 1" in str(error):
                return True
            raise
        return False


def _reducer(trainer: Trainer) -> Callable[[Tensor], Tensor] | None:
    if trainer.world_size == 1:
        return None
    return lambda tensor: trainer.strategy.reduce(tensor, reduce_op="sum")


def _gather(value: Any) -> list[Any]:
    """Collects every rank's value, in the order of the ranks."""
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
