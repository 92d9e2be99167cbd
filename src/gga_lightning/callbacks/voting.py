"""Agreement voting: in an early window, move only where the domains agree."""

import math
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from gga_lightning.callbacks._base import DomainGradientCallback, ParameterChoice, check_window, say
from gga_lightning.domains import Split
from gga_lightning.probing import DomainLoss, Probe

__all__ = ["GradientAgreementVoting", "VoteRecord"]


class VoteRecord(NamedTuple):
    """The vote on one step.

    Attributes:
        step: The optimizer step.
        share: The share of the coordinates that moved (of their change, for ``"snr"``), in
            [0, 1].
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
    """Keeps, early in training, only that part of each update on which the domains agree.

    At each step of the window the callback computes every source domain's loss gradient on the
    step's batch and updates an exponential average of it. When the optimizer has made its step,
    each coordinate keeps the share of its change that the vote gives it: with ``vote="sign"`` all
    of it where the averages of all domains have the same strict sign, and none elsewhere; with
    ``vote="snr"`` (|mean| / root mean square over the domains) ** ``power``, between 0 and 1.
    After the window training goes on plainly.

    It is the update that is voted on, never the gradient: adaptive optimizers such as Adam divide
    by the size of past gradients and would undo a mask on them. So the optimizer's state sees
    plain gradients, and it does not matter which optimizer it is. Whatever else an optimizer's
    step does is part of the update: decoupled weight decay (AdamW) too stops where the vote fails.
    Gradient clipping and loss scaling change a gradient's length, not its sign, and so no vote.

    Parameters that no domain's loss depends on are left alone. With gradient accumulation the
    vote is on a step's first batch. A domain that is missing from a batch votes with its average.

    It costs one more set of domain gradients a step, and memory for a copy of the parameters and
    one average a domain; outside the window nothing. It is meant for the first part of training:
    over the whole of it, it keeps the network from learning what not all domains show at once.
    With many domains all signs agree seldom: use ``"snr"`` or a shorter window.

    Logged at each step: ``voting/share``, the share of the coordinates that moved (of their
    change, for ``"snr"``). All votes are kept in :attr:`records`, which checkpoints hold too, as
    they do the averages.

    Source: this project; docs/when-to-use-which.md has the measurements. Its relative AND-mask
    (Parascandolo et al., ICLR 2021) masks the gradient, by one batch, for the whole training.

    Example::

        trainer = Trainer(callbacks=[GradientAgreementVoting(end_step=200)])
    """

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
        """Sets the vote.

        Args:
            start_step: The first optimizer step voted on, counted from 0.
            end_step: The step before which the window ends.
            decay: Of the averages, in [0, 1): 0 is this step's gradients alone.
            vote: ``"sign"`` or ``"snr"``, see above.
            power: The exponent of ``"snr"``; positive. The greater, the stricter.
            control: ``"shuffle_domains"``: a control run in which each sample counts as of a
                domain drawn at random; see :class:`GradientGuidedAnnealing`.
            parameters: Which parameters' updates are voted on; default all trainable ones. See
                :class:`GradientGuidedAnnealing` for this and the next two.
            domain_loss: How to compute a domain's loss.
            split: How to find the domains in a batch.
            seed: Seed of the control. Must be the same on all ranks.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(
            control=control, parameters=parameters, domain_loss=domain_loss, split=split, seed=seed
        )
        check_window(start_step, end_step)
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` must be in [0, 1), got {decay}.")
        if vote not in ("sign", "snr"):
            raise ValueError(f"`vote` must be 'sign' or 'snr', got {vote!r}.")
        if not (math.isfinite(power) and power > 0):
            raise ValueError(f"`power` must be positive, got {power}.")
        self.start_step = start_step
        self.end_step = end_step
        self.decay = decay
        self.vote = vote
        self.power = power
        self.records: list[VoteRecord] = []
        self._averages: dict[str, _Average] = {}
        self._last_step = -1
        self._shares: dict[int, Tensor] = {}  # of a parameter's change, by the parameter's id
        self._before: dict[int, Tensor] = {}
        self._hooks: list[RemovableHandle] = []
        self._summed_up = False

    @property
    def state_key(self) -> str:
        """Tells two of these apart in a checkpoint."""
        return self._generate_state_key(start_step=self.start_step, end_step=self.end_step)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called when fit begins: checks the combination, forgets an earlier training."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.records = [r for r in self.records if r.step < trainer.global_step]
            self._averages = {}
            self._last_step = -1
            self._summed_up = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Called when a training batch begins: takes the vote on this step's update."""
        step = trainer.global_step
        if step == self._last_step:  # a further batch of the same step
            return
        self._last_step = step
        self._shares = {}
        if self.start_step <= step < self.end_step:
            self._tried = True
            self._take_vote(trainer, pl_module, batch, batch_idx)
            return
        self._try_once(trainer, pl_module, batch, batch_idx)
        if step >= self.end_step:
            self._averages = {}
            self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when training ends: sums up a window that was not left before."""
        self._stop(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Called when training breaks off: lets go of the optimizers."""
        self._unhook()

    def state_dict(self) -> dict[str, Any]:
        """Called when a checkpoint is saved."""
        return {
            "records": [tuple(record) for record in self.records],
            "averages": {
                domain: (average.steps, {name: v.clone() for name, v in average.values.items()})
                for domain, average in self._averages.items()
            },
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a checkpoint is loaded."""
        self.records = [VoteRecord(*record) for record in state_dict["records"]]
        self._averages = {d: _Average(*saved) for d, saved in state_dict["averages"].items()}

    def _compared(self, pl_module: LightningModule) -> list[nn.Parameter]:
        return self._chosen(pl_module)

    def _take_vote(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        chosen = {id(param) for param in self._chosen(pl_module)}
        named = {n: p for n, p in pl_module.named_parameters() if id(p) in chosen}
        with self._open(trainer, pl_module, batch, batch_idx) as opened:
            if opened is None:
                return
            gradients = dict(zip(opened.domains, opened.evaluate().gradients, strict=True))
            if not self._hooks:
                self._begin(trainer, opened)
        finite = torch.stack([g.sum().isfinite() for own in gradients.values() for g in own]).all()
        for domain, gradient in gradients.items():
            self._add(domain, dict(zip(named, gradient, strict=True)), finite)
        kept, total = (
            torch.zeros_like(finite, dtype=torch.float64),
            torch.zeros_like(finite, dtype=torch.long),
        )
        for name, param in named.items():
            share, reached = self._share([a.values[name] for a in self._averages.values()])
            self._shares[id(param)] = share.to(_real(param).dtype)
            kept = kept + torch.where(reached, share.sum(), 0.0)
            total = total + reached * share.numel()
        share, fine = torch.stack([kept / total.clamp(min=1), finite.float()]).tolist()
        if not fine:
            self._warn_once(
                "not finite",
                f"{type(self).__name__}: a domain's gradient is not finite at step "
                f"{trainer.global_step}; the averages of the steps before vote there.",
            )
        self.records.append(VoteRecord(trainer.global_step, share))
        self._report(trainer, pl_module, {"voting/share": share})

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

    def _begin(self, trainer: Trainer, opened: Probe) -> None:
        """Hooks into the optimizers' own steps, and says so."""
        for optimizer in trainer.optimizers:
            self._hooks.append(optimizer.register_step_pre_hook(self._before_step))
            self._hooks.append(optimizer.register_step_post_hook(self._after_step))
        controlled = f"; a control: {self.control!r}" if self.control else ""
        say(
            trainer,
            f"Voting: steps {trainer.global_step} to {self.end_step - 1} move where "
            f"{len(opened.domains)} domains agree ({', '.join(opened.domains)}; by "
            f"{opened.batches.source}){controlled}.",
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
        self._hooks, self._shares, self._before = [], {}, {}

    def _stop(self, trainer: Trainer) -> None:
        self._unhook()
        if self.records and not self._summed_up:
            self._summed_up = True
            share = math.fsum(record.share for record in self.records) / len(self.records)
            say(
                trainer,
                f"Voting: voted on {len(self.records)} steps; {share:.1%} of the coordinates "
                "moved (mean over the steps).",
            )


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
