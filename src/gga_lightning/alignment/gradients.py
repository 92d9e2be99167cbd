"""Per-domain gradients and how far they agree: Gram matrix, cosines, conflict.

Everything here is plain PyTorch. D is the number of domains; a *gradient* is a tuple of tensors,
one for each parameter, in the order of the parameters.

Inner products are taken of the *vectors* of gradients. On a CPU these are the gradients' tensors,
flattened. On a GPU, which needs more time to launch an operation on a small tensor than to run it,
they are the rows of one matrix that holds all tensors.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Conflict",
    "conflict_summary",
    "cosine_matrix",
    "domain_gradients",
    "from_rows",
    "gram_matrix",
    "in_rows",
    "inner_products",
    "pairwise",
    "row_products",
    "vector_products",
    "vectors",
]

_ROW = 8192  # numbers; their products are summed in float32, and the rows' sums in float64


def domain_gradients(
    losses: Iterable[Tensor], params: Sequence[Tensor]
) -> list[tuple[Tensor, ...]]:
    """Computes the gradient of every domain's loss, leaving ``.grad`` untouched.

    Args:
        losses: D scalar losses. A sequence may hold losses that share one graph, which is then
            kept until the last of them. Any other iterable, such as a generator, is consumed
            lazily: only one domain's graph is in memory at a time.
        params: The tensors to differentiate with respect to, all requiring gradients.

    Returns:
        D tuples of tensors shaped like ``params``; zeros where a loss does not depend on a
        parameter.

    Raises:
        ValueError: If ``params`` is empty.

    Example:
        >>> weight = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> domain_gradients([weight.sum(), (weight**2).sum()], [weight])
        [(tensor([1., 1.]),), (tensor([2., 4.]),)]
    """
    params = list(params)
    if not params:
        raise ValueError("`params` must hold at least one tensor, got none.")
    shared = len(losses) if isinstance(losses, Sequence) else 0
    return [
        torch.autograd.grad(
            loss,
            params,
            retain_graph=index < shared - 1,
            allow_unused=True,
            materialize_grads=True,
        )
        for index, loss in enumerate(losses)
    ]


def gram_matrix(gradients: Sequence[Sequence[Tensor]]) -> Tensor:
    """Computes the inner products of D gradients.

    The products of each vector are summed in float32 (float64 for float64 gradients), after half
    precision is converted to float32. The sums of the vectors are added in float64.

    Args:
        gradients: D gradients, as returned by :func:`domain_gradients`.

    Returns:
        The symmetric matrix of inner products, shape ``(D, D)``, float64.

    Raises:
        ValueError: If there is no gradient or the gradients differ in their number of tensors.

    Example:
        >>> gram_matrix([(torch.tensor([1.0, 0.0]),), (torch.tensor([3.0, 4.0]),)])
        tensor([[ 1.,  3.],
                [ 3., 25.]], dtype=torch.float64)
    """
    size = len(gradients)
    if size == 0 or any(len(gradient) != len(gradients[0]) for gradient in gradients):
        raise ValueError(
            "`gradients` must be one or more gradients of equally many tensors, "
            f"got lengths {[len(gradient) for gradient in gradients]}."
        )
    pairs = [(i, j) for i in range(size) for j in range(i, size)]
    upper = _products([vectors(gradient) for gradient in gradients], pairs)
    return upper[_triangle(size, upper.device)]


def inner_products(gradient: Sequence[Tensor], others: Sequence[Sequence[Tensor]]) -> Tensor:
    """Computes the inner products of one gradient with others, as :func:`gram_matrix` does.

    Args:
        gradient: A gradient.
        others: One or more gradients of equally many tensors.

    Returns:
        Shape ``(len(others),)``, float64.

    Example:
        >>> one, other = (torch.tensor([1.0, 0.0]),), (torch.tensor([3.0, 4.0]),)
        >>> inner_products(one, [one, other])
        tensor([1., 3.], dtype=torch.float64)
    """
    return vector_products(vectors(gradient), [vectors(other) for other in others])


def vectors(gradient: Sequence[Tensor]) -> list[Tensor]:
    """Turns a gradient into the vectors that inner products are taken of.

    Args:
        gradient: A gradient.

    Returns:
        On a GPU a single matrix, as :func:`in_rows` makes it; else a vector for each tensor.
    """
    return [in_rows(gradient)] if gradient[0].is_cuda else [_flat(tensor) for tensor in gradient]


def vector_products(left: list[Tensor], others: Sequence[list[Tensor]]) -> Tensor:
    """Computes the inner products of one gradient with others.

    Args:
        left: The :func:`vectors` of a gradient.
        others: The vectors of one or more gradients.

    Returns:
        Shape ``(len(others),)``, float64.
    """
    return _products([left, *others], [(0, index) for index in range(1, len(others) + 1)])


def in_rows(gradient: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """Copies a gradient into a matrix, one tensor after the other, and fills it up with zeros.

    Args:
        gradient: A gradient.
        out: A matrix that this function has made for a gradient of the same shapes, to be
            overwritten.

    Returns:
        Shape ``(rows, 8192)``, in at least float32.
    """
    flat = [_flat(tensor) for tensor in gradient]
    size = sum(map(len, flat))
    if out is None:
        kind = functools.reduce(torch.promote_types, (part.dtype for part in flat))
        out = flat[0].new_zeros(math.ceil(size / _ROW), _ROW, dtype=kind)
    torch.cat([part.to(out.dtype) for part in flat], out=out.view(-1)[:size])
    return out


def from_rows(rows: Tensor, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Finds the tensors of a gradient in its matrix.

    Args:
        rows: What :func:`in_rows` has made.
        like: Tensors of the gradient's shapes, such as the parameters.

    Returns:
        The gradient, as views.
    """
    flat, found = rows.view(-1), []
    for tensor in like:
        size = tensor.numel() * (2 if tensor.is_complex() else 1)
        part, flat = flat[:size], flat[size:]
        part = torch.view_as_complex(part.view(-1, 2)) if tensor.is_complex() else part
        found.append(part.view(tensor.shape))
    return tuple(found)


