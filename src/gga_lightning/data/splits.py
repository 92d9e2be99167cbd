"""Splits domains into parts: by sample, as DomainBed does, or by group.

A group is an object, a patient or a scene that several samples show. All samples of a group are in
the training part, or none of them is.
"""

import os
import re
from collections.abc import Mapping, Sequence, Sized
from typing import Any, cast

import numpy as np
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from gga_lightning.data.batches import seed_hash

__all__ = [
    "GroupPattern",
    "find_groups",
    "split_domains",
    "split_groups",
    "split_indices",
    "targets_of",
]


def split_domains(
    domains: Mapping[str, Dataset[Any]], sources: Sequence[str], fraction: float, split_seed: int
) -> dict[str, Subset[Any]]:
    """Splits all domains, by group where they have groups, else as DomainBed does.

    Args:
        domains: Domain name to its samples.
        sources: The names of the source domains.
        fraction: Share of the smaller part, or of each class's groups, in (0, 1).
        split_seed: Seed of the splits.

    Returns:
        From kind and domain, such as ``val/art``, to the samples. Source domains have ``train`` and
        ``val``, the others ``test``, and ``oracle`` or ``seen``.

    Raises:
        ValueError: If a domain is too small to split.
    """
    rows: dict[str, list[int]] = {}
    groups = find_groups(domains)
    if groups is not None:
        targets = {name: _strata(targets_of(domain, "groups")) for name, domain in domains.items()}
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
        # arrays, which worker processes share; each of them would copy a list
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
        split_seed: DomainBed's trial seed.
        domain_index: The domain's place among all domains.

    Returns:
        The larger part's indices and the smaller part's, both in DomainBed's order.

    Source: DomainBed, ``split_dataset`` with ``seed_hash(trial_seed, domain_index)``.
    """
    keys = list(range(size))
    np.random.RandomState(seed_hash(split_seed, domain_index)).shuffle(keys)
    cut = int(size * fraction)
    return keys[cut:], keys[:cut]


def targets_of(dataset: Dataset[Any], needed_by: str) -> Any:
    """Finds all targets of a domain, or raises a ValueError that names what needs them."""
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1]
    if isinstance(dataset, Subset):
        return np.asarray(targets_of(dataset.dataset, needed_by))[dataset.indices]
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([targets_of(part, needed_by) for part in dataset.datasets])
    targets = getattr(dataset, "targets", None)
    if targets is None:
        raise ValueError(
            f"`{needed_by}` needs domains with an attribute `targets`, "
            f"got {type(dataset).__name__}."
        )
    return targets


def _strata(targets: Any) -> Any:
    """Finds the classes within which groups are drawn; one class if the targets are no classes."""
    found = np.asarray(targets)
    classes = found.ndim == 1 and np.issubdtype(found.dtype, np.integer)
    return targets if classes else np.zeros(len(found), np.int64)


class GroupPattern:
    """Finds the group of a file in its name, by a regular expression."""

    def __init__(self, pattern: str) -> None:
        """Reads the expression; raises a ValueError if it is none."""
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"`group` must be a regular expression, got {pattern!r}: {error}."
            ) from None

    def __call__(self, path: str) -> str:
        """Finds the group: the first parenthesis, or without one all that matches."""
        name = os.path.basename(path)
        found = self._pattern.match(name)
        text = found and found[min(1, self._pattern.groups)]
        if not text:
            raise ValueError(
                f"`group` must match each file's name from its start, but "
                f"{self._pattern.pattern!r} finds nothing in {name!r}: {path}."
            )
        return text


def find_groups(domains: Mapping[str, Any]) -> dict[str, Sequence[str]] | None:
    """Finds which group each sample belongs to.

    Args:
        domains: Domain name to its samples. Their attribute ``groups``, if they have one, names
            the group of each sample.

    Returns:
        Domain name to the groups of its samples; None if no domain has groups.

    Raises:
        ValueError: If only some domains have groups, or not one for each sample.
    """
    found = {name: getattr(domain, "groups", None) for name, domain in domains.items()}
    known = {name: groups for name, groups in found.items() if groups is not None}
    if not known:
        return None
    lacking = [name for name, groups in found.items() if groups is None]
    if lacking:
        raise ValueError(f"all domains must have `groups`, or none: {lacking} have none.")
    for name, groups in known.items():
        if len(groups) != len(domains[name]):
            raise ValueError(
                f"`groups` of domain {name!r} must name the group of each of its "
                f"{len(domains[name])} samples, got {len(groups)}."
            )
    return known


def split_groups(
    groups: Mapping[str, Sequence[str]],
    targets: Mapping[str, Any],
    sources: Sequence[str],
    fraction: float,
    split_seed: int,
) -> dict[str, list[int]]:
    """Splits all domains by group.

    A share of each class's groups is drawn: source domains validate on these and train on the
    others. A test domain that has groups which a source domain trains on is split into these
    (``seen``) and all others (``test``). Any other test domain is split by the draw, like a
    source domain, into ``test`` and ``oracle``.

    Args:
        groups: Domain name to the group of each of its samples.
        targets: Domain name to the class of each of its samples. A group counts for the class of
            its first sample.
        sources: The names of the source domains.
        fraction: The share of groups, in (0, 1), rounded to the nearest number of groups; of a
            class with two groups or more, at least one is drawn and one is left.
        split_seed: Seed of the draw.

    Returns:
        From kind and domain, such as ``val/art``, to the samples' places, in ascending order.

    Example:
        >>> groups = {"art": ["dog", "cat", "cow"], "photo": ["dog", "dog", "owl"]}
        >>> targets = {"art": [0, 0, 0], "photo": [0, 0, 1]}
        >>> split_groups(groups, targets, ["art"], 0.4, split_seed=0)
        {'train/art': [0, 2], 'val/art': [1], 'test/photo': [2], 'seen/photo': [0, 1]}
    """
    drawn = _draw(groups, targets, fraction, split_seed)
    trained = {str(group) for name in sources for group in groups[name]} - drawn
    rows: dict[str, list[int]] = {}
    for name, members in groups.items():
        kinds, chosen = ("train", "val"), drawn
        if name not in sources:
            shared = trained.intersection(map(str, members))
            kinds, chosen = (("test", "seen"), shared) if shared else (("test", "oracle"), drawn)
        for kind, inside in zip(kinds, (False, True), strict=True):
            places = [i for i, group in enumerate(members) if (str(group) in chosen) is inside]
            rows[f"{kind}/{name}"] = places
    return rows


def _draw(
    groups: Mapping[str, Sequence[str]], targets: Mapping[str, Any], fraction: float, seed: int
) -> set[str]:
    """A share of each class's groups."""
    class_of: dict[str, int] = {}
    for name, members in groups.items():
        for group, target in zip(members, targets[name], strict=True):
            class_of.setdefault(str(group), int(target))
    by_class: dict[int, list[str]] = {}
    for group in sorted(class_of):
        by_class.setdefault(class_of[group], []).append(group)
    random = np.random.RandomState(seed_hash(seed, "groups"))
    drawn: set[str] = set()
    for _, members in sorted(by_class.items()):
        random.shuffle(members)
        count = round(len(members) * fraction)
        if len(members) > 1:
            count = min(max(count, 1), len(members) - 1)
        drawn.update(members[:count])
    return drawn
