"""Computes the direction in which the domains agree more."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from gga_lightning.alignment.evaluator import DomainEvaluator
from gga_lightning.alignment.gradients import gram_matrix
from gga_lightning.alignment.score import Objective

__all__ = ["agreement_ascent"]

# Of a finite difference, relative to the parameters' length. In float32, ten times less loses
# digits and ten times more runs into the next bend.
_DISPLACEMENT = 3e-4


def agreement_ascent(
    evaluator: DomainEvaluator,
    moved: Sequence[Tensor],
    objective: Objective,
    *,
    orthogonal: bool = False,
) -> list[Tensor]:
    """Computes the gradient of the search's objective: the direction of more agreement.

    Let g_i be the gradient of domain i's loss, n_i its length, and c_ij the cosine of g_i and g_j.
    The objective is the sum of w_ij c_ij over the pairs of domains. For ``"min"`` the weight w_ij
    is 1 for the pair with the lowest cosine, else 0; for ``"mean"`` all weights are equal. The
    derivative of the objective with respect to g_i is

        u_i = sum over j of w_ij (g_j / (n_i n_j) - c_ij g_i / n_i^2).

    The direction is the sum over i of H_i u_i, where H_i is the Hessian of domain i's loss. Each
    product is a finite difference with a small h, (g_i(theta + h u_i) - g_i(theta)) / h. It costs
    one more gradient for each domain whose cosine counts, thus two for ``"min"``. A double backward
    pass would lead to the same gains at twice the time and memory (``benchmarks/search_gain.py``
    compares the two), and some operations do not support it.

    Args:
        evaluator: The domains. Its losses must not draw new random numbers at each evaluation.
        moved: The parameters to get a direction for, among those that the evaluator differentiates.
        objective: Which of the pairwise cosines to raise, the lowest or their mean.
        orthogonal: Whether to remove the components along the domains' gradients, so that every
            domain's loss is unchanged to first order.

    Returns:
        A tensor for each moved parameter, equal on all ranks; zero if the objective has
        no slope. The parameters are unchanged, bit for bit.

    Raises:
        ValueError: If the evaluator does not differentiate one of the moved parameters.

    Example:
        >>> weight = torch.tensor([1.0, 1.0], requires_grad=True)
        >>> losses = [lambda: (weight**2).sum(), lambda: (weight[0] - 3) ** 2 + weight[1] ** 2]
        >>> evaluator = DomainEvaluator(losses, [weight])
        >>> before = evaluator.evaluate().cosines[0, 1]
        >>> [direction] = agreement_ascent(evaluator, [weight], "min")
        >>> weight.data += 0.1 * direction
        >>> bool(evaluator.evaluate().cosines[0, 1] > before)
        True
    """
    where = _positions(evaluator.params, moved)
    gradients = evaluator.gradients()
    direction = _curvature(evaluator, gradients, _pulls(gradients, objective), where)
    if orthogonal:
        direction = _projected_off(direction, [[g[i] for i in where] for g in gradients])
    return direction


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


@torch.no_grad()
def _curvature(
    evaluator: DomainEvaluator,
    gradients: Sequence[Sequence[Tensor]],
    pulls: dict[int, list[Tensor]],
    where: list[int],
) -> list[Tensor]:
    """The sum of the H_i u_i, for the parameters at the places ``where``."""
    params = evaluator.params
    start = [param.clone() for param in params]
    displaced = [torch.zeros_like(params[place]) for place in where]
    present = [torch.zeros_like(params[place]) for place in where]
    try:
        for index, pull in pulls.items():
            length = float(get_total_norm(pull))
            if not length > 0:
                continue
            step = _DISPLACEMENT * float(get_total_norm(start)) / length
            for param, value, part in zip(params, start, pull, strict=True):
                param.copy_(value + step * part)
            with torch.enable_grad():
                found = evaluator.local(index)
            for position, place in enumerate(where):
                present[position].add_(gradients[index][place], alpha=1 / step)
                if found is not None:
                    displaced[position].add_(found[1][place], alpha=1 / step)
    finally:
        for param, value in zip(params, start, strict=True):
            param.copy_(value)
    total = evaluator.summed_together(displaced)
    return [there - here for there, here in zip(total, present, strict=True)]


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
    """Finds the indices of the moved parameters among all parameters."""
    places = {id(param): place for place, param in enumerate(params)}
    if any(id(param) not in places for param in moved):
        raise ValueError("A guided step moves only parameters that gradients are taken for.")
    return [places[id(param)] for param in moved]
