"""Splits by group: an object, a patient or a scene is in the training part or not, as a whole."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gga_lightning.data.batches import seed_hash

__all__ = ["find_groups", "split_groups"]


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
