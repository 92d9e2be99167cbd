"""Splits training batches into domains.

The native form is a mapping from domain names to domain batches,
``{"photo": (inputs, targets), "sketch": (inputs, targets)}``, as
``CombinedLoader({"photo": loader, "sketch": loader})`` yields it. Batches with a label for the
domain of each sample, and any other structure with a callable of the user's, are accepted too.
"""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gga_lightning.probing.outline import describe
from gga_lightning.probing.trees import Cutter, copy_containers, count_samples, deal

__all__ = ["Domain", "Split", "Splitter", "shuffle_domains"]

Split = str | int | Callable[[Any], "Mapping[Any, Any] | Iterable[Domain]"]

_LABEL_KEYS = ("domain", "domains")
_HELP = (
    "Give a mapping of domain names to (inputs, targets), a batch (inputs, targets, domain "
    "labels), or a mapping with the labels under 'domain'; or say where the labels are with "
    "`split=KEY_OR_INDEX`; or give `split=CALLABLE`, which turns the batch into a mapping of "
    "domain names to domain batches."
)


@dataclass(frozen=True)
class Domain:
    """One domain's part of a training batch.

    Attributes:
        name: The domain's name.
        batch: Its samples, the argument of ``domain_loss``.
        size: The number of samples.
        step: The training batch with this domain's samples only, the argument of
            ``training_step``.

    Example:
        >>> samples = (torch.zeros(2, 3), torch.tensor([0, 1]))
        >>> domain = Domain("photo", samples, size=2, step={"photo": samples})
        >>> domain.name, domain.size
        ('photo', 2)
    """

    name: str
    batch: Any
    size: int
    step: Any


class Splitter:
    """Splits training batches into domains, all of them in the same way as the first.

    Attributes:
        source: A description of where the domains of the last batch were found.

    Example:
        >>> splitter = Splitter()
        >>> batch = (torch.zeros(3, 5), torch.tensor([0, 1, 0]), ["photo", "sketch", "photo"])
        >>> {domain.name: domain.size for domain in splitter(batch)}
        {'photo': 2, 'sketch': 1}
        >>> splitter.source
        'the labels batch[2]'
    """

    def __init__(self, split: Split | None = None) -> None:
        """Sets where the domains of a batch are found.

        Args:
            split: The key or index of the domain labels in a batch; or a callable that takes a
                batch and returns its domains, a mapping of names to batches or a list of
                :class:`Domain`. If None, a batch must have one of three forms: a mapping of
                domain names to domain batches, each of them a tuple, list or mapping (the native
                form); a sequence ``(inputs, targets, labels)``; a mapping with the labels under
                ``"domain"`` or ``"domains"``. Labels are integers or strings, one a sample, in a
                tensor, array, list or tuple.
        """
        self.source = "`split`"
        self._split = split
        self._cutter = Cutter()

    def __call__(self, batch: Any, shuffle: torch.Generator | None = None) -> list[Domain]:
        """Splits a batch.

        Args:
            batch: Any nesting of mappings, tuples, lists and dataclasses. With labels for N
                samples, entries with N rows (tensors, arrays, lists) are cut, all others are
                passed on to every domain whole.
            shuffle: If given, a CPU generator by which the samples are assigned to the domains
                at random, see :func:`shuffle_domains`.

        Returns:
            The domains that have samples, in the mapping's order or in that of the sorted
            labels.

        Raises:
            ValueError: If no domains can be found in the batch, ``split`` does not fit it, or it
                cannot be told whether an entry has one row a sample.
        """
        if callable(self._split):
            domains = _own_domains(self._split(copy_containers(batch)))
        elif (key := _label_key(batch) if self._split is None else self._split) is not None:
            labels = _labels_at(batch, key)
            if self._split is None and isinstance(batch, tuple | list):
                _check_plausible(labels)
            self._split = key
            self.source = f"the labels batch[{key!r}]"
            return self._by_label(batch, key, labels, shuffle)
        elif _is_native(batch):
            self.source = "the batch's keys"
            domains = _own_domains(batch, native=True)
        else:
            raise ValueError(f"Found no domains in the batch, {describe(batch)}. {_HELP}")
        return shuffle_domains(domains, shuffle) if shuffle and len(domains) > 1 else domains

    def _by_label(
        self, batch: Any, key: Any, labels: list[Any], shuffle: torch.Generator | None
    ) -> list[Domain]:
        """Cuts a batch into one batch per domain, in the order of the labels on every rank."""
        size = len(labels)
        order = torch.randperm(size, generator=shuffle).tolist() if shuffle else range(size)
        rows: dict[Any, list[int]] = {}
        for row, label in zip(order, labels, strict=True):
            rows.setdefault(label, []).append(row)
        try:
            names = sorted(rows)
        except TypeError:  # integers and strings
            names = sorted(rows, key=str)
        parts = self._cutter.cut(batch, key, size, [rows[name] for name in names])
        return [
            Domain(str(name), part, len(rows[name]), part)
            for name, part in zip(names, parts, strict=True)
        ]


