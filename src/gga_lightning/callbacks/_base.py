"""The base class of the callbacks that use domain gradients."""

import contextlib
import hashlib
import re
from collections.abc import Generator, Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from gga_lightning.callbacks._clock import StepClock, planned_steps
from gga_lightning.callbacks._reader import DomainReader, StepStart
from gga_lightning.callbacks._setup import (
    ParameterChoice,
    check_domains,
    check_settings,
    check_setup,
)
from gga_lightning.probing import DomainLoss, Split
from gga_lightning.probing.probe import Probe
from gga_lightning.probing.source import LossSource

__all__ = ["DomainGradientCallback", "StepStart", "say"]


class DomainGradientCallback(Callback):
    """Base of the callbacks that read the domains' gradients before optimizer steps.

    It provides the count of steps and the window, the checks before any training and
    on the first batch, the evaluation of domains without side effects, messages and logs.
    Subclasses say what happens at a step (:meth:`_act`).
    """

    full_precision = False
    """Whether domain gradients are computed in float32 whatever the trainer's precision."""

    controls: tuple[str, ...] = ("shuffle_domains",)
    """What ``control`` may be, besides None."""

    refuses_one_domain = True
    """Whether data that are known to have a single domain are refused."""

    label = "Domain gradients"
    """How messages begin."""

    def __init__(
        self,
        *,
        start_step: int,
        end_step: int | None,
        every_n_steps: int = 1,
        control: str | None,
        parameters: ParameterChoice | None,
        domain_loss: DomainLoss | None,
        split: Split | None,
        seed: int,
    ) -> None:
        check_settings(
            start_step=start_step,
            end_step=end_step,
            every_n_steps=every_n_steps,
            control=control,
            controls=self.controls,
            parameters=parameters,
            domain_loss=domain_loss,
            split=split,
        )
        self.start_step = start_step
        self.end_step = end_step
        self.every_n_steps = every_n_steps
        self.control = control
        self.parameters = parameters
        self.domain_loss = domain_loss
        self.split = split
        self.seed = seed
        self._clock = StepClock()
        self._last_step = -1
        self._skipped = 0
        self._forget()

    def _forget(self) -> None:
        """Drops the state of a fit."""
        self._entered = self._summed_up = False
        self._opened_by: DomainReader | None = None

    @property
    def _reader(self) -> DomainReader:
        """The reader that finds and opens the domains of this fit's batches."""
        if self._opened_by is None:
            self._opened_by = DomainReader(
                type(self).__name__,
                domain_loss=self.domain_loss,
                split=self.split,
                full_precision=self.full_precision,
                redraw_randomness=self._redraws_randomness(),
            )
        return self._opened_by

    # Methods that subclasses define

    def _acts_at(self, step: int) -> bool:
        """Whether the callback acts at a step."""
        inside = step >= self.start_step and (self.end_step is None or step < self.end_step)
        return inside and (step - self.start_step) % self.every_n_steps == 0

    def _steps_left(self, trainer: Trainer, step: int) -> int | None:
        """The number of steps left in the window, this one included; None if unknown."""
        if self._has_own_schedule() or self.end_step is None:
            return None
        end = min(self.end_step, planned_steps(trainer))
        return max(1, len(range(step, int(end), self.every_n_steps)))

    def _has_own_schedule(self) -> bool:
        """Whether a user's subclass decides at which steps the callback acts."""
        return False

    def _act(self, start: StepStart) -> None:
        """Acts at a step of the window."""
        raise TypeError(f"{type(self).__name__} must define `_act(start)`.")

    def _prepare(self, start: StepStart) -> None:
        """Called at each batch, before anything else."""

    def _restart(self, step: int) -> None:
        """Drops what an earlier fit recorded at ``step`` and later ones."""

    def _entry(self, domains: str, start: StepStart) -> str:
        """The line to print at the first step of a window, after the label; "" for none."""
        return ""

    def _leave(self) -> None:
        """Called when the window is over."""

    def _closing(self, step: int) -> Iterator[str]:
        """The lines to print when the window ends, or when training ends at an earlier ``step``."""
        yield from ()

    def _default(self, named: list[tuple[str, nn.Parameter]]) -> list[nn.Parameter]:
        """The default choice of parameters."""
        return [param for _, param in named]

    def _compared(self, module: LightningModule) -> list[nn.Parameter]:
        """The parameters whose gradients are compared between domains."""
        return [param for param in module.parameters() if param.requires_grad]

    def _redraws_randomness(self) -> bool:
        return False

    def _state(self) -> dict[str, Any]:
        """The state that checkpoints keep, besides the clock's."""
        return {}

    def _load_state(self, state: dict[str, Any]) -> None:
        """Restores the state that :meth:`_state` returned."""

    # Hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called when fit, validate, test or predict begins: checks trainer and module."""
        if stage != "fit":
            return
        check_setup(self, trainer, pl_module, LossSource(pl_module, self.domain_loss))
        self._clock.restart(trainer)
        self._restart(trainer.global_step)
        self._last_step, self._skipped = -1, 0
        self._forget()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when fit begins, with the strategy set up: checks that there are parameters."""
        self._chosen(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when training begins: checks domains, warns if the window cannot be reached."""
        check_domains(self, trainer)
        if self._has_own_schedule() or getattr(trainer, "fast_dev_run", False):
            return
        step, name = self._clock.now(trainer), type(self).__name__
        if self.end_step is not None and step >= self.end_step:
            rank_zero_warn(
                f"{name}: training continues at step {step}, after the window (steps "
                f"{self.start_step} to {self.end_step - 1}), so that the callback does nothing."
            )
        elif 0 < self.start_step >= planned_steps(trainer):
            rank_zero_warn(
                f"{name}: training ends before the window, whose first step is "
                f"`start_step={self.start_step}`, so that the callback does nothing. Lower "
                "`start_step` or train longer."
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Called when a training batch begins.

        With gradient accumulation the callback acts once a step, at the step's first batch.
        """
        step = self._clock.now(trainer)
        start = StepStart(trainer, pl_module, batch, batch_idx, step)
        if not self._reader.checked:
            self._reader.check(start, self._compared(pl_module), self._shuffle(start))
        self._prepare(start)
        if step == self._last_step:  # a further batch of the same step
            return
        self._last_step = step
        if self._acts_at(step):
            self._act(start)
        elif self.end_step is not None and step >= self.end_step:
            self._sum_up(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Called when a training batch ends: counts the step."""
        self._clock.now(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when training ends: sums up the window, if that was not done before."""
        self._sum_up(trainer)
        self._forget()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Called when an exception ends the training."""
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        """Called when a checkpoint is saved."""
        return {
            "clock": self._clock.state_dict(),
            "last_step": self._last_step,
            "skipped": self._skipped,
            **self._state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a checkpoint is loaded."""
        self._clock.load_state_dict(state_dict["clock"])
        self._last_step = state_dict["last_step"]
        self._skipped = state_dict["skipped"]
        self._load_state(state_dict)

    # Methods that subclasses use

    def _chosen(self, module: LightningModule) -> list[nn.Parameter]:
        """Finds the trainable parameters that ``parameters`` selects, in the module's order."""
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        choice = self.parameters
        if choice is None:
            found = self._default(named)
        elif callable(choice):
            found = [param for name, param in named if choice(name, param)]
        else:
            found = [param for name, param in named if re.match(choice, name)]
        if not found:
            raise MisconfigurationException(
                f"`parameters={choice!r}` selects none of the module's {len(named)} trainable "
                f"parameters{', such as ' + repr(named[0][0]) if named else ''}."
            )
        return found

    @contextlib.contextmanager
    def _open(self, start: StepStart) -> Generator[Probe | None, None, None]:
        """Opens a batch for evaluation; yields None, and warns once, if that is impossible."""
        with self._reader.open(start, self._compared(start.module), self._shuffle(start)) as probe:
            if probe is None:
                self._skipped += 1
            elif not self._entered:
                self._entered = True
                self._enter(start, probe)
            yield probe

    def _shuffle(self, start: StepStart) -> torch.Generator | None:
        shuffles = self.control == "shuffle_domains"
        return self._generator(start.step, use="shuffle") if shuffles else None

    def _enter(self, start: StepStart, probe: Probe) -> None:
        """Prints at the first step what the callback does, and on which domains and losses."""
        losses = LossSource(start.module, self.domain_loss).name
        entry = self._entry(
            f"{len(probe.domains)} domains ({', '.join(probe.domains)}; by {self._reader.source}; "
            f"losses by {losses})",
            start,
        )
        if entry:
            controlled = f"; a control: {self.control!r}" if self.control else ""
            say(start.trainer, f"{self.label}: {entry}{controlled}.")

    def _sum_up(self, trainer: Trainer) -> None:
        if not self._summed_up:
            self._summed_up = True
            self._leave()
            for line in self._closing(self._clock.now(trainer)):
                say(trainer, f"{self.label}: {line}")

    def _report(self, start: StepStart, values: dict[str, float]) -> None:
        """Logs values of this step, once, to every logger and to ``callback_metrics``.

        ``pl_module.log`` alone is not enough: Lightning repeats such a value on every later step of
        the epoch, and leaves out steps between those of ``log_every_n_steps``.
        """
        if start.trainer.barebones:
            return
        for logger in start.trainer.loggers:
            logger.log_metrics(values, step=start.step)
        for name, value in values.items():
            LightningModule.log(start.module, name, value, logger=False, batch_size=1)

    def _generator(
        self, step: int, device: torch.device | str = "cpu", *, use: str = "noise"
    ) -> torch.Generator:
        """Makes a generator whose seed depends on the class, the seed, the use and the step."""
        # so that a resumed run and all ranks draw the same numbers
        text = f"{type(self).__name__}:{self.seed}:{use}:{step}"
        digest = hashlib.sha256(text.encode()).digest()
        return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") % 2**63)


def say(trainer: Trainer, message: str) -> None:
    """Prints a line on the main process, above the progress bar if there is one.

    Args:
        trainer: The trainer.
        message: The line.
    """
    bar = trainer.progress_bar_callback
    if bar is not None and getattr(bar, "is_enabled", True):
        if trainer.is_global_zero:
            bar.print(message)
    else:
        rank_zero_info(message)
