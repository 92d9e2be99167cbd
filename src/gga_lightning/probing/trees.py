"""Counts, selects and reassigns the samples of nested batches.

A batch is a tree of mappings, lists, tuples and dataclasses. Entries with one row a sample
(tensors, arrays, lists) are cut; all others (a temperature, class weights) are passed on whole.
"""

import collections
import copy
import dataclasses
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gga_lightning.probing.outline import describe

__all__ = [
    "Cutter",
    "content_sum",
    "copy_containers",
    "count_samples",
    "deal",
    "in_double",
    "leaves",
]

_Place = tuple[Any, ...]


def count_samples(batch: Any) -> int:
    """Counts the samples of a batch: the number of rows that most of its entries have.

    Args:
        batch: A tree. A list of images of different sizes, or of mappings that agree on no
            number of rows, is taken for a list of samples; any other for a list of fields.

    Returns:
        The number; 1 for a batch without tensors, arrays and lists.
    """
    if _holds_samples(batch):
        return len(batch)
    votes: collections.Counter[int] = collections.Counter()
    entries = _children(batch)
    for entry in [batch] if entries is None else entries:
        votes.update(dict.fromkeys(_lengths(entry), 1))
    return votes.most_common(1)[0][0] if votes else 1


class Cutter:
    """Cuts batches into groups of samples, all of them in the same way as the first.

    It remembers which entries had one row a sample, so that an entry of fixed length is not cut
    in a batch that happens to have as many samples.
    """

    def __init__(self) -> None:
        """Has seen no batch yet."""
        self._is_cut: dict[_Place, bool] = {}

    def cut(
        self, batch: Any, labels_at: Any, size: int, groups: Sequence[Sequence[int]]
    ) -> list[Any]:
        """Cuts a batch.

        Args:
            batch: A tree.
            labels_at: The key or index of the labels by which it is cut.
            size: How many labels, and so samples, there are.
            groups: Each group's samples, by their numbers.

        Returns:
            A batch of the same structure for each group.

        Raises:
            ValueError: If no entry beside the labels has one row a sample, or it cannot be told
                whether one has.
        """
        if isinstance(labels_at, int) and not isinstance(batch, Mapping):
            labels_at %= len(batch)
        cuts: list[_Place] = []
        parts = [self._cut((), batch, size, list(rows), cuts) for rows in groups]
        if groups and set(cuts) <= {(labels_at,)}:
            raise ValueError(
                f"Domain labels must have one entry a sample: got {size} labels, but no entry of "
                f"the batch has that many rows ({describe(batch)})."
            )
        return parts

    def _cut(self, place: _Place, tree: Any, size: int, rows: list[int], cuts: list[_Place]) -> Any:
        length = _rows(tree)
        if length is not None and place and self._decide(place, tree, length, size):
            cuts.append(place)
            return _select(tree, rows)
        children = _children(tree)
        if children is None:
            return tree
        names = _names(tree)
        pairs = zip(names, children, strict=True)
        return _rebuild(tree, [self._cut((*place, n), c, size, rows, cuts) for n, c in pairs])

    def _decide(self, place: _Place, tree: Any, length: int, size: int) -> bool:
        """Whether an entry has one row a sample."""
        known = self._is_cut.get(place)
        if known is not None and not (known and length != size):
            return known
        name = "batch" + "".join(f"[{part!r}]" for part in place)
        if known:
            raise ValueError(
                f"It cannot be told whether `{name}` has one row a sample: it had in an earlier "
                f"batch, but has {length} rows in this one of {size} samples. {_OWN_SPLIT}"
            )
        if length == size and _is_ambiguous(tree, size):
            raise ValueError(
                f"It cannot be told whether `{name}` is a list of {size} samples or a list of "
                f"{size} tensors that have {size} samples each. {_OWN_SPLIT}"
            )
        decision = length == size
        if _is_list(tree) and not decision:
            return False  # a list of anything; its entries are decided one by one
        self._is_cut[place] = decision
        return decision


