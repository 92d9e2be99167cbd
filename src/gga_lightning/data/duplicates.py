"""Images that are in a data set more than once."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from gga_lightning.data.listing import Listed
from gga_lightning.data.splits import split_indices

__all__ = ["find_duplicates"]

_HOLDOUT = 0.2  # the default of DomainDataModule


def find_duplicates(
    listed: Listed, digests: Sequence[bytes | None], *, split_seed: int = 0
) -> dict[str, list[list[str]]]:
    """Finds images that a data set contains more than once.

    Args:
        listed: Domain name to (path, class name) of each image.
        digests: A digest of the pixels of each image, domain by domain; None for images to
            ignore.
        split_seed: Seed of the split whose training and validation parts are compared.

    Returns:
        Groups of files with the same pixels, by what the files of a group have in common:
        ``"domains"`` if they are in several domains, ``"classes"`` if in several classes of a
        domain, ``"parts"`` if in the training and the validation part of one class and domain,
        ``"part"`` if in only one of the two.

    Example:
        >>> listed = {"photo": [("1.jpg", "cat")], "web": [("2.png", "cat"), ("3.png", "dog")]}
        >>> find_duplicates(listed, [b"a", b"a", b"b"])["domains"]
        [['1.jpg', '2.png']]
    """
    files = [(domain, *pair) for domain, pairs in listed.items() for pair in pairs]
    validation = _validation(listed, digests, split_seed)
    found: dict[str, list[list[str]]] = {"domains": [], "classes": [], "parts": [], "part": []}
    for group in _groups(digests):
        if len({files[index][0] for index in group}) > 1:
            kind = "domains"
        elif len({files[index][2] for index in group}) > 1:
            kind = "classes"
        else:
            kind = "parts" if len({index in validation for index in group}) > 1 else "part"
        found[kind].append([files[index][1] for index in group])
    return found


def _groups(digests: Sequence[bytes | None]) -> Iterator[list[int]]:
    """Finds the indices of digests that occur at least twice."""
    known = [index for index, digest in enumerate(digests) if digest is not None]
    known.sort(key=lambda index: digests[index] or b"")
    for _, equal in groupby(known, key=lambda index: digests[index]):
        group = list(equal)
        if len(group) > 1:
            yield group


def _validation(listed: Listed, digests: Sequence[bytes | None], split_seed: int) -> set[int]:
    """Places in the digests of the images in the domains' smaller parts."""
    found: set[int] = set()
    start = 0
    for number, pairs in enumerate(listed.values()):
        known = [i for i in range(start, start + len(pairs)) if digests[i] is not None]
        found.update(known[i] for i in split_indices(len(known), _HOLDOUT, split_seed, number)[1])
        start += len(pairs)
    return found
