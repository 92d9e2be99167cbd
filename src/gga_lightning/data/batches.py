"""Which samples make a batch, and how worker processes make it."""

import contextlib
import hashlib
import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torch.utils.data.distributed import DistributedSampler

from gga_lightning.probing.domains import Splitter

__all__ = ["Draw", "EvaluationSampler", "TrainBatches", "TrainSampler", "Transformed", "seed_hash"]


def seed_hash(*values: Any) -> int:
    """Computes a seed from a tuple as DomainBed does.

    Args:
        *values: The tuple.

    Returns:
        The MD5 of its text, modulo 2^31.
    """
    return int(hashlib.md5(str(values).encode(), usedforsecurity=False).hexdigest(), 16) % 2**31


class Draw(NamedTuple):
    """Which samples a training batch has, and the batch's position in the training."""

    rows: dict[str, list[int]]
    epoch: int
    step: int


class TrainSampler(DistributedSampler[Draw]):
    """An endless sequence of draws with replacement. A pass yields the draws of one epoch.

    A draw is a function of the seed, the domain, the epoch and the step in that epoch. A pass
    begins with the first draw that has not been trained on, so a training that is resumed within
    an epoch continues with the draws of the uninterrupted one.

    It is a DistributedSampler, because Lightning leaves those in place and tells them the epoch.
    """

    def __init__(
        self,
        weights: Mapping[str, int | Tensor],
        steps: int,
        batch_size: int,
        *,
        seed: int,
        rank: int,
        ranks: int,
        progress: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        """Sets the sequence.

        Args:
            weights: Domain name to the probability of each of its samples, shape ``(N,)``; or to N
                alone if all are equally probable.
            steps: Batches in an epoch.
            batch_size: Samples of each domain in a process's batch.
            seed: Seed of the draws.
            rank: This process's rank.
            ranks: The number of processes.
            progress: Returns the number of batches trained on so far and the number of batches
                in an epoch. If None, a pass is the epoch given to :meth:`set_epoch`.
        """
        self._weights = weights
        self._progress = progress
        self._shape = (steps, ranks, batch_size)
        self._seed = seed
        self._rank = rank
        self._epoch = 0

    def __iter__(self) -> Iterator[Draw]:
        steps = len(self)
        trained, length = self._progress() if self._progress else (self._epoch * steps, steps)
        drawn_epoch, drawn = -1, {}
        for index in range(trained, trained + steps):
            epoch, step = divmod(index, length)
            if epoch != drawn_epoch:
                drawn_epoch, drawn = epoch, self._drawn(epoch)
            yield Draw({name: rows[step] for name, rows in drawn.items()}, epoch, step)

    def __len__(self) -> int:
        return self._shape[0]

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch. Lightning calls this method.

        Args:
            epoch: The epoch.
        """
        self._epoch = epoch

    def _drawn(self, epoch: int) -> dict[str, list[list[int]]]:
        """Domain name to its rows in each of this process's batches of an epoch."""
        return {name: self._rows(name, epoch).tolist() for name in self._weights}

    def _rows(self, name: str, epoch: int) -> Tensor:
        """A domain's rows in each of this process's batches, shape (steps, batch size)."""
        seed = seed_hash(seed_hash(self._seed, name), epoch)
        generator = torch.Generator().manual_seed(seed)
        weights = self._weights[name]
        if isinstance(weights, int):
            draws = torch.randint(weights, self._shape, generator=generator)
        else:
            count = torch.Size(self._shape).numel()
            draws = torch.multinomial(weights, count, replacement=True, generator=generator)
        return draws.view(self._shape)[:, self._rank]


class TrainBatches(Dataset[dict[str, Any]]):
    """Training batches of all domains.

    The random numbers of a sample's transform depend on the seed, the rank and the batch's
    position alone: they are the same in any worker process or in none, and after resuming.
    """

    def __init__(
        self,
        parts: Mapping[str, Dataset[Any]],
        *,
        seed: int,
        rank: int,
        shuffle: bool,
        views: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        views_mixed: bool = False,
    ) -> None:
        """Sets the domains.

        Args:
            parts: Domain name to its samples.
            seed: Seed of all that is drawn.
            rank: This process's place.
            shuffle: Whether to assign each batch's samples to the domains at random.
            views: View name to the function that makes the view of an input. A domain's samples are
                assigned in turn to itself and to one domain for each view, such as ``art/edges``.
            views_mixed: Whether the samples stay in their domain instead. For each one, either
                the original or one of the views is then drawn at random.
        """
        self._parts = parts
        self._seed = seed
        self._rank = rank
        self._shuffle = shuffle
        self._views = dict(views or {})
        self._views_mixed = views_mixed

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        place = (draw.epoch, draw.step, self._rank)
        batch: dict[str, Any] = {}
        with _seeded(seed_hash(self._seed, "samples", *place)):
            for name, rows in draw.rows.items():
                samples = [self._parts[name][row] for row in rows]
                batch |= self._viewed(name, samples, place) if self._views else {name: samples}
        batch = {name: default_collate(samples) for name, samples in batch.items()}
        if not self._shuffle:
            return batch
        seed = seed_hash(self._seed, "shuffle", *place)
        domains = Splitter()(batch, torch.Generator().manual_seed(seed))
        return {domain.name: domain.batch for domain in domains}

    def _viewed(
        self, name: str, samples: list[Any], place: tuple[int, ...]
    ) -> dict[str, list[Any]]:
        """The samples by domain, in their views."""
        makers = [None, *self._views.values()]
        if self._views_mixed:
            # of its own, so that what the transforms draw is the same with views and without
            generator = torch.Generator().manual_seed(seed_hash(self._seed, "views", name, *place))
            drawn = torch.randint(len(makers), (len(samples),), generator=generator).tolist()
            return {name: [_view(s, makers[k]) for s, k in zip(samples, drawn, strict=True)]}
        names = [name, *(f"{name}/{view}" for view in self._views)]
        return {
            full: [_view(sample, maker) for sample in samples[first :: len(makers)]]
            for first, (full, maker) in enumerate(zip(names, makers, strict=True))
        }


def _view(sample: Any, maker: Callable[[Tensor], Tensor] | None) -> Any:
    inputs, *rest = sample
    return (inputs if maker is None else maker(inputs)), *rest


class Transformed(Dataset[Any]):
    """Samples with transformed inputs and, if needed, renumbered classes."""

    def __init__(
        self,
        part: Dataset[Any],
        transform: Callable[[Any], Any] | None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Sets samples and transform.

        Args:
            part: Samples, each a tuple that begins with input and target.
            transform: The transform of an input; None to leave inputs unchanged.
            numbers: The new number of each class; None to keep the old ones.
        """
        self._part = part
        self._numbers = numbers
        self._transform = transform

    def __getitem__(self, index: int) -> Any:
        if self._transform is None and self._numbers is None:
            return self._part[index]
        inputs, target, *rest = self._part[index]
        inputs = inputs if self._transform is None else self._transform(inputs)
        target = target if self._numbers is None else self._numbers[int(target)]
        return inputs, target, *rest

    def __len__(self) -> int:
        return len(cast(Sized, self._part))


class EvaluationSampler(DistributedSampler[int]):
    """This process's share of the samples, in order, none twice."""

    def __init__(self, size: int, rank: int, ranks: int) -> None:
        """Sets the share.

        Args:
            size: The number of samples.
            rank: This process's rank.
            ranks: The number of processes.
        """
        self._indices = range(rank, size, ranks)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


@contextlib.contextmanager
def _seeded(seed: int) -> Generator[None]:
    """Seeds torch, NumPy and Python on the CPU in the body, and restores their states after it."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach for the GPU too
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
