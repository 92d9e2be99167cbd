"""GENIE, an optimizer for domain generalization."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["GENIE"]

_SMALL = 1e-8


class GENIE(Optimizer):
    """Scales each coordinate's step by the ratio of signal to noise in its gradients.

    For each coordinate, with b = ``moving_average`` and g the gradient at step t::

        m <- b m + (1 - b) g        u <- b u + (1 - b) g^2        c = 1 - b^t
        mh = m / c                  var = (u / c - mh^2) / (1 - rho)
        rho = (1 - b) (2 - c) / ((1 + b) c)
        T = tanh(min(1 / var, 10))  r = 1 / (1 + rho var / (mh^2 + 1e-8))
        theta <- theta - lr * M * (mh T r + (1 - T) q N(0, 1))

    var and rho var are replaced by 1e-8 where they are not positive. q is the mean of ``|mh| r``
    over a parameter tensor, weighted by T. M is a dropout mask: 0 with probability ``dropout``,
    else 1 / (1 - ``dropout``). Weight decay is added to the gradient.

    With gradients of usual size T is 1, and the noise is off. What remains is averaged gradient
    descent, scaled by signal to noise, that skips coordinates at random.

    The mask and the noise depend only on ``seed``, the parameter's position and the step. They
    are the same on all processes, and a resumed training draws the same.

    Source: Cho, Kim & Kim, ICML 2025, arXiv 2606.16301. The authors' code has the step size as
    ``convergence_rate`` and ignores ``lr``: learning rate schedules have no effect. It also keeps
    its own copy of the weights, which undoes whatever else moves them (Fish, SAM, a search, loaded
    weights). Here the weights are updated in place; if nothing else moves them, this is the same.
    At the first step the authors' var is a quotient of two rounding errors; here it is 1e-8.

    Example:
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = GENIE(model.parameters(), lr=0.015)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.015,
        *,
        moving_average: float = 0.95,
        dropout: float = 0.4,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Sets up the optimizer.

        Args:
            params: Parameters, or groups of them as dictionaries.
            lr: The step size, the authors' ``convergence_rate``; not negative.
            moving_average: The decay of the averages (b), in [0, 1).
            dropout: The probability that a coordinate is skipped, in [0, 1).
            weight_decay: What part of the weights is added to the gradient; not negative.
            seed: Of mask and noise.

        Raises:
            ValueError: If an argument is out of range.
        """
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"`{name}` must not be negative, got {value}.")
        for name, value in (("moving_average", moving_average), ("dropout", dropout)):
            if not 0 <= value < 1:
                raise ValueError(f"`{name}` must be in [0, 1), got {value}.")
        defaults = {
            "lr": lr,
            "moving_average": moving_average,
            "dropout": dropout,
            "weight_decay": weight_decay,
            "seed": seed,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Makes a step.

        Args:
            closure: Computes the loss and the gradients anew, if given.

        Returns:
            The closure's loss; None without one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        place = 0
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._move(param, group, place)
                place += 1
        return loss

    def _move(self, param: Tensor, group: dict[str, Any], place: int) -> None:
        """Moves one parameter tensor."""
        state, b = self.state[param], group["moving_average"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["mean"], state["square"] = torch.zeros_like(param), torch.zeros_like(param)
        state["step"] += 1
        gradient = param.grad
        assert gradient is not None
        if group["weight_decay"]:
            gradient = gradient.add(param, alpha=group["weight_decay"])
        state["mean"].lerp_(gradient, 1 - b)
        state["square"].lerp_(gradient.square(), 1 - b)

        steps = int(state["step"])
        share = 1 - b**steps
        rho = (1 - b) * (2 - share) / ((1 + b) * share)
        mean = state["mean"] / share
        variance = state["square"] / share - mean.square()
        # at the first step 1 - rho and the variance are 0
        variance = variance / (1 - rho) if steps > 1 else torch.zeros_like(variance)
        variance = torch.where(variance > 0, variance, _SMALL)
        trust = torch.tanh((1 / variance).clamp(max=10.0))
        of_mean = rho * variance
        of_mean = torch.where(of_mean > 0, of_mean, _SMALL)
        signal = 1 / (1 + of_mean / (mean.square() + _SMALL))

        generator = _generator(param.device, group["seed"], place, steps)
        scale = (trust * mean.abs() * signal).sum() / trust.sum()
        noise = scale * torch.empty_like(param).normal_(generator=generator)
        move = mean * trust * signal + (1 - trust) * noise
        mask = torch.empty_like(param).bernoulli_(1 - group["dropout"], generator=generator)
        param.sub_(move * mask * (group["lr"] / (1 - group["dropout"])))


def _generator(device: torch.device, seed: int, place: int, step: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{place}/{step}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7]))
