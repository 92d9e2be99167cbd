"""Watches how far the domains' gradients agree during training."""

import itertools
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from gga_lightning.callbacks._base import DomainGradientCallback, ParameterChoice, check_integer
from gga_lightning.domains import Split
from gga_lightning.gradients import conflict_summary
from gga_lightning.probing import DomainLoss

__all__ = ["ConflictRecord", "GradientConflictMonitor"]


class ConflictRecord(NamedTuple):
    """The domains' agreement at one step.

    Attributes:
        step: The optimizer step.
        domains: The D domains' names.
        cosines: Their gradients' cosine matrix, shape ``(D, D)``, float64, on the CPU.
    """

    step: int
    domains: tuple[str, ...]
    cosines: Tensor


class GradientConflictMonitor(DomainGradientCallback):
    """Logs the cosine similarities between the domains' gradients; changes nothing.

    Before every n-th optimizer step it computes each domain's gradient on the step's batch, in
    the trainer's precision, and logs ``conflict/min``, ``conflict/mean``, ``conflict/share`` (of
    the pairs with a negative cosine) and, pair by pair, ``conflict/<a>-<b>``. All of it is kept
    in :attr:`records`, which checkpoints hold too, and can be drawn with
    :func:`gga_lightning.plots.plot_cosines`.

    Example::

        monitor = GradientConflictMonitor(every_n_steps=50)
        Trainer(callbacks=[monitor]).fit(module, data)
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        *,
        control: Literal["shuffle_domains"] | None = None,
        domain_loss: DomainLoss | None = None,
        split: Split | None = None,
        parameters: ParameterChoice | None = None,
    ) -> None:
        """Sets the monitor.

        Args:
            every_n_steps: Look before every so many optimizer steps, the first included.
            control: ``"shuffle_domains"``: each sample counts as of a domain drawn at random,
                which shows how far gradients differ that have nothing to do with domains.
            domain_loss: How to compute a domain's loss. See :class:`GradientGuidedAnnealing` for
                this and the next.
            split: How to find the domains in a batch.
            parameters: Which parameters' gradients are compared; default all trainable ones.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(
            control=control, parameters=parameters, domain_loss=domain_loss, split=split, seed=0
        )
        check_integer("every_n_steps", every_n_steps, 1)
        self.every_n_steps = every_n_steps
        self.records: list[ConflictRecord] = []
        self._last_step = -1

    @property
    def state_key(self) -> str:
        """Tells two monitors apart in a checkpoint."""
        return self._generate_state_key(
            every_n_steps=self.every_n_steps,
            parameters=str(self.parameters),
            control=self.control,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called when fit begins: checks the combination, forgets an earlier training."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.records = [r for r in self.records if r.step < trainer.global_step]
            self._last_step = self.records[-1].step if self.records else -1

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Called when a training batch begins: looks, if it is time to."""
        step = trainer.global_step
        if step == self._last_step or step % self.every_n_steps:
            self._try_once(trainer, pl_module, batch, batch_idx)
            return
        self._last_step = step
        self._tried = True
        with self._open(trainer, pl_module, batch, batch_idx) as opened:
            if opened is None:
                return
            cosines = opened.evaluate().cosines.cpu()
        self.records.append(ConflictRecord(step, opened.domains, cosines))
        values = {f"conflict/{k}": v for k, v in conflict_summary(cosines)._asdict().items()}
        for i, j in itertools.combinations(range(len(cosines)), 2):
            values[f"conflict/{opened.domains[i]}-{opened.domains[j]}"] = float(cosines[i, j])
        self._report(trainer, pl_module, values)

    def _compared(self, pl_module: LightningModule) -> list[nn.Parameter]:
        return self._chosen(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Called when a checkpoint is saved."""
        return {
            "last_step": self._last_step,
            "records": [(r.step, r.domains, r.cosines.tolist()) for r in self.records],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a checkpoint is loaded."""
        self._last_step = state_dict["last_step"]
        self.records = [
            ConflictRecord(step, tuple(domains), torch.tensor(cosines, dtype=torch.float64))
            for step, domains, cosines in state_dict["records"]
        ]
