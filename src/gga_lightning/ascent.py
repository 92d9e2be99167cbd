"""The direction in which the domains agree more: the gradient of the search's objective."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gga_lightning.evaluation import DomainEvaluator, Objective
from gga_lightning.gradients import gram_matrix

__all__ = ["Ascent", "agreement_ascent"]

_DISPLACEMENT = 1e-3  # of a finite difference, relative to the parameters' length


class Ascent(NamedTuple):
    """Where the objective rises fastest.

    Attributes:
        direction: A tensor for each moved parameter.
        by_differences: Whether it was found by finite differences.
    """

    direction: list[Tensor]
    by_differences: bool


def agreement_ascent(
    evaluator: DomainEvaluator,
    moved: Sequence[Tensor],
    objective: Objective,
    *,
    orthogonal: bool = False,
) -> Ascent:
    """Differentiates the agreement of the domains' gradients.

    With gradients g_i of lengths n_i and cosines c_ij, the objective is the sum of w_ij c_ij over
    the pairs, and its derivative in g_i is u_i = sum_j w_ij (g_j / (n_i n_j) - c_ij g_i / n_i^2).
    The direction is the sum of H_i u_i, H_i being the Hessian of domain i's loss: one product of
    a Hessian and a vector for each domain whose cosine counts, two for ``"min"``. They come from
    a double backward pass, or from central differences of gradients where the module has
    operations that cannot be differentiated twice (or where that does not fit into memory).

    Args:
        evaluator: The domains.
        moved: The parameters to get a direction for, among those that the evaluator differentiates.
        objective: What shall rise.
        orthogonal: Whether to take away the part along the domains' gradients, so that every
            domain's loss stays as it is, to first order.

    Returns:
        The direction, equal on all ranks; zero where the objective has no slope.

    Raises:
        ValueError: If the evaluator does not differentiate one of the moved parameters.
    """
    where = _positions(evaluator.params, moved)
    gradients = evaluator.gradients()
    pulls = _pulls(gradients, objective)
    by_differences = False
    try:
        parts = _by_double_backward(evaluator, moved, pulls)
    except (RuntimeError, NotImplementedError):
        by_differences, parts = True, []
    if evaluator.joined:  # all ranks or none, or they would wait for each other
        failed = torch.tensor(float(by_differences), device=evaluator.params[0].device)
        by_differences = bool(evaluator.summed(failed))
    if by_differences:
        parts = _by_differences(evaluator, moved, pulls)
    direction = list(evaluator.summed_together(parts))
    if orthogonal:
        direction = _projected_off(direction, [[g[i] for i in where] for g in gradients])
    return Ascent(direction, by_differences)


def _pulls(gradients: Sequence[Sequence[Tensor]], objective: Objective) -> dict[int, list[Tensor]]:
    """The objective's derivative in each domain's gradient, where it is not zero."""
    gram = gram_matrix(gradients).cpu()
    lengths = gram.diagonal().sqrt()
    scale = torch.outer(lengths, lengths)
    inverse = torch.where(scale > 0, 1 / scale, 0.0)  # a zero gradient has cosine 0, no slope
    cosines = gram * inverse
    size = len(gram)
    rows, columns = torch.triu_indices(size, size, offset=1)
    upper = torch.zeros_like(gram)
    if objective == "mean":
        upper[rows, columns] = 1 / len(rows)
    else:
        lowest = int(cosines[rows, columns].argmin())
        upper[rows[lowest], columns[lowest]] = 1.0
    weights = upper + upper.T
    factors = weights * inverse - torch.diag((weights * cosines).sum(1) * inverse.diagonal())
    found = {}
    for index, row in enumerate(factors.tolist()):
        terms = [(f, gradient) for f, gradient in zip(row, gradients, strict=True) if f != 0.0]
        if terms:
            found[index] = [
                torch.stack([f * part for (f, _), part in zip(terms, parts, strict=True)]).sum(0)
                for parts in zip(*(gradient for _, gradient in terms), strict=True)
            ]
    return found


def _by_double_backward(
    evaluator: DomainEvaluator, moved: Sequence[Tensor], pulls: dict[int, list[Tensor]]
) -> list[Tensor]:
    total = [torch.zeros_like(param) for param in moved]
    for index, pull in pulls.items():
        found = evaluator.local(index, create_graph=True)
        if found is None:
            continue
        pairs = [(g, p) for g, p in zip(found[1], pull, strict=True) if g.requires_grad]
        if _breaks_off(found[1]):
            raise NotImplementedError
        if pairs:
            products = torch.autograd.grad(
                [g for g, _ in pairs],
                moved,
                [p.to(g.dtype) for g, p in pairs],
                allow_unused=True,
                materialize_grads=True,
            )
            total = [old + new for old, new in zip(total, products, strict=True)]
    return total


def _breaks_off(gradient: Sequence[Tensor]) -> bool:
    # For an operation marked as differentiable only once. Autograd leaves its branch out without
    # a word where derivatives are asked for by name.
    seen: set[Any] = set()
    waiting = [g.grad_fn for g in gradient]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            if node.name() == "torch::autograd::Error":
                return True
            seen.add(node)
            waiting.extend(following for following, _ in node.next_functions)
    return False


@torch.no_grad()
def _by_differences(
    evaluator: DomainEvaluator, moved: Sequence[Tensor], pulls: dict[int, list[Tensor]]
) -> list[Tensor]:
    """H u as (g(theta + h u) - g(theta - h u)) / 2h; leaves the parameters bit for bit."""
    where = _positions(evaluator.params, moved)
    start = [param.clone() for param in evaluator.params]
    total = [torch.zeros_like(param) for param in moved]
    try:
        for index, pull in pulls.items():
            step = _DISPLACEMENT * _length(start) / _length(pull)
            for side in (1.0, -1.0):
                for param, value, part in zip(evaluator.params, start, pull, strict=True):
                    param.copy_(value + side * step * part)
                with torch.enable_grad():
                    found = evaluator.local(index)
                if found is None:
                    break
                for old, position in zip(total, where, strict=True):
                    old.add_(found[1][position], alpha=side / (2 * step))
    finally:
        for param, value in zip(evaluator.params, start, strict=True):
            param.copy_(value)
    return total


def _projected_off(direction: list[Tensor], gradients: list[list[Tensor]]) -> list[Tensor]:
    """V - G^T (G G^T)^+ G v; the pseudo-inverse, since gradients may be parallel or zero."""
    gram = gram_matrix([direction, *gradients]).cpu()
    factors = (torch.linalg.pinv(gram[1:, 1:], hermitian=True) @ gram[1:, 0]).tolist()
    for index, part in enumerate(direction):
        for factor, gradient in zip(factors, gradients, strict=True):
            part = part - factor * gradient[index]
        direction[index] = part
    return direction


def _positions(params: Sequence[Tensor], moved: Sequence[Tensor]) -> list[int]:
    """Where the moved parameters stand among all."""
    places = {id(param): place for place, param in enumerate(params)}
    if any(id(param) not in places for param in moved):
        raise ValueError("A guided step moves only parameters that gradients are taken for.")
    return [places[id(param)] for param in moved]


def _length(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([t.double().pow(2).sum().cpu() for t in tensors]).sum().sqrt())