_OWN_SPLIT = (
    "Use another batch size, or give `split=`, a callable that turns the batch into a mapping of "
    "domain names to domain batches."
)


def deal(trees: Sequence[Any], sizes: Sequence[int], order: Tensor) -> list[Any]:
    """Joins the samples of batches of equal structure, reorders them, and cuts them apart again.

    Args:
        trees: The batches.
        sizes: How many samples each has.
        order: A permutation of all samples.

    Returns:
        Batches of the same sizes.

    Raises:
        ValueError: If the structures differ, or no entry has one row a sample.
    """
    cuts: list[bool] = []
    dealt = _deal(list(trees), list(sizes), order, cuts, top=True)
    if not cuts:
        raise ValueError(f"no entry has one row a sample in {describe(trees[0])}")
    return dealt


def _deal(
    trees: list[Any], sizes: list[int], order: Tensor, cuts: list[bool], *, top: bool = False
) -> list[Any]:
    first = trees[0]
    if any(type(tree) is not type(first) for tree in trees):
        kinds = ", ".join(dict.fromkeys(type(tree).__name__ for tree in trees))
        raise ValueError(f"entries of the types {kinds} in one place")
    columns = [_children(tree) for tree in trees]
    fields = top and columns[0] is not None and not all(map(_holds_samples, trees))
    if [_rows(tree) for tree in trees] == sizes and not fields:
        if all(_is_ambiguous(tree, size) for tree, size in zip(trees, sizes, strict=True)):
            raise ValueError("a list of as many tensors as there are samples in each of them")
        if _are_equal(trees):  # class weights, say
            return trees
        cuts.append(True)
        return _split(_select(_join(trees), order.tolist()), sizes)
    if columns[0] is None:
        return trees
    dealt = [_deal(list(c), sizes, order, cuts) for c in zip(*columns, strict=True)]
    rows = zip(*dealt, strict=True)
    return [_rebuild(tree, list(own)) for tree, own in zip(trees, rows, strict=True)]


def copy_containers(batch: Any) -> Any:
    """Copies a batch's mappings, lists, tuples and dataclasses, and keeps what they hold.

    Args:
        batch: A tree.

    Returns:
        A batch of the same entries.
    """
    children = _children(batch)
    if children is None:
        return batch
    try:
        return _rebuild(batch, [copy_containers(child) for child in children])
    except Exception:  # a class of the user, with its own constructor
        return copy.copy(batch)


def content_sum(batch: Any) -> int:
    """Computes a number that depends on the numbers and texts in a batch, but not on their order.

    Args:
        batch: A tree.

    Returns:
        The number: equal for two batches of the same samples, whatever their order.
    """
    if isinstance(batch, np.ndarray) and batch.dtype.kind in "biuf":
        batch = torch.from_numpy(np.ascontiguousarray(batch))
    if isinstance(batch, Tensor):
        sizes = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
        flat = batch.detach().contiguous().reshape(-1)
        return int(flat.view(sizes.get(flat.element_size(), torch.int64)).sum())
    if isinstance(batch, str | int | float):
        return zlib.crc32(str(batch).encode())
    return sum(content_sum(child) for child in _children(batch) or [])


def in_double(batch: Any) -> Any:
    """Converts the floating point numbers in a batch's tensors and arrays to float64.

    Args:
        batch: A tree.

    Returns:
        A batch of the same structure. Entries without such numbers are the same objects.
    """
    if isinstance(batch, Tensor):
        return batch.double() if batch.is_floating_point() else batch
    if isinstance(batch, np.ndarray):
        return batch.astype(np.float64) if batch.dtype.kind == "f" else batch
    children = _children(batch)
    return batch if children is None else _rebuild(batch, [in_double(c) for c in children])


