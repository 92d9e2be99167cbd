"""Per-domain gradients and how far they agree: Gram matrix, cosines, conflict.

Everything here is plain PyTorch. D is the number of domains; a *gradient* is a tuple of tensors,
one for each parameter, in the order of the parameters.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Conflict",
    "conflict_summary",
    "cosine_matrix",
    "domain_gradients",
    "gram_matrix",
    "inner_products",
    "pairwise",
]


def domain_gradients(
    losses: Iterable[Tensor], params: Sequence[Tensor]
) -> list[tuple[Tensor, ...]]:
    """Computes the gradient of every domain's loss, leaving ``.grad`` untouched.

    Args:
        losses: D scalar losses. A sequence may hold losses that share one graph, which is then
            kept until the last of them. Any other iterable, a generator above all, is consumed
            lazily, so that only one domain's graph is alive at a time: the cheap way.
        params: The tensors to differentiate with respect to, all requiring gradients.

    Returns:
        D tuples of tensors shaped like ``params``; zeros where a loss does not depend on a
        parameter.

    Raises:
        ValueError: If ``params`` is empty.
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
    """Computes the inner products of D gradients, tensor by tensor, never concatenating them.

    The products of each tensor are taken in float32 (float64 for float64 gradients), half
    precision being raised to float32 first, and summed over the tensors in float64.

    Args:
        gradients: D gradients, as returned by :func:`domain_gradients`.

    Returns:
        The symmetric matrix of inner products, shape ``(D, D)``, float64.

    Raises:
        ValueError: If there is no gradient or the gradients differ in their number of tensors.
    """
    size = len(gradients)
    if size == 0 or any(len(gradient) != len(gradients[0]) for gradient in gradients):
        raise ValueError(
            "`gradients` must be one or more gradients of equally many tensors, "
            f"got lengths {[len(gradient) for gradient in gradients]}."
        )
    products = []
    for tensors in zip(*gradients, strict=True):
        flat = [_flat(tensor) for tensor in tensors]
        products += [torch.dot(flat[i], flat[j]) for i in range(size) for j in range(i, size)]
    upper = _summed(products, size * (size + 1) // 2)
    return upper[_triangle(size, upper.device)]


def inner_products(gradient: Sequence[Tensor], others: Sequence[Sequence[Tensor]]) -> Tensor:
    """Computes the inner products of one gradient with others, as :func:`gram_matrix` does.

    Args:
        gradient: A gradient.
        others: One or more gradients of equally many tensors.

    Returns:
        Shape ``(len(others),)``, float64.
    """
    products: list[Tensor] = []
    for tensor, *rest in zip(gradient, *others, strict=True):
        flat = _flat(tensor)
        products += [torch.dot(flat, _flat(other)) for other in rest]
    return _summed(products, len(others))


def _summed(products: list[Tensor], size: int) -> Tensor:
    """Sums consecutive rows of ``size`` products in float64."""
    stacked = torch.stack(products)
    if stacked.device.type == "mps":  # has no float64
        stacked = stacked.cpu()
    return stacked.view(-1, size).double().sum(0)


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
    """
    rows, columns = torch.triu_indices(*matrix.shape[-2:], offset=1).tolist()
    return matrix[..., rows, columns]


class Conflict(NamedTuple):
    """Pairwise cosines in three figures.

    Attributes:
        min: The lowest cosine over the pairs of domains, the quantity that GGA raises.
        mean: Their mean, the quantity that GGA-L reads.
        share: The share of pairs in conflict, that is with a negative cosine, in [0, 1].
    """

    min: float
    mean: float
    share: float


def conflict_summary(cosines: Tensor) -> Conflict:
    """Sums up a cosine matrix.

    Args:
        cosines: Shape ``(D, D)`` with D at least 2, as returned by :func:`cosine_matrix`.

    Returns:
        The lowest and the mean pairwise cosine and the share of pairs in conflict; NaN, all
        three, where any cosine is.

    Raises:
        ValueError: If there are fewer than two domains.
    """
    if len(cosines) < 2:
        raise ValueError(f"`cosines` must be of two or more domains, got {len(cosines)}.")
    values = pairwise(cosines)
    share = torch.where(values.isnan(), values, (values < 0).to(values.dtype))
    return Conflict(*torch.stack([values.min(), values.mean(), share.mean()]).tolist())