def row_products(left: Tensor, right: Tensor) -> Tensor:
    """Computes the inner product of two gradients in rows, by few operations.

    Args:
        left: What :func:`in_rows` has made.
        right: The same of another gradient.

    Returns:
        A scalar, float64.
    """
    return (left * right).sum(1).double().sum()


def _products(found: Sequence[list[Tensor]], pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Inner products of pairs of gradients, given by their vectors."""
    if found[0][0].is_cuda:
        return torch.stack([row_products(found[i][0], found[j][0]) for i, j in pairs])
    products = [
        torch.dot(parts[i], parts[j]) for parts in zip(*found, strict=True) for i, j in pairs
    ]
    stacked = torch.stack(products)
    if stacked.device.type == "mps":  # has no float64
        stacked = stacked.cpu()
    return stacked.view(-1, len(pairs)).double().sum(0)


@functools.cache
def _triangle(size: int, device: torch.device) -> Tensor:
    """The place of each entry of a symmetric matrix in its upper triangle, read row by row."""
    positions = torch.empty(size, size, dtype=torch.long)
    rows, columns = torch.triu_indices(size, size)
    positions[rows, columns] = positions[columns, rows] = torch.arange(len(rows))
    return positions.to(device)


def _flat(tensor: Tensor) -> Tensor:
    """One dense real vector, in at least float32."""
    if tensor.layout is not torch.strided:  # e.g. nn.Embedding(sparse=True)
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return tensor.detach().flatten()


def cosine_matrix(gram: Tensor) -> Tensor:
    """Turns inner products into cosine similarities.

    Args:
        gram: Inner products of D gradients, shape ``(..., D, D)``.

    Returns:
        Cosines in [-1, 1], shape ``(..., D, D)``. A zero gradient has cosine 0 with every
        gradient, itself included; a non-finite one gives NaN.

    Example:
        >>> cosine_matrix(torch.tensor([[1.0, 3.0], [3.0, 25.0]]))
        tensor([[1.0000, 0.6000],
                [0.6000, 1.0000]])
    """
    norms = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    scale = norms[..., :, None] * norms[..., None, :]
    cosines = torch.where(scale == 0, torch.zeros_like(gram), gram / scale)
    return cosines.clamp(-1.0, 1.0)


def pairwise(matrix: Tensor) -> Tensor:
    """Picks the entries above the diagonal: one for each unordered pair of domains.

    Args:
        matrix: Shape ``(..., D, D)``.

    Returns:
        Shape ``(..., D (D - 1) / 2)``, in the order (0, 1), (0, 2), ..., (1, 2), ...

    Example:
        >>> pairwise(torch.tensor([[1.0, 0.6, -0.2], [0.6, 1.0, 0.1], [-0.2, 0.1, 1.0]]))
        tensor([ 0.6000, -0.2000,  0.1000])
    """
    rows, columns = torch.triu_indices(*matrix.shape[-2:], offset=1).tolist()
    return matrix[..., rows, columns]


class Conflict(NamedTuple):
    """A summary of pairwise cosines in three numbers.

    Attributes:
        min: The lowest cosine over the pairs of domains, the quantity that GGA raises.
        mean: Their mean, the quantity that GGA-L reads.
        share: The share of pairs in conflict, that is with a negative cosine, in [0, 1].

    Example:
        >>> found = conflict_summary(torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
        >>> found.min, found.share
        (0.5, 0.0)
    """

    min: float
    mean: float
    share: float


def conflict_summary(cosines: Tensor) -> Conflict:
    """Summarizes a cosine matrix by the lowest cosine, the mean, and the share of conflict.

    Args:
        cosines: Shape ``(D, D)`` with D at least 2, as returned by :func:`cosine_matrix`.

    Returns:
        The lowest and the mean pairwise cosine and the share of pairs in conflict; NaN, all
        three, where any cosine is.

    Raises:
        ValueError: If there are fewer than two domains.

    Example:
        >>> conflict_summary(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        Conflict(min=-0.5, mean=-0.5, share=1.0)
    """
    if len(cosines) < 2:
        raise ValueError(f"`cosines` must be of two or more domains, got {len(cosines)}.")
    values = pairwise(cosines)
    share = torch.where(values.isnan(), values, (values < 0).to(values.dtype))
    return Conflict(*torch.stack([values.min(), values.mean(), share.mean()]).tolist())
