"""Splits a data set's domains into parts and loads them, one loader a source domain."""

import re
from collections.abc import Callable, Mapping, Sequence, Sized
from functools import cached_property, partial
from numbers import Integral
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from gga_lightning.data.batches import TrainBatches, TrainSampler, Transformed
from gga_lightning.data.loaders import DomainDataset, DomainLoaders
from gga_lightning.data.names import plain_name
from gga_lightning.data.pseudo import check_count, split_by_style
from gga_lightning.data.resume import (
    EpochRestart,
    LazyLoader,
    ResumableLoader,
    training_progress,
)
from gga_lightning.data.splits import split_domains, targets_of
from gga_lightning.data.views import VIEWS

__all__ = ["DomainDataModule", "check_seed"]

_SEEDS = 2**32  # how many there are, for NumPy and Lightning


class DomainDataModule(DomainLoaders):
    """Holds domains out for the test and trains on the others, by the field's protocol.

    Every domain is split at random in two. Of a source domain the larger part trains and the
    smaller one validates (training-domain validation). Of a test domain the larger part is
    reported, and the smaller one serves only the oracle selection. The reported samples
    therefore never take part in a selection. The parts equal those of DomainBed, index for
    index, for the same order of samples, ``split_seed`` being its trial seed.

    Where the domains have ``groups`` (the object, patient or scene that each sample shows), whole
    groups are split instead, the same ones in every domain: a share of them is in no training
    part, and source domains validate on these. If a test domain has groups that were trained on
    in other domains, those samples are evaluated apart (``seen``) and serve the oracle selection,
    and its others, new in domain and group, are what is reported (``test``).

    Training batches are ``{source domain: (inputs, targets)}``. Samples are drawn with
    replacement, as in DomainBed. The n-th training batch is a function of the seed and n alone.
    With n processes, each draws its share of a batch that is n times as large. The random
    numbers of transforms depend on the seed, the batch's position and the process, but not on
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
        num_classes: The number of classes.
        input_shape: Shape of one input.
        split_seed: The seed of the splits.
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
        views: Sequence[str] = (),
        views_as: Literal["domains", "augmentation"] = "domains",
        pseudo_domains: int | None = None,
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
                domain or pseudo-domain has batches, and at least one.
            eval_batch_size: Samples in an evaluation batch.
            num_workers: Worker processes, shared by all domains; as many again while evaluating.
            balance_classes: Whether each class of a domain is drawn as often as any other.
            augment_validation: Whether the source domains' validation samples are augmented like
                training samples, as in DomainBed (not in SWAD's and GGA's).
            shuffle_domains: Whether to assign the samples of each training batch to the source
                domains at random. This control shows whether the domains matter to an algorithm
                at all.
            views: Other views of the training images, of ``"edges"`` (dark lines on white, by
                the Sobel gradient), ``"gray"`` and ``"gradient_map"`` (how steeply the brightness
                changes, equalized); see :mod:`gga_lightning.data.views`. They are made of the
                augmented images. Evaluation has no views.
            views_as: ``"domains"``: a source domain's samples are assigned in turn to the
                domain and to its views, which are domains of their own (``art``,
                ``art/edges``), so that algorithms and callbacks compare views too.
                ``"augmentation"``: the domains stay the same. For each image, the original or
                one of its views is drawn, all equally probable.
            pseudo_domains: If given and not 0, a number of groups into which the training images
                of all source domains together are divided by style, by ``split_seed``; see
                :func:`gga_lightning.data.pseudo.style_clusters`. They take the place of the source
                domains in training batches (``cluster-0``, ``cluster-1``), each with
                ``batch_size`` samples. Evaluation keeps the true domains.

        Raises:
            ValueError: If an argument is out of range, there is no such domain, a domain is held
                out twice, no source domain is left, a domain is too small to split, there are
                views of other inputs than integer images with three channels, or pseudo-domains
                of other inputs than images.

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
        self.split_seed = seed if split_seed is None else split_seed
        self._seed = seed
        self._balance_classes = balance_classes
        self._augment_validation = augment_validation
        self._shuffle_domains = shuffle_domains
        self._views_mixed = views_as == "augmentation"
        self._views = self._find_views(views, views_as)
        self._pseudo_domains = check_count(pseudo_domains, self.input_shape)
        self._parts = split_domains(
            dataset.domains, self.source_domains, holdout_fraction, self.split_seed
        )
        fit = getattr(dataset, "fit", None)
        if fit is not None:
            self._fitted = fit({d: self._parts[f"train/{d}"] for d in self.source_domains})

    @property
    def training_domains(self) -> list[str]:
        """The domains in a training batch, sources or pseudo-domains with their views, by name."""
        views = () if self._views_mixed else self._views
        clusters = [f"cluster-{number}" for number in range(self._pseudo_domains)]
        domains = clusters or self.source_domains
        return [name for d in domains for name in (d, *(f"{d}/{v}" for v in views))]

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
        """Makes one loader for all domains in a batch, so that they share the worker processes."""
        parts = self._training_parts
        largest = max(len(cast(Sized, part)) for part in parts.values())
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
        transform = self._transform("train_transform")
        samples = {name: Transformed(part, transform) for name, part in parts.items()}
        # without a trainer, the loader cannot know where to continue
        kind = LazyLoader if self.trainer is None else ResumableLoader
        return kind(
            TrainBatches(
                samples,
                seed=self._seed,
                rank=rank,
                shuffle=self._shuffle_domains,
                views=self._views,
                views_mixed=self._views_mixed,
            ),
            batch_size=None,  # a sample of it is a batch
            sampler=sampler,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            pin_memory=self._pins(),
        )

    @cached_property
    def _training_parts(self) -> Mapping[str, Dataset[Any]]:
        """The training samples of each source domain or pseudo-domain."""
        parts = {name: self._parts[f"train/{name}"] for name in self.source_domains}
        if not self._pseudo_domains:
            return parts
        return split_by_style(
            ConcatDataset(parts.values()),
            self._pseudo_domains,
            transform=self._transform("eval_transform"),
            num_workers=self._num_workers,
            batch_size=self.batch_size,
            seed=self.split_seed,
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

    def _find_views(
        self, views: Sequence[str], views_as: str
    ) -> dict[str, Callable[[Tensor], Tensor]]:
        """Finds the function of each view, after checking that views are possible."""
        if views_as not in ("domains", "augmentation"):
            raise ValueError(f"`views_as` must be 'domains' or 'augmentation', got {views_as!r}.")
        chosen = list(views)
        if not set(chosen) <= VIEWS.keys() or len(set(chosen)) < len(chosen):
            raise ValueError(f"`views` must be different ones of {list(VIEWS)}, got {chosen}.")
        integers = getattr(self._dataset, "as_uint8", False)
        if chosen and not (integers and len(self.input_shape) == 3 and self.input_shape[0] == 3):
            raise ValueError(
                f"`views` need integer images with three channels (`as_uint8=True`), but those of "
                f"{self.name!r} are of shape {self.input_shape}{'' if integers else ', floats'}."
            )
        if views_as == "domains" and self.batch_size <= len(chosen):
            raise ValueError(
                f"`batch_size` must be at least {len(chosen) + 1}, a sample for the domain and one "
                f"for each of its views {chosen}, got {self.batch_size}."
            )
        return {name: VIEWS[name] for name in chosen}

    def _weights(self, part: Dataset[Any]) -> int | Tensor:
        """Finds the probability of each sample; their number if all are equally probable."""
        if not self._balance_classes:
            return len(cast(Sized, part))
        targets = torch.as_tensor(targets_of(part, "balance_classes"))
        if targets.ndim != 1 or targets.is_floating_point():
            raise ValueError(
                "`balance_classes` must be False for targets that are not one class for each "
                f"sample; those of {self.name!r} are {str(targets.dtype).removeprefix('torch.')} "
                f"of shape {tuple(targets.shape)}."
            )
        return 1 / targets.bincount()[targets].double()


def check_seed(name: str, value: Any) -> None:
    """Raises an error if a value is not a seed.

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
    """Finds the domain of a name or an index. Names take precedence."""
    if isinstance(entry, str | Integral) and not isinstance(entry, bool):
        text = plain_name(str(entry))
        alike = [name for name in names if str(entry) == name]
        alike = alike or [name for name in names if plain_name(name) == text]
        if len(alike) == 1:
            return alike[0]
        if re.fullmatch("0|-?[1-9][0-9]*", text) and -len(names) <= int(text) < len(names):
            return names[int(text)]
    raise ValueError(f"`test_domain` must be one of {names} or an index into them, got {entry!r}.")
