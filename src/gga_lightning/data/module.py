"""Splits a data set's domains into parts and loads them, one loader a source domain."""

import re
from collections.abc import Mapping, Sequence, Sized
from functools import partial
from numbers import Integral
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from gga_lightning.data.batches import TrainBatches, TrainSampler, Transformed, seed_hash
from gga_lightning.data.groups import find_groups, split_groups
from gga_lightning.data.loaders import DomainDataset, DomainLoaders
from gga_lightning.data.names import plain_name
from gga_lightning.data.resume import (
    EpochRestart,
    LazyLoader,
    ResumableLoader,
    training_progress,
)

__all__ = ["DomainDataModule", "check_seed", "split_indices"]

_SEEDS = 2**32  # how many there are, for NumPy and Lightning


class DomainDataModule(DomainLoaders):
    """Leaves domains out for the test and trains on the others, by the field's protocol.

    Every domain is split at random in two. Of a source domain the larger part trains and the
    smaller one validates (training-domain validation). Of a test domain the larger part is what
    is reported, and the smaller one serves the oracle selection alone, so that the reported
    samples never select. The parts equal those of DomainBed, index for
    index, for the same order of samples, ``split_seed`` being its trial seed.

    Where the domains have ``groups`` (the object, patient or scene that each sample shows), whole
    groups are split instead, the same ones in every domain: a share of them is in no training
    part, and source domains validate on these. If a test domain has groups that were trained on
    in other domains, those samples are evaluated apart (``seen``) and serve the oracle selection,
    and its others, new in domain and group, are what is reported (``test``).

    Training batches are ``{source domain: (inputs, targets)}``. Samples are drawn with
    replacement, as in DomainBed. The n-th training batch is a function of the seed and n alone.
    On several processes, each draws its share of a batch that is as many times as large. What
    transforms draw depends on the seed, the batch's place and the process, not on
    ``num_workers``.

    A training that is resumed from a checkpoint therefore gets the batches of the uninterrupted
    training, wherever in an epoch the checkpoint was saved::

        data = DomainDataModule(Digits(), steps_per_epoch=100)
        trainer = Trainer(max_steps=1000, callbacks=[ModelCheckpoint("saved", save_last=True)])
        trainer.fit(module, datamodule=data, ckpt_path="last")

    Weights and optimizer state are also those of the uninterrupted training; add
    :class:`~gga_lightning.callbacks.RandomState` if the module draws random numbers. This needs
    the data module itself: a loader passed as ``trainer.fit(module, data.train_dataloader())``
    cannot know where to continue. Differences that remain, because Lightning's checkpoints lack
    something, are listed in ``docs/data.md``.

    The evaluation loaders are named by part and domain, ``val/<source>``, ``test/<target>`` and
    ``oracle/<target>`` (with groups ``seen/<target>``); a pass over validation is a pass over all
    three.

    Attributes:
        name: The data set's name.
        domains: The names of all domains, in order.
        source_domains: Names of the domains trained on.
        test_domains: Names of the domains held out.
        classes: The classes' names, in the order of their targets.
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
        balance_classes: bool = False,
        augment_validation: bool = False,
        shuffle_domains: bool = False,
    ) -> None:
        """Splits the domains.

        Args:
            dataset: The domains.
            test_domain: Which domain or domains to hold out, by name or by index in their order,
                -1 being the last. Text that is a domain's name is that name, even if it is also
                an index, such as ``"0"``.
            batch_size: Samples of each source domain in a training batch, on each process.
            holdout_fraction: Share of the smaller part, in (0, 1); with groups, the share of
                each class's groups that are not trained on.
            seed: Seed of the order of training samples, from 0 to 2^32 - 1.
            split_seed: Seed of the splits, in the same range; the same as ``seed`` if None.
            steps_per_epoch: Training batches an epoch; if None, as many as the largest source
                domain has batches, and at least one.
            eval_batch_size: Samples in an evaluation batch.
            num_workers: Worker processes, shared by all domains; as many again while evaluating.
            balance_classes: Whether each class of a domain is drawn as often as any other.
            augment_validation: Whether the source domains' validation samples are augmented like
                training samples, as in DomainBed (not in SWAD's and GGA's).
            shuffle_domains: Whether to deal the samples of each training batch out to the source
                domains at random, anew in every batch: the control that tells whether the
                domains matter to an algorithm at all.

        Raises:
            ValueError: If an argument is out of range, there is no such domain, a domain is held
                out twice, no source domain is left, or a domain is too small to split.

        Example:
            >>> from gga_lightning.data import Emoji
            >>> data = DomainDataModule(Emoji(), "openmoji", holdout_fraction=0.4)
            >>> sorted(data.val_dataloader())[:2], sorted(data.test_dataloader())
            (['seen/openmoji', 'test/openmoji'], ['seen/openmoji', 'test/openmoji'])
        """
        super().__init__(dataset, eval_batch_size=eval_batch_size, num_workers=num_workers)
        check_seed("seed", seed)
        if split_seed is not None:
            check_seed("split_seed", split_seed)
        names = list(dataset.domains)
        self.test_domains = _find(names, test_domain)
        self.source_domains = [name for name in names if name not in self.test_domains]
        if not self.source_domains:
            raise ValueError(f"`test_domain` must leave a domain to train on, got all of {names}.")
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise ValueError(f"`steps_per_epoch` must be at least 1, got {steps_per_epoch}.")
        if not 0.0 < holdout_fraction < 1.0:
            raise ValueError(f"`holdout_fraction` must be in (0, 1), got {holdout_fraction}.")
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self._seed = seed
        self._balance_classes = balance_classes
        self._augment_validation = augment_validation
        self._shuffle_domains = shuffle_domains
        self._parts = _split(
            dataset.domains,
            self.source_domains,
            holdout_fraction,
            seed if split_seed is None else split_seed,
        )

    def setup(self, stage: str) -> None:
        """Adds the callback that makes a resumed training continue in the right epoch.

        Args:
            stage: What the trainer does; only ``"fit"`` needs the callback.
        """
        if stage == "fit" and self.trainer is not None:
            callbacks = cast("Any", self.trainer).callbacks
            if not any(isinstance(found, EpochRestart) for found in callbacks):
                callbacks.append(EpochRestart())

    def train_dataloader(self) -> DataLoader[Any]:
        """Makes one loader for all source domains, so that they share the worker processes."""
        parts = {name: self._parts[f"train/{name}"] for name in self.source_domains}
        largest = max(len(part) for part in parts.values())
        rank, ranks = self._ranks()
        steps = self.steps_per_epoch or max(1, largest // self.batch_size)
        sampler = TrainSampler(
            {name: self._weights(part) for name, part in parts.items()},
            steps,
            self.batch_size,
            seed=self._seed,
            rank=rank,
            ranks=ranks,
            progress=self.trainer and partial(training_progress, self.trainer, steps),
        )
        transform = getattr(self._dataset, "train_transform", None)
        samples = {name: Transformed(part, transform) for name, part in parts.items()}
        # without a trainer there is nothing to tell the loader where to continue
        kind = LazyLoader if self.trainer is None else ResumableLoader
        return kind(
            TrainBatches(samples, seed=self._seed, rank=rank, shuffle=self._shuffle_domains),
            batch_size=None,  # a sample of it is a batch
            sampler=sampler,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            pin_memory=self._pins(),
        )

    def val_dataloader(self) -> dict[str, DataLoader[Any]]:
        """Makes the loaders of the validation, test and oracle or seen parts."""
        return self._loaders("val", "test", "oracle", "seen")

    def test_dataloader(self) -> dict[str, DataLoader[Any]]:
        """Makes the loaders of the test parts, and of the seen ones where there are groups."""
        return self._loaders("test", "seen")

    def _loaders(self, *kinds: str) -> dict[str, DataLoader[Any]]:
        return {
            name: self._evaluation_loader(
                part, augment=self._augment_validation and name.startswith("val/")
            )
            for kind in kinds
            for name, part in self._parts.items()
            if name.startswith(f"{kind}/")
        }

    def _weights(self, part: Subset[Any]) -> int | Tensor:
        """How probable each sample is: where all are alike, their number."""
        if not self._balance_classes:
            return len(part)
        targets = _targets(part.dataset, "balance_classes")
        targets = torch.as_tensor(targets)[torch.as_tensor(part.indices)]
        return 1 / targets.bincount()[targets].double()


def _split(
    domains: Mapping[str, Dataset[Any]], sources: Sequence[str], fraction: float, split_seed: int
) -> dict[str, Subset[Any]]:
    """The parts of all domains, by kind and domain: train, val, test, and oracle or seen."""
    rows: dict[str, list[int]] = {}
    groups = find_groups(domains)
    if groups is not None:
        targets = {name: _targets(domain, "groups") for name, domain in domains.items()}
        rows = split_groups(groups, targets, sources, fraction, split_seed)
    else:
        for index, (name, domain) in enumerate(domains.items()):
            size = len(cast(Sized, domain))
            kinds = ("train", "val") if name in sources else ("test", "oracle")
            parts = split_indices(size, fraction, split_seed, index)
            rows |= {f"{kind}/{name}": part for kind, part in zip(kinds, parts, strict=True)}
    found = {}
    for part, chosen in rows.items():
        domain = part.partition("/")[2]
        if not chosen:
            size = len(cast(Sized, domains[domain]))
            raise ValueError(
                f"Domain {domain!r} has {size} samples, too few to split off a share of "
                f"`holdout_fraction={fraction}`{'' if groups is None else ' of their groups'}."
            )
        # arrays, which worker processes share; of lists each would copy every number
        indices: Any = np.array(chosen)
        found[part] = Subset(domains[domain], indices)
    return found


def split_indices(
    size: int, fraction: float, split_seed: int, domain_index: int
) -> tuple[list[int], list[int]]:
    """Splits a domain's indices in two as DomainBed does.

    Args:
        size: How many samples the domain has.
        fraction: Share of the smaller part, in (0, 1); rounded down.
        split_seed: The suite's trial seed.
        domain_index: The domain's place among all domains.

    Returns:
        The larger part's indices and the smaller part's, both in DomainBed's order.

    Source: DomainBed, ``split_dataset`` with ``seed_hash(trial_seed, domain_index)``.
    """
    keys = list(range(size))
    np.random.RandomState(seed_hash(split_seed, domain_index)).shuffle(keys)
    cut = int(size * fraction)
    return keys[cut:], keys[:cut]


def _targets(dataset: Dataset[Any], needed_by: str) -> Any:
    """All targets of a domain."""
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1]
    targets = getattr(dataset, "targets", None)
    if targets is None:
        raise ValueError(
            f"`{needed_by}` needs domains with an attribute `targets`, "
            f"got {type(dataset).__name__}."
        )
    return targets


def check_seed(name: str, value: Any) -> None:
    """Refuses what is not a seed.

    Args:
        name: The argument's or setting's name, for the message.
        value: Its value.

    Raises:
        ValueError: If the value is not an integer from 0 to 2^32 - 1.

    Example:
        >>> check_seed("seed", 3)
        >>> check_seed("seed", -1)
        Traceback (most recent call last):
        ValueError: `seed` must be an integer from 0 to 4294967295, got -1.
    """
    integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not integer or not 0 <= int(value) < _SEEDS:
        raise ValueError(f"`{name}` must be an integer from 0 to {_SEEDS - 1}, got {value!r}.")


def _find(names: list[str], chosen: str | int | Sequence[str | int]) -> list[str]:
    """The domains to hold out, each once."""
    listed: Sequence[object] = [chosen]
    if isinstance(chosen, Sequence) and not isinstance(chosen, str | bytes):
        listed = chosen
    found = [_find_one(names, entry) for entry in listed]
    if not found:
        raise ValueError(f"`test_domain` must name at least one of {names}, got {chosen!r}.")
    repeated = next((name for name in found if found.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(
            f"`test_domain` must name each domain once, but {chosen!r} names {repeated!r} twice."
        )
    return found


def _find_one(names: list[str], entry: object) -> str:
    """The domain of a name or of an index; a name comes before an index."""
    if isinstance(entry, str | Integral) and not isinstance(entry, bool):
        text = plain_name(str(entry))
        alike = [name for name in names if str(entry) == name]
        alike = alike or [name for name in names if plain_name(name) == text]
        if len(alike) == 1:
            return alike[0]
        if re.fullmatch("0|-?[1-9][0-9]*", text) and -len(names) <= int(text) < len(names):
            return names[int(text)]
    raise ValueError(f"`test_domain` must be one of {names} or an index into them, got {entry!r}.")
