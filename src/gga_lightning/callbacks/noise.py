"""GGA-L, the cheaper variant of Gradient-Guided Annealing, as a callback."""

import math
from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer

from gga_lightning.alignment import conflict_summary
from gga_lightning.callbacks._base import DomainGradientCallback
from gga_lightning.callbacks._reader import StepStart
from gga_lightning.callbacks._setup import ParameterChoice
from gga_lightning.probing import DomainLoss, Split

__all__ = ["GradientGuidedNoise"]


class GradientGuidedNoise(DomainGradientCallback):
    """Adds noise to every gradient, scaled by how much the domains' gradients disagree (GGA-L).

    At each step of the window, the callback computes the domains' gradients on the step's batch
    and their mean pairwise cosine similarity. It adds ``gamma * (1 - mean cosine)`` times standard
    normal noise to the gradient. This happens after gradient accumulation, averaging over processes
    and unscaling, and before gradient clipping, which therefore bounds the noise too.

    The callback costs one more set of domain gradients a step, in the trainer's precision. With
    gradient accumulation, the cosine is that of a step's first batch.

    Adaptive optimizers divide by the size of past gradients. Under Adam, the noise dominates the
    coordinates whose gradient is much smaller than the noise. To see whether the conflict matters,
    compare with noise of constant scale (``modulation="constant"``).

    The defaults are those of the paper's code. Its Algorithm 2 draws from U(0, 1) instead
    (``distribution="uniform"``), whose mean of 1/2 makes every coordinate drift, and its formula
    for the mean counts each pair of domains twice; we count it once, as the code does.

    Logged at each step: ``gga_l/alpha`` (the noise's scale), ``gga_l/mean_cosine``.

    Source: Ballas & Diou, CVPR 2025, arXiv 2502.20162, Algorithm 2 (GGA-L).

    Example:
        >>> from lightning.pytorch import Trainer
        >>> noise = GradientGuidedNoise(gamma=1e-3, end_step=1000)
        >>> control = GradientGuidedNoise(gamma=1e-3, end_step=1000, modulation="constant")
        >>> trainer = Trainer(max_steps=5000, callbacks=[noise], logger=False)
    """

    label = "GGA-L"

    def __init__(
        self,
        gamma: float = 1e-3,
        *,
        distribution: Literal["normal", "uniform"] = "normal",
        modulation: Literal["conflict", "constant", "agreement"] = "conflict",
        start_step: int = 0,
        end_step: int | None = None,
        control: Literal["shuffle_domains"] | None = None,
        parameters: ParameterChoice | None = None,
        domain_loss: DomainLoss | None = None,
        split: Split | None = None,
        seed: int = 0,
    ) -> None:
        """Configures the noise.

        Args:
            gamma: The noise's scale, before the modulation; not negative. In units of a
                gradient's coordinate.
            distribution: N(0, 1) or U(0, 1), before the scale.
            modulation: The factor of the scale: ``"conflict"`` for 1 - mean cosine, in [0, 2]. The
                controls are ``"constant"`` for 1 and ``"agreement"`` for 1 + mean cosine.
            start_step: The first optimizer step with noise, counted from 0.
            end_step: The step before which the noise ends; None for the whole training.
            control: ``"shuffle_domains"`` for a control run in which samples are assigned to
                domains at random; see :class:`GradientGuidedAnnealing`.
            parameters: Which parameters' gradients get noise; default all trainable ones. See
                :class:`GradientGuidedAnnealing` for this and the next two.
            domain_loss: How to compute a domain's loss.
            split: How to find the domains in a batch.
            seed: Seed of the noise, which is a function of it and the step. Must be the same on
                all ranks.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(
            start_step=start_step,
            end_step=end_step,
            control=control,
            parameters=parameters,
            domain_loss=domain_loss,
            split=split,
            seed=seed,
        )
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"`gamma` must be finite and not negative, got {gamma}.")
        if distribution not in ("normal", "uniform"):
            raise ValueError(f"`distribution` must be 'normal' or 'uniform', got {distribution!r}.")
        if modulation not in ("conflict", "constant", "agreement"):
            raise ValueError(
                f"`modulation` must be 'conflict', 'constant' or 'agreement', got {modulation!r}."
            )
        self.gamma = gamma
        self.distribution = distribution
        self.modulation = modulation
        self._alpha = 0.0
        self._noise: torch.Generator | None = None

    @property
    def state_key(self) -> str:
        """Tells two of these apart in a checkpoint."""
        return self._generate_state_key(start_step=self.start_step, end_step=self.end_step)

    def _prepare(self, start: StepStart) -> None:
        if start.step != self._last_step:  # not a further batch of the same step
            self._alpha = 0.0

    def _forget(self) -> None:
        super()._forget()
        self._noise = None  # could not be pickled

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Called before an optimizer steps: adds the noise to its parameters' gradients."""
        if self._alpha == 0.0 or self._noise is None:
            return
        mine = {id(param) for group in optimizer.param_groups for param in group["params"]}
        scale = self._alpha * _held_back_scale(trainer, optimizer)
        for param in self._chosen(pl_module):
            if id(param) in mine and param.grad is not None:
                if param.grad.is_sparse:
                    raise MisconfigurationException(
                        "GradientGuidedNoise cannot add noise to sparse gradients. Leave such "
                        "parameters out with `parameters=`, or make them dense."
                    )
                param.grad.add_(self._draw(param.grad, self._noise), alpha=scale)

    def _act(self, start: StepStart) -> None:
        """Sets the scale of this step's noise."""
        with self._open(start) as probe:
            if probe is None:
                return
            mean = conflict_summary(probe.evaluate().cosines).mean
        if math.isnan(mean):
            self._reader.warn_once(
                "not finite",
                f"a domain's gradient is not finite at step {start.step} (or `training_step` "
                "returned None); such steps get no noise.",
            )
            return
        factors = {"conflict": 1.0 - mean, "constant": 1.0, "agreement": 1.0 + mean}
        self._alpha = self.gamma * factors[self.modulation]
        self._noise = self._generator(start.step, start.module.device)
        self._report(start, {"gga_l/alpha": self._alpha, "gga_l/mean_cosine": mean})

    def _draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.empty_like(like)
        if self.distribution == "normal":
            return noise.normal_(generator=generator)
        return noise.uniform_(generator=generator)


def _held_back_scale(trainer: Trainer, optimizer: Optimizer) -> float:
    """The loss scale still in the gradients: fused optimizers undo it in their own step."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return 1.0
    return scaler.get_scale()
