"""Agreement voting: keeps the part of an update on which the domains agree."""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from gga_lightning.callbacks._base import DomainGradientCallback
from gga_lightning.callbacks._reader import StepStart
from gga_lightning.callbacks._setup import ParameterChoice, check_integer
from gga_lightning.probing import DomainLoss, Split

__all__ = ["GradientAgreementVoting", "VoteRecord"]


class VoteRecord(NamedTuple):
    """The vote on one step.

    Attributes:
        step: The optimizer step.
        share: The share of the coordinates that moved (of their change, for ``"snr"``), in
            [0, 1].

    Example:
        >>> record = VoteRecord(step=0, share=0.25)
        >>> f"{record.share:.0%} of the coordinates moved"
        '25% of the coordinates moved'
    """

    step: int
    share: float


class _Average(NamedTuple):
    """The bias-corrected exponential average of a domain's gradients.

    Attributes:
        steps: Of how many gradients.
        values: A parameter's name to its average.
    """

    steps: int
    values: dict[str, Tensor]


class GradientAgreementVoting(DomainGradientCallback):
    """Keeps only the part of each update on which the domains agree, early in training.

    At each step of the window the callback computes every source domain's loss gradient on the
    step's batch and updates an exponential average of it. After the optimizer's step, each
    coordinate keeps a share of its change. With ``vote="sign"`` this share is 1 if the averages of
    all domains have the same strict sign, else 0. With ``vote="snr"`` it is
    ``(|mean| / root mean square over the domains) ** power``, between 0 and 1. After the window,
    training continues without votes.

    The vote is applied to the update and never to the gradient, because adaptive optimizers such
    as Adam divide by the size of past gradients and would undo a mask on them. The optimizer's
    state sees plain gradients, and any optimizer can be used. All that an optimizer's step does is
    part of the update: decoupled weight decay (AdamW) also stops where the domains disagree.
    Gradient clipping and loss scaling do not change the sign of a gradient, and thus no vote.

    Parameters that no domain's loss depends on are not voted on. With gradient accumulation, the
    step's first batch decides. A domain that is missing from a batch votes with its average.

    The callback costs one more set of domain gradients a step, and memory for a copy of the
    parameters and one average for each domain. Outside the window it costs nothing. Use it in the
    first part of training only: otherwise the network cannot learn what only some domains show.
    With many domains, all signs rarely agree; use ``"snr"`` or a shorter window then.

    Logged at each step: ``voting/share``, the share of the coordinates that moved (of their
    change, for ``"snr"``). All votes are kept in :attr:`records`. Checkpoints hold the votes and
    the averages.

    Source: this project; docs/when-to-use-which.md has the measurements. The rule of ``"sign"`` is
    that of Agr-Sum (Mansilla et al., ICCV 2021) and of the AND-mask (Parascandolo et al., ICLR
    2021) with a threshold of 1. These mask the gradient, by one batch, for the whole training.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> voting = GradientAgreementVoting(end_step=200)
        >>> control = GradientAgreementVoting(end_step=200, control="shuffle_domains")
        >>> trainer = Trainer(max_steps=800, callbacks=[voting], logger=False)
    """

    label = "Voting"
    _hooks: tuple[RemovableHandle, ...] = ()

    def __init__(
        self,
        start_step: int = 0,
        end_step: int = 100,
        *,
        decay: float = 0.9,
        vote: Literal["sign", "snr"] = "sign",
        power: float = 2.0,
        control: Literal["shuffle_domains"] | None = None,
        parameters: ParameterChoice | None = None,
        domain_loss: DomainLoss | None = None,
        split: Split | None = None,
        seed: int = 0,
    ) -> None:
        """Configures the vote.

        Args:
            start_step: The first optimizer step voted on, counted from 0.
            end_step: The step before which the window ends.
            decay: The decay of the averages, in [0, 1); 0 uses the gradients of this step alone.
            vote: ``"sign"`` or ``"snr"``, see above.
            power: The exponent of ``"snr"``; positive. A greater power is stricter.
            control: ``"shuffle_domains"`` for a control run in which samples are assigned to
                domains at random; see :class:`GradientGuidedAnnealing`.
            parameters: Which parameters' updates are voted on; default all trainable ones. See
                :class:`GradientGuidedAnnealing` for this and the next two.
            domain_loss: How to compute a domain's loss.
            split: How to find the domains in a batch.
            seed: Seed of the control. Must be the same on all ranks.

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
        check_integer("end_step", end_step, 1)  # this window has an end
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` must be in [0, 1), got {decay}.")
        if vote not in ("sign", "snr"):
            raise ValueError(f"`vote` must be 'sign' or 'snr', got {vote!r}.")
        if not (math.isfinite(power) and power > 0):
            raise ValueError(f"`power` must be positive, got {power}.")
        self.decay = decay
        self.vote = vote
        self.power = power
        self.records: list[VoteRecord] = []
        self._averages: dict[str, _Average] = {}
        self._shares: dict[int, Tensor] = {}  # of a parameter's change, by the parameter's id
        self._before: dict[int, Tensor] = {}

    @property
    def state_key(self) -> str:
        """Tells two of these apart in a checkpoint."""
        return self._generate_state_key(start_step=self.start_step, end_step=self.end_step)

    def _restart(self, step: int) -> None:
        self.records = [record for record in self.records if record.step < step]
        self._averages = {}

    def _forget(self) -> None:
        super()._forget()
        self._unhook()

    def _compared(self, module: LightningModule) -> list[nn.Parameter]:
        return self._chosen(module)

    def _prepare(self, start: StepStart) -> None:
        if start.step != self._last_step:  # not a further batch of the same step
            self._shares = {}

    def _act(self, start: StepStart) -> None:
        """Takes the vote on this step's update."""
        chosen = {id(param) for param in self._chosen(start.module)}
        named = {n: p for n, p in start.module.named_parameters() if id(p) in chosen}
        with self._open(start) as probe:
            if probe is None:
                return
            gradients = dict(zip(probe.domains, probe.evaluate().gradients, strict=True))
        if not self._hooks:
            self._hook(start.trainer)
        finite = torch.stack([g.sum().isfinite() for own in gradients.values() for g in own]).all()
        for domain, gradient in gradients.items():
            self._add(domain, dict(zip(named, gradient, strict=True)), finite)
        kept = torch.zeros_like(finite, dtype=torch.float64)
        total = torch.zeros_like(finite, dtype=torch.long)
        for name, param in named.items():
            voters = [a.values[name] for a in self._averages.values() if name in a.values]
            share, reached = self._share(voters)
            self._shares[id(param)] = share.to(_real(param).dtype)
            kept = kept + torch.where(reached, share.sum(), 0.0)
            total = total + reached * share.numel()
        share, fine = torch.stack([kept / total.clamp(min=1), finite.float()]).tolist()
        if not fine:
            self._reader.warn_once(
                "not finite",
                f"a domain's gradient is not finite at step {start.step}; the averages of the "
                "steps before vote there.",
            )
        self.records.append(VoteRecord(start.step, share))
        self._report(start, {"voting/share": share})

    def _add(self, domain: str, gradient: dict[str, Tensor], finite: Tensor) -> None:
        """Takes a gradient into a domain's average, if it is finite."""
        steps, values = self._averages.get(domain, _Average(0, {}))
        weight = (1 - self.decay) / (1 - self.decay ** (steps + 1))
        new = {}
        for name, g in gradient.items():
            g = _real(g if g.layout is torch.strided else g.to_dense()).detach()
            old = values[name].to(g) if name in values else torch.zeros_like(g)
            new[name] = torch.where(finite, old.lerp(g, weight), old)
        self._averages[domain] = _Average(steps + 1, new)

    def _share(self, averages: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The share of a parameter's change to keep, and whether any domain's loss reaches it."""
        reached = torch.stack([average.any() for average in averages]).any()
        if self.vote == "sign":
            up = torch.stack([average > 0 for average in averages]).all(0)
            down = torch.stack([average < 0 for average in averages]).all(0)
            share = (up | down).to(averages[0].dtype)
        else:
            stacked = torch.stack(averages)
            size = stacked.square().mean(0).sqrt()
            ratio = torch.where(size > 0, stacked.mean(0).abs() / size, 0.0)
            share = ratio.clamp(max=1.0) ** self.power
        return torch.where(reached, share, torch.ones_like(share)), reached

    def _hook(self, trainer: Trainer) -> None:
        """Hooks into the optimizers' own steps."""
        for optimizer in trainer.optimizers:
            self._hooks += (
                optimizer.register_step_pre_hook(self._before_step),
                optimizer.register_step_post_hook(self._after_step),
            )

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._before = {
            id(param): param.detach().clone()
            for group in optimizer.param_groups
            for param in group["params"]
            if id(param) in self._shares
        }

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for param in group["params"]:
                before = self._before.pop(id(param), None)
                if before is not None:
                    after = _real(param)  # lerp gives either end exactly
                    after.copy_(torch.lerp(_real(before), after, self._shares[id(param)]))

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._shares, self._before = (), {}, {}

    def _leave(self) -> None:
        self._unhook()
        self._averages = {}

    def _entry(self, domains: str, start: StepStart) -> str:
        return f"steps {start.step} to {(self.end_step or 0) - 1} move where {domains} agree"

    def _closing(self, step: int) -> Iterator[str]:
        if not self.records:
            yield (
                f"voted on no step of its window (steps {self.start_step} to "
                f"{(self.end_step or 0) - 1}; training is at {step})."
            )
            return
        share = math.fsum(record.share for record in self.records) / len(self.records)
        yield (
            f"voted on {len(self.records)} steps; {share:.1%} of the coordinates moved (mean over "
            "the steps)."
        )

    def _state(self) -> dict[str, Any]:
        return {
            "records": [tuple(record) for record in self.records],
            "averages": {
                domain: (average.steps, {name: v.clone() for name, v in average.values.items()})
                for domain, average in self._averages.items()
            },
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self.records = [VoteRecord(*record) for record in state["records"]]
        self._averages = {d: _Average(*saved) for d, saved in state["averages"].items()}


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
