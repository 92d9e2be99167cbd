"""Splits a data set's domains into parts and loads them, one loader a source domain."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, Dataset, Subset
from torch.utils.data.distributed import DistributedSampler

from gga_lightning.domains import shuffle_domains, split_batch

__all__ = ["DomainDataModule", "DomainDataset", "split_indices"]


class DomainDataset(Protocol):
    """A data set with several domains.

    Attributes:
        name: What it is called in results.
        domains: Domain name to its samples, pairs (input, integer target).
        num_classes: How many classes the targets have.
        input_shape: Shape of one input.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def domains(self) -> Mapping[str, Dataset[Any]]: ...  # noqa: D102

    @property
    def num_classes(self) -> int: ...  # noqa: D102

    @property
    def input_shape(self) -> tuple[int, ...]: ...  # noqa: D102


class DomainDataModule(LightningDataModule):
    """Leaves domains out for the test and trains on the others, by the field's protocol.

    Every domain is split at random in two. Of a source domain the larger part trains and the
    smaller one validates (training-domain validation). Of a test domain the larger part is what
    is reported, and the smaller one serves the oracle selection alone, so that the reported
    samples never select. The parts equal those of the reference suite (DomainBed), index for
    index, for the same order of samples, ``split_seed`` being its trial seed.

    Training batches are ``{source domain: (inputs, targets)}``. Samples are drawn with
    replacement, as in the suite, from a stream that depends on the seed, the epoch and the domain
    alone: a run resumed at an epoch's end, and a run on several processes, draws what the
    straight run on one process draws (a process takes its share of a batch that is as many times
    as large).

    The evaluation loaders are named by part and domain, ``val/<source>``, ``test/<target>`` and
    ``oracle/<target>``; a pass over validation is a pass over all three.

    Attributes:
        name: The data set's name.
        source_domains: Names of the domains trained on.
        test_domains: Names of the domains held out.
        num_classes: How many classes there are.
        input_shape: Shape of one input.
    """

    def __init__(
        self,
        dataset: DomainDataset,
        test_domain: str | int | Sequence[str | int] = -1,
        *,
        batch_size: int = 32,
        holdout_fraction: float = 0.2,
        seed: int = 0,
        split_seed: int | None = None,
        steps_per_epoch: int | None = None,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        shuffle_domains: bool = False,
    ) -> None:
        """Splits the domains.

        Args:
            dataset: The domains.
            test_domain: Which domain or domains to hold out, by name or by index in their order,
                -1 being the last.
            batch_size: Samples of each source domain in a training batch, on each process.
            holdout_fraction: Share of the smaller part, in (0, 1).
            seed: Seed of the order of training samples.
            split_seed: Seed of the splits; the same as ``seed`` if None.
            steps_per_epoch: Training batches an epoch; if None, as many as the largest source
                domain has batches, and at least one.
            eval_batch_size: Samples in an evaluation batch.
            num_workers: Worker processes of each loader.
            shuffle_domains: Whether to deal the samples of each training batch out to the source
                domains at random, anew in every batch: the control that tells whether the
                domains matter to an algorithm at all.

        Raises:
            ValueError: If an argument is out of range, there is no such domain, fewer than one
                source domain is left, or a source domain is too small to split.
        """
        super().__init__()
        names = list(dataset.domains)
        self.test_domains = _find(names, test_domain)
        self.source_domains = [name for name in names if name not in self.test_domains]
        if not self.source_domains:
            raise ValueError(f"`test_domain` must leave a domain to train on, got all of {names}.")
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise ValueError(f"`steps_per_epoch` must be at least 1, got {steps_per_epoch}.")
        if not 0.0 < holdout_fraction < 1.0:
            raise ValueError(f"`holdout_fraction` must be in (0, 1), got {holdout_fraction}.")
        self.name = dataset.name
        self.num_classes = dataset.num_classes
        self.input_shape = tuple(dataset.input_shape)
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self._seed = seed
        self._eval_batch_size = eval_batch_size
        self._num_workers = num_workers
        self._shuffle_domains = shuffle_domains
        self._large: dict[str, Subset[Any]] = {}
        self._small: dict[str, Subset[Any]] = {}
        for index, (name, domain) in enumerate(dataset.domains.items()):
            size = len(cast(Sized, domain))
            large, small = split_indices(
                size, holdout_fraction, seed if split_seed is None else split_seed, index
            )
            if not large or not small:
                raise ValueError(
                    f"Domain {name!r} has {size} samples, too few to split off a share of "
                    f"`holdout_fraction={holdout_fraction}`."
                )
            self._large[name], self._small[name] = Subset(domain, large), Subset(domain, small)

    def train_dataloader(self) -> CombinedLoader:
        """Makes one loader a source domain, all of the same length, combined by name."""
        largest = max(len(self._large[name]) for name in self.source_domains)
        steps = self.steps_per_epoch or max(1, largest // self.batch_size)
        rank, ranks = self._ranks()
        loaders = {
            name: DataLoader(
                self._large[name],
                batch_size=self.batch_size,
                sampler=_TrainSampler(
                    len(self._large[name]),
                    steps,
                    self.batch_size,
                    seed=_hash(self._seed, name),
                    rank=rank,
                    ranks=ranks,
                ),
                num_workers=self._num_workers,
                persistent_workers=self._num_workers > 0,
            )
            for name in self.source_domains
        }
        if not self._shuffle_domains:
            return CombinedLoader(loaders, "min_size")
        return _ShuffledDomains(loaders, "min_size", seed=self._seed, rank=rank)

    def val_dataloader(self) -> dict[str, DataLoader[Any]]:
        """Makes the loaders of the validation, test and oracle parts."""
        parts = {f"val/{name}": self._small[name] for name in self.source_domains}
        parts |= {f"test/{name}": self._large[name] for name in self.test_domains}
        parts |= {f"oracle/{name}": self._small[name] for name in self.test_domains}
        return {name: self._evaluation_loader(part) for name, part in parts.items()}

    def test_dataloader(self) -> dict[str, DataLoader[Any]]:
        """Makes the loaders of the test parts."""
        return {
            f"test/{name}": self._evaluation_loader(self._large[name]) for name in self.test_domains
        }

    def _evaluation_loader(self, part: Subset[Any]) -> DataLoader[Any]:
        return DataLoader(
            part,
            batch_size=self._eval_batch_size,
            sampler=_EvaluationSampler(len(part), *self._ranks()),
            num_workers=self._num_workers,
        )

    def _ranks(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size


def split_indices(
    size: int, fraction: float, split_seed: int, domain_index: int
) -> tuple[list[int], list[int]]:
    """Splits a domain's indices in two as the reference suite does.

    Args:
        size: How many samples the domain has.
        fraction: Share of the smaller part, in (0, 1); rounded down.
        split_seed: The suite's trial seed.
        domain_index: The domain's place among all domains.

    Returns:
        The larger part's indices and the smaller part's, both in the suite's order.

    Source: DomainBed, ``split_dataset`` with ``seed_hash(trial_seed, domain_index)``.
    """
    keys = list(range(size))
    np.random.RandomState(_hash(split_seed, domain_index)).shuffle(keys)
    cut = int(size * fraction)
    return keys[cut:], keys[:cut]


def _hash(*values: Any) -> int:
    """The suite's way from a tuple to a seed: the MD5 of its text, modulo 2^31."""
    return int(hashlib.md5(str(values).encode(), usedforsecurity=False).hexdigest(), 16) % 2**31


def _find(names: list[str], chosen: str | int | Sequence[str | int]) -> list[str]:
    listed = [chosen] if isinstance(chosen, str | int) else list(chosen)
    found: list[str] = []
    for entry in listed:
        if str(entry) in names:
            found.append(str(entry))
        elif isinstance(entry, int) and -len(names) <= entry < len(names):
            found.append(names[entry])
        else:
            raise ValueError(
                f"`test_domain` must be one of {names} or an index into them, got {entry!r}."
            )
    return found


class _TrainSampler(DistributedSampler[int]):
    """An epoch of draws with replacement, a function of the seed and the epoch.

    A DistributedSampler, so that Lightning tells it the epoch and leaves it in its place.
    """

    def __init__(
        self, size: int, steps: int, batch_size: int, *, seed: int, rank: int, ranks: int
    ) -> None:
        self._size = size
        self._shape = (steps, ranks, batch_size)
        self._rank = rank
        self._seed = seed
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(_hash(self._seed, self.epoch))
        draws = torch.randint(self._size, self._shape, generator=generator)
        return iter(draws[:, self._rank].flatten().tolist())

    def __len__(self) -> int:
        steps, _, batch_size = self._shape
        return steps * batch_size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class _ShuffledDomains(CombinedLoader):
    """Deals each batch's samples out to the domains at random, anew in every batch and epoch."""

    def __init__(self, iterables: Any, mode: Any, *, seed: int, rank: int) -> None:
        super().__init__(iterables, mode)
        self._seed = seed
        self._rank = rank

    def __next__(self) -> tuple[Any, int, int]:
        batch, index, loader = super().__next__()
        epoch = self.flattened[0].sampler.epoch
        seed = _hash(self._seed, "shuffle", epoch, index, self._rank)
        dealt = shuffle_domains(split_batch(batch), torch.Generator().manual_seed(seed))
        return dealt.parts, index, loader


class _EvaluationSampler(DistributedSampler[int]):
    """This process's share of the samples, in order, none twice."""

    def __init__(self, size: int, rank: int, ranks: int) -> None:
        self._indices = range(rank, size, ranks)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)