def shuffle_domains(domains: Sequence[Domain], generator: torch.Generator) -> list[Domain]:
    """Assigns the samples to the domains at random, with the sizes of the domains unchanged.

    This is the control for all methods that use domains. All samples and their targets are kept;
    only the information about the domain of a sample is lost.

    Args:
        domains: The domains, with batches of equal structure.
        generator: A CPU generator.

    Returns:
        Domains of the same names and sizes.

    Raises:
        ValueError: If the domains' batches cannot be joined.

    Example:
        >>> domains = Splitter()({"photo": (torch.zeros(2),), "sketch": (torch.ones(2),)})
        >>> mixed = shuffle_domains(domains, torch.Generator().manual_seed(0))
        >>> [(domain.name, domain.size) for domain in mixed]
        [('photo', 2), ('sketch', 2)]
        >>> sorted(torch.cat([domain.batch[0] for domain in mixed]).tolist())
        [0.0, 0.0, 1.0, 1.0]
    """
    sizes = [domain.size for domain in domains]
    order = torch.randperm(sum(sizes), generator=generator)
    try:
        mixed = deal([domain.batch for domain in domains], sizes, order)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            "The domains of a batch can be shuffled only where their batches have the same "
            f"structure and samples of the same shape ({error})."
        ) from error
    return [_with_batch(domain, batch) for domain, batch in zip(domains, mixed, strict=True)]


def _with_batch(domain: Domain, batch: Any) -> Domain:
    native = domain.step is not domain.batch
    return replace(domain, batch=batch, step={next(iter(domain.step)): batch} if native else batch)


def _own_domains(found: Any, *, native: bool = False) -> list[Domain]:
    """Lists the domains of a batch in the native form, or of the result of the user's callable."""
    if isinstance(found, Mapping):
        return [
            Domain(str(name), part, count_samples(part), {name: part} if native else part)
            for name, part in found.items()
            if part is not None and count_samples(part) > 0
        ]
    domains = list(found) if isinstance(found, Iterable) else [found]
    if not all(isinstance(domain, Domain) for domain in domains):
        raise ValueError(
            "`split` must return a mapping of domain names to domain batches, or a list of "
            f"Domain, got {type(found).__name__}."
        )
    return [domain for domain in domains if domain.size > 0]


def _label_key(batch: Any) -> str | int | None:
    """Finds the domain labels of a batch, if they are unambiguous."""
    if isinstance(batch, Mapping):
        return next((key for key in _LABEL_KEYS if _plain_labels(batch.get(key))), None)
    if isinstance(batch, tuple | list) and len(batch) == 3:
        labels = _plain_labels(batch[2])
        if labels and len(labels) == count_samples(batch[:2]):
            return 2
    return None


def _plain_labels(value: Any) -> list[Any] | None:
    """Reads labels, integers or strings, one per sample; returns None for anything else."""
    if isinstance(value, Tensor | np.ndarray):
        if value.ndim != 1:
            return None
        value = value.tolist()
    if not isinstance(value, list | tuple):
        return None
    labels = [_plain_label(entry) for entry in value]
    return None if any(label is None for label in labels) else labels


def _plain_label(value: Any) -> int | str | None:
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.item() if value.size and value.ndim == 0 else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return value


def _labels_at(batch: Any, key: str | int) -> list[Any]:
    try:
        found = batch[key]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"`split={key!r}` must be a key or an index of the batch, {describe(batch)}."
        ) from error
    labels = _plain_labels(found)
    if labels is None and _plain_label(found) is not None:  # one for the whole batch
        labels = [_plain_label(found)] * count_samples(batch)
    if labels is None:
        raise ValueError(
            f"`split={key!r}` must lead to domain labels, integers or strings, one a sample, "
            f"got {describe(found)}."
        )
    return labels


def _check_plausible(labels: list[Any]) -> None:
    """Raises an error if most values occur once, as sample numbers and lengths do."""
    single = sum(count == 1 for count in collections.Counter(labels).values())
    if single >= 4 and 2 * single >= len(set(labels)):
        raise ValueError(
            f"The third element of the batch has {len(set(labels))} different values in "
            f"{len(labels)} samples, {single} of them once, so it is not taken for the domain "
            f"label. If it is, say so with `split=2`. {_HELP}"
        )


def _is_native(batch: Any) -> bool:
    if not isinstance(batch, Mapping):
        return False
    parts = [part for part in batch.values() if part is not None]
    return bool(parts) and all(isinstance(part, tuple | list | Mapping) for part in parts)
