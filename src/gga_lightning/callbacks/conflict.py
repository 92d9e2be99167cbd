"""Logs how far the domains' gradients agree during training."""

import itertools
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from gga_lightning.alignment import conflict_summary
from gga_lightning.callbacks._base import DomainGradientCallback
from gga_lightning.callbacks._reader import StepStart
from gga_lightning.callbacks._setup import ParameterChoice, run_in_order
from gga_lightning.probing import DomainLoss, Split

__all__ = ["ConflictRecord", "GradientConflictMonitor"]


class ConflictRecord(NamedTuple):
    """The domains' agreement at one step.

    Attributes:
        step: The optimizer step.
        domains: The D domains' names.
        cosines: Their gradients' cosine matrix, shape ``(D, D)``, float64, on the CPU.

    Example:
        >>> record = ConflictRecord(50, ("art", "photo"), torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        >>> float(record.cosines[0, 1])
        -0.5
    """

    step: int
    domains: tuple[str, ...]
    cosines: Tensor


class GradientConflictMonitor(DomainGradientCallback):
    """Logs the cosine similarities between the domains' gradients, without changing anything.

    Before every n-th optimizer step it computes each domain's gradient on the step's batch, in
    the trainer's precision. It logs the lowest and the mean cosine (``conflict/min``,
    ``conflict/mean``), the share of pairs with a negative cosine (``conflict/share``), and the
    cosine of each pair (``conflict/<a>-<b>``). All cosines are kept in :attr:`records` and in
    checkpoints. :func:`gga_lightning.plots.plot_cosines` draws them.

    The monitor runs before all other callbacks but :class:`RandomState`, wherever it is in the
    list. It therefore reads the weights after the last training step, before a search moves them.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> monitor = GradientConflictMonitor(every_n_steps=50)
        >>> trainer = Trainer(max_steps=5000, callbacks=[monitor], logger=False)
        >>> monitor.records  # a ConflictRecord for each measurement, once the trainer has trained
        []
    """

    label = "Conflict"
    refuses_one_domain = False  # it changes nothing, and gga-train has it by default
    place = 1

    def __init__(
        self,
        every_n_steps: int = 50,
        *,
        control: Literal["shuffle_domains"] | None = None,
        domain_loss: DomainLoss | None = None,
        split: Split | None = None,
        parameters: ParameterChoice | None = None,
    ) -> None:
        """Configures the monitor.

        Args:
            every_n_steps: Compute the cosines before every n-th optimizer step, from the first on.
            control: ``"shuffle_domains"`` assigns samples to domains at random. This shows how far
                gradients of random groups of samples differ.
            domain_loss: How to compute a domain's loss. See :class:`GradientGuidedAnnealing` for
                this and the next.
            split: How to find the domains in a batch.
            parameters: Which parameters' gradients are compared; default all trainable ones.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(
            start_step=0,
            end_step=None,
            every_n_steps=every_n_steps,
            control=control,
            parameters=parameters,
            domain_loss=domain_loss,
            split=split,
            seed=0,
        )
        self.records: list[ConflictRecord] = []

    @property
    def state_key(self) -> str:
        """Tells two monitors apart in a checkpoint."""
        choice = self.parameters
        name = (
            getattr(choice, "__qualname__", type(choice).__name__) if callable(choice) else choice
        )
        return self._generate_state_key(
            every_n_steps=self.every_n_steps, parameters=name, control=self.control
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called when fit begins: checks the combination, and takes its place in the list."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            run_in_order(trainer)

    def _restart(self, step: int) -> None:
        self.records = [record for record in self.records if record.step < step]

    def _act(self, start: StepStart) -> None:
        """Logs the cosines."""
        with self._open(start) as probe:
            if probe is None:
                return
            cosines = probe.evaluate().cosines.cpu()
        self.records.append(ConflictRecord(start.step, probe.domains, cosines))
        values = {f"conflict/{k}": v for k, v in conflict_summary(cosines)._asdict().items()}
        for i, j in itertools.combinations(range(len(cosines)), 2):
            values[f"conflict/{probe.domains[i]}-{probe.domains[j]}"] = float(cosines[i, j])
        self._report(start, values)

    def _compared(self, module: LightningModule) -> list[nn.Parameter]:
        return self._chosen(module)

    def _state(self) -> dict[str, Any]:
        return {"records": [(r.step, r.domains, r.cosines.tolist()) for r in self.records]}

    def _load_state(self, state: dict[str, Any]) -> None:
        self.records = [
            ConflictRecord(step, tuple(domains), torch.tensor(cosines, dtype=torch.float64))
            for step, domains, cosines in state["records"]
        ]
