"""What a batch of domains is, and how to make one out of a labelled batch.

The native form is a mapping from domain names to domain batches,
``{"photo": (inputs, targets), "sketch": (inputs, targets)}``, as
``CombinedLoader({"photo": loader, "sketch": loader})`` yields it. Batches with a domain label in
them, and any other structure with a callable of the user's, are turned into the same mapping by
:func:`split_batch`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "DomainBatches",
    "Split",
    "batch_rows",
    "shuffle_domains",
    "split_batch",
    "split_by_label",
]

Split = str | int | Callable[[Any], Mapping[Any, Any]]

_LABEL_KEYS = ("domain", "domains")
_HELP = (
    "Give a mapping of domain names to (inputs, targets), a batch (inputs, targets, domain "
    "labels), or a mapping with the labels under 'domain'; or say where the labels are with "
    "`split=KEY_OR_INDEX`; or give `split=CALLABLE`, which turns the batch into a mapping of "
    "domain names to domain batches."
)


class DomainBatches(NamedTuple):
    """A batch seen as domains.

    Attributes:
        parts: Domain name to the domain's own batch, what ``domain_loss`` takes.
        steps: Domain name to what ``training_step`` takes: the batch cut down to one domain.
        source: Where the domains come from, in words, for messages.
        split: What to give as ``split`` to see further batches in the same way.
    """

    parts: dict[str, Any]
    steps: dict[str, Any]
    source: str
    split: Split | None


def split_batch(batch: Any, split: Split | None = None) -> DomainBatches:
    """Sees a training batch as one batch a domain.

    Args:
        batch: Without ``split``, one of three forms: a mapping of domain names to domain batches,
            each of them a tuple, list or mapping (the native form); a sequence ``(inputs,
            targets, labels)`` whose third element is a vector of integers, one a sample; a
            mapping with such a vector (or a list of strings) under ``"domain"`` or
            ``"domains"``.
        split: The key or index of the domain labels in the batch, or a callable that takes the
            batch and returns a mapping of domain names to domain batches.

    Returns:
        The domains that have samples, in the mapping's order or in that of the sorted labels.

    Raises:
        ValueError: If no domains can be found in the batch, or ``split`` does not fit it; the
            message says which forms there are.
    """
    if callable(split):
        parts = split(batch)
        if not isinstance(parts, Mapping):
            raise ValueError(
                "`split` must return a mapping of domain names to domain batches, "
                f"got {type(parts).__name__}."
            )
        parts = _with_samples(parts)
        return DomainBatches(parts, parts, "`split`", split)
    key = _label_key(batch) if split is None else split
    if key is not None:
        parts = split_by_label(batch, _labels_at(batch, key))
        return DomainBatches(parts, parts, f"the labels batch[{key!r}]", key)
    if _is_native(batch):
        parts = _with_samples(batch)
        steps = {name: {name: part} for name, part in parts.items()}
        return DomainBatches(parts, steps, "the batch's keys", None)
    raise ValueError(f"Found no domains in the batch, {_describe(batch)}. {_HELP}")


def split_by_label(batch: Any, labels: Tensor | Sequence[Any]) -> dict[str, Any]:
    """Cuts a batch into one batch a domain, by a label for each sample.

    Args:
        batch: Any nesting of mappings, tuples, lists and dataclasses. Tensors whose first
            dimension is the number of samples N, and lists of N plain values, are cut; all else
            is handed to every domain as it is.
        labels: N labels, a tensor of shape ``(N,)`` or a sequence of integers or strings.

    Returns:
        Label (as text) to the domain's batch, of the same structure as ``batch``, the labels
        sorted, so that the order is the same in every batch and on every rank.

    Raises:
        ValueError: If ``labels`` is not one-dimensional, or no tensor of the batch has one row a
            label.
    """
    if isinstance(labels, Tensor):
        if labels.ndim != 1:
            raise ValueError(
                "Domain labels must be a vector with one label a sample, "
                f"got shape {tuple(labels.shape)}."
            )
        labels = labels.tolist()
    rows: dict[Any, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    if batch_rows(batch, expected=len(labels)) != len(labels):
        raise ValueError(
            f"Domain labels must have one entry a sample: got {len(labels)} labels, but no "
            f"tensor of the batch has that many rows ({_describe(batch)})."
        )
    return {
        str(label): _take(batch, len(labels), torch.tensor(rows[label])) for label in sorted(rows)
    }


def shuffle_domains(batches: DomainBatches, generator: torch.Generator) -> DomainBatches:
    """Deals the samples out to the domains at random, each domain as large as before.

    The control for everything that uses domains: all samples are still there, with all that
    belongs to them, and only which domain they are of is lost.

    Args:
        batches: The domains, of equal structure.
        generator: A CPU generator.

    Returns:
        Domains of the same names and sizes.

    Raises:
        ValueError: If the domains' batches cannot be joined.
    """
    sizes = [batch_rows(part) for part in batches.parts.values()]
    order = torch.randperm(sum(sizes), generator=generator)
    try:
        mixed = _mix(list(batches.parts.values()), sizes, order)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            "The domains of a batch can be shuffled only where their batches have the same "
            f"structure and samples of the same shape ({error})."
        ) from error
    parts = dict(zip(batches.parts, mixed, strict=True))
    native = batches.steps is not batches.parts
    steps = {name: {name: part} for name, part in parts.items()} if native else parts
    return batches._replace(parts=parts, steps=steps)


def batch_rows(batch: Any, expected: int | None = None) -> int:
    """Counts the samples of a batch: the first dimension of its first tensor.

    Args:
        batch: Any nesting of mappings, tuples, lists and dataclasses.
        expected: If given, tensors with another first dimension are passed over.

    Returns:
        The number of samples; 1 for a batch without such a tensor.
    """
    for leaf in _tensors(batch):
        if leaf.ndim > 0 and expected in (None, leaf.shape[0]):
            return leaf.shape[0]
    return 1


def _label_key(batch: Any) -> str | int | None:
    """Where the batch carries domain labels, if it plainly does."""
    if isinstance(batch, Mapping):
        for key in _LABEL_KEYS:
            if _is_label(batch.get(key)):
                return key
        return None
    triple = isinstance(batch, tuple | list) and len(batch) == 3
    if triple and _is_label(batch[2]) and batch_rows(batch[:2]) == len(batch[2]):
        _refuse_index(batch[2])
        return 2
    return None


def _is_label(value: Any) -> bool:
    """A vector of integers, or a list of strings or integers."""
    if isinstance(value, Tensor):
        real = value.is_floating_point() or value.is_complex() or value.dtype is torch.bool
        return value.ndim == 1 and not real
    return isinstance(value, list) and all(isinstance(entry, str | int) for entry in value)


def _refuse_index(labels: Tensor | list[Any]) -> None:
    """Sample numbers look like labels, but nobody has as many domains as samples."""
    plain = labels.tolist() if isinstance(labels, Tensor) else labels
    if len(plain) >= 8 and len(set(plain)) == len(plain):
        raise ValueError(
            f"The third element of the batch differs in each of the {len(plain)} samples, so it "
            f"is not taken for the domain label. {_HELP}"
        )


def _labels_at(batch: Any, key: str | int) -> Tensor | Sequence[Any]:
    try:
        labels = batch[key]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"`split={key!r}` must be a key or an index of the batch, {_describe(batch)}."
        ) from error
    if not isinstance(labels, Tensor | list | tuple):
        raise ValueError(
            f"`split={key!r}` must lead to a vector of domain labels, "
            f"got {type(labels).__name__} in the batch."
        )
    return labels


def _is_native(batch: Any) -> bool:
    return (
        isinstance(batch, Mapping)
        and len(batch) > 0
        and all(isinstance(part, tuple | list | Mapping) for part in batch.values())
    )


def _with_samples(parts: Mapping[Any, Any]) -> dict[str, Any]:
    """Named by text, without the domains that have no sample (or None) in this batch."""
    return {
        str(name): part for name, part in parts.items() if part is not None and batch_rows(part) > 0
    }


def _children(tree: Any) -> list[Any] | None:
    if isinstance(tree, Mapping):
        return list(tree.values())
    if isinstance(tree, tuple | list):
        return list(tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [getattr(tree, field.name) for field in dataclasses.fields(tree)]
    return None


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for child in _children(tree) or [] for leaf in _tensors(child)]


def _take(tree: Any, size: int, rows: Tensor) -> Any:
    if isinstance(tree, Tensor):
        cut = tree.ndim > 0 and tree.shape[0] == size
        return tree[rows.to(tree.device)] if cut else tree
    children = _children(tree)
    if children is None:
        return tree
    if _is_plain(tree) and len(tree) == size:  # e.g. N file names
        taken = [tree[row] for row in rows.tolist()]
    else:
        taken = [_take(child, size, rows) for child in children]
    return _rebuild(tree, taken)


def _mix(trees: list[Any], sizes: list[int], order: Tensor) -> list[Any]:
    """Joins the rows of trees of equal structure, reorders them, and cuts them apart again."""
    first = trees[0]
    if isinstance(first, Tensor):
        cut = all(t.ndim and len(t) == size for t, size in zip(trees, sizes, strict=True))
        return list(torch.cat(trees)[order.to(first.device)].split(sizes)) if cut else trees
    children = [_children(tree) for tree in trees]
    if children[0] is None:
        return trees
    if _is_plain(first) and all(len(t) == size for t, size in zip(trees, sizes, strict=True)):
        joined = [value for tree in trees for value in tree]
        values = iter([joined[row] for row in order.tolist()])
        return [type(first)(itertools.islice(values, size)) for size in sizes]
    mixed = [_mix(list(column), sizes, order) for column in zip(*children, strict=True)]
    return [
        _rebuild(tree, list(own)) for tree, own in zip(trees, zip(*mixed, strict=True), strict=True)
    ]


def _is_plain(tree: Any) -> bool:
    """Whether this is a tuple or list of plain values, such as file names."""
    return type(tree) in (tuple, list) and all(
        _children(child) is None and not isinstance(child, Tensor) for child in tree
    )


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


def _describe(batch: Any) -> str:
    """A batch's outline for an error message, one level deep."""

    def outline(value: Any) -> str:
        if isinstance(value, Tensor):
            return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        return type(value).__name__

    if isinstance(batch, Mapping):
        inside = ", ".join(f"{key!r}: {outline(value)}" for key, value in batch.items())
        return f"a {type(batch).__name__} {{{inside}}}"
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} ({', '.join(outline(value) for value in batch)})"
    return f"a {outline(batch)}"