def leaves(batch: Any) -> Iterator[Any]:
    """Finds what is neither a mapping, a list, a tuple nor a dataclass.

    Args:
        batch: A tree.

    Yields:
        Its entries of other types.
    """
    children = _children(batch)
    if children is None:
        yield batch
    else:
        for child in children:
            yield from leaves(child)


def _is_list(tree: Any) -> bool:
    return isinstance(tree, list) or type(tree) is tuple


def _rows(tree: Any) -> int | None:
    """Counts the rows of an entry; returns None if it cannot be cut."""
    if isinstance(tree, Tensor | np.ndarray):
        return tree.shape[0] if tree.ndim else None
    return len(tree) if _is_list(tree) else None


def _is_ambiguous(tree: Any, size: int) -> bool:
    """Whether a list of so many entries may be samples, or tensors of so many samples each."""
    return _is_list(tree) and all(
        isinstance(child, Tensor | np.ndarray) and _rows(child) == size and not _is_image(child)
        for child in tree
    )


def _is_image(tree: Any) -> bool:
    return isinstance(tree, Tensor | np.ndarray) and tree.ndim == 3 and tree.shape[0] in (1, 3, 4)


def _holds_samples(tree: Any) -> bool:
    """Whether a list is one of samples, and not of fields such as (inputs, targets)."""
    # such as images of different sizes, or mappings that agree on no number of rows
    if not _is_list(tree) or len(tree) < 2:
        return False
    if all(isinstance(child, Mapping) for child in tree):
        return not set.intersection(*(set(_lengths(child)) for child in tree))
    return all(map(_is_image, tree)) and len({tuple(child.shape) for child in tree}) > 1


def _lengths(entry: Any) -> list[int]:
    """Lists the numbers of samples that are consistent with an entry."""
    if isinstance(entry, Tensor | np.ndarray) or _is_list(entry):
        found = [] if _rows(entry) is None else [len(entry)]
        inner = {_rows(child) for child in entry} if _is_list(entry) else set()
        return found + [n for n in inner if n is not None and len(inner) == 1]
    return [number for child in _children(entry) or [] for number in _lengths(child)]


def _select(tree: Any, rows: list[int]) -> Any:
    if isinstance(tree, Tensor):
        return tree[torch.tensor(rows, dtype=torch.long, device=tree.device)]
    if isinstance(tree, np.ndarray):
        return tree[rows]
    return type(tree)(tree[row] for row in rows)


def _join(trees: list[Any]) -> Any:
    if isinstance(trees[0], Tensor):
        return torch.cat(trees)
    if isinstance(trees[0], np.ndarray):
        return np.concatenate(trees)
    return type(trees[0])(itertools.chain(*trees))


def _are_equal(trees: list[Any]) -> bool:
    first = trees[0]
    return isinstance(first, Tensor) and all(torch.equal(first, tree) for tree in trees[1:])


def _split(tree: Any, sizes: list[int]) -> list[Any]:
    ends = list(itertools.accumulate(sizes))
    return [tree[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _names(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping):
        return iter(tree)
    if dataclasses.is_dataclass(tree):
        return iter([field.name for field in dataclasses.fields(tree)])
    return iter(range(len(tree)))


def _children(tree: Any) -> list[Any] | None:
    if isinstance(tree, Mapping):
        return list(tree.values())
    if isinstance(tree, tuple | list):
        return list(tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [getattr(tree, field.name) for field in dataclasses.fields(tree)]
    return None


def _rebuild(tree: Any, children: list[Any]) -> Any:
    if isinstance(tree, Mapping):
        mapping = dict(zip(tree, children, strict=True))
        return mapping if type(tree) is dict else type(tree)(mapping)  # type: ignore[call-arg]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*children)
    if isinstance(tree, tuple | list):
        return type(tree)(children)
    names = [field.name for field in dataclasses.fields(tree)]
    return dataclasses.replace(tree, **dict(zip(names, children, strict=True)))
