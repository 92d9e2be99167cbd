"""What the callbacks that use domain gradients have in common."""

import contextlib
import hashlib
import re
from collections.abc import Callable, Generator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import nn

from gga_lightning.domains import Split
from gga_lightning.probing import DomainLoss, LossSource, Probe, probe

__all__ = ["DomainGradientCallback", "ParameterChoice", "check_integer", "check_window", "say"]

ParameterChoice = str | Callable[[str, nn.Parameter], bool]

# By name, so that `pytorch_lightning`'s strategies are known too. DeepSpeedStrategy descends from
# DDPStrategy, but shards.
_STRATEGIES = {"SingleDeviceStrategy", "DDPStrategy"}
_SHARDING = {"DeepSpeedStrategy"}


class DomainGradientCallback(Callback):
    """Base of the callbacks that read the domains' gradients.

    It checks trainer and module before any training, tries the first batch of a fit, opens
    batches for evaluation, and keeps count of batches that could not be used.
    """

    full_precision = False
    """Whether domain gradients are computed in float32 whatever the trainer's precision."""

    controls: tuple[str, ...] = ("shuffle_domains",)
    """What ``control`` may be, besides None."""

    def __init__(
        self,
        *,
        control: str | None,
        parameters: ParameterChoice | None,
        domain_loss: DomainLoss | None,
        split: Split | None,
        seed: int,
    ) -> None:
        if control is not None and control not in self.controls:
            allowed = " or ".join(map(repr, self.controls))
            raise ValueError(f"`control` must be {allowed} or None, got {control!r}.")
        if parameters is not None and not callable(parameters):
            try:
                re.compile(parameters)
            except (re.error, TypeError) as error:
                raise ValueError(
                    "`parameters` must be a regular expression for the start of parameter names, "
                    f"or a callable (name, parameter) -> bool, got {parameters!r}."
                ) from error
        if domain_loss is not None and not callable(domain_loss):
            raise ValueError(
                "`domain_loss` must be a callable (module, domain_batch) -> loss, "
                f"got {domain_loss!r}."
            )
        if split is not None and not (isinstance(split, str | int) or callable(split)):
            raise ValueError(
                "`split` must be a key or index of the batch, or a callable (batch) -> mapping of "
                f"domain names to domain batches, got {split!r}."
            )
        self.control = control
        self.parameters = parameters
        self.domain_loss = domain_loss
        self.split = split
        self.seed = seed
        self._tried = False
        self._split = split
        self._warned: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called when fit, validate, test, predict or tune begins: checks the combination."""
        if stage != "fit":
            return
        name = type(self).__name__
        ancestors = {ancestor.__name__ for ancestor in type(trainer.strategy).__mro__}
        if ancestors & _SHARDING or not ancestors & _STRATEGIES:
            raise MisconfigurationException(
                f"{name} needs all parameters on every process, so it works with a single device "
                f"and with DDP, got {type(trainer.strategy).__name__}."
            )
        source = LossSource(pl_module, self.domain_loss)
        if source.takes_step and not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"{name} cannot call {source.name}, because it steps its optimizers itself "
                "(manual optimization). Give `domain_loss=`, a callable (module, domain_batch) -> "
                "loss, or the module a method `domain_loss(domain_batch)`."
            )
        if is_param_in_hook_signature(pl_module.training_step, "dataloader_iter", explicit=True):
            raise MisconfigurationException(
                f"{name} needs to see the batch before `training_step`, which "
                "`training_step(dataloader_iter)` does not allow. Take `batch` instead."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when fit begins, with the strategy set up: checks that there are parameters."""
        self._chosen(pl_module)
        self._tried = False
        self._split = self.split

    def _chosen(self, pl_module: LightningModule) -> list[nn.Parameter]:
        """Finds the trainable parameters that ``parameters`` selects.

        Args:
            pl_module: The module.

        Returns:
            The parameters, in the module's order.

        Raises:
            MisconfigurationException: If there are none.
        """
        named = [(n, p) for n, p in pl_module.named_parameters() if p.requires_grad]
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

    def _default(self, named: list[tuple[str, nn.Parameter]]) -> list[nn.Parameter]:
        """The parameters chosen where the user chose none."""
        return [param for _, param in named]

    def _compared(self, pl_module: LightningModule) -> list[nn.Parameter]:
        """The parameters whose gradients are compared between domains."""
        return [param for param in pl_module.parameters() if param.requires_grad]

    @contextlib.contextmanager
    def _open(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> Generator[Probe | None, None, None]:
        """Opens a batch for evaluation.

        Args:
            trainer: The trainer.
            pl_module: Its module.
            batch: The training batch.
            batch_idx: Its index.

        Yields:
            The probe, or None (having warned once) where the batch shows fewer than two domains.
        """
        with probe(
            trainer,
            pl_module,
            batch,
            batch_idx,
            self._compared(pl_module),
            domain_loss=self.domain_loss,
            split=self._split,
            full_precision=self.full_precision,
            redraw_randomness=self._redraws_randomness(),
            shuffle=(
                self._generator(trainer.global_step, use="shuffle")
                if self.control == "shuffle_domains"
                else None
            ),
        ) as opened:
            self._split = opened.batches.split
            yield opened if self._usable(pl_module, opened) else None

    def _redraws_randomness(self) -> bool:
        return False

    def _usable(self, pl_module: LightningModule, opened: Probe) -> bool:
        name = type(self).__name__
        if len(opened.domains) < 2:
            found = f"only {opened.domains[0]!r}" if opened.domains else "none with samples"
            self._warn_once(
                "few domains",
                f"{name}: a batch shows fewer than two domains ({found}, by "
                f"{opened.batches.source}); such batches are trained on as usual.",
            )
            return False
        if opened.missing:
            rank, missing = next(iter(opened.missing.items()))
            synced = any(isinstance(m, nn.SyncBatchNorm) for m in pl_module.modules())
            doing = (
                "such batches are trained on as usual, since SyncBatchNorm needs every rank"
                if synced
                else "its gradient comes from the other ranks alone there"
            )
            self._warn_once(
                "missing domains",
                f"{name}: rank {rank} has no sample of {', '.join(map(repr, missing))} in its "
                f"part of a batch; {doing}.",
            )
            return not synced
        return True

    def _try_once(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Evaluates the first batch of a fit, so that what is wrong is said at once.

        Args:
            trainer: The trainer.
            pl_module: Its module.
            batch: The training batch.
            batch_idx: Its index.

        Raises:
            MisconfigurationException: If no domains are found in the batch or the module's loss
                is not a scalar with a graph.
        """
        if not self._tried:
            self._tried = True
            with self._open(trainer, pl_module, batch, batch_idx) as opened:
                if opened is not None:
                    opened.evaluate()

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            rank_zero_warn(message)

    def _report(
        self, trainer: Trainer, pl_module: LightningModule, values: dict[str, float]
    ) -> None:
        """Logs values of this step, once, to every logger and to ``callback_metrics``.

        Not by ``pl_module.log`` alone: what is logged so on some steps only, Lightning repeats on
        every later step of the epoch, and leaves out where ``log_every_n_steps`` does not fall.

        Args:
            trainer: The trainer.
            pl_module: Its module.
            values: Name to value; equal on all ranks.
        """
        if trainer.barebones:
            return
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        for name, value in values.items():
            pl_module.log(name, value, logger=False, batch_size=1)

    def _generator(
        self, step: int, device: torch.device | str = "cpu", *, use: str = "noise"
    ) -> torch.Generator:
        """Makes a source of randomness, a function of the class, the seed, the use and the step.

        So a resumed run draws what a straight one draws, and all ranks draw the same.

        Args:
            step: The optimizer step.
            device: Where the generator works.
            use: What for.

        Returns:
            A seeded generator.
        """
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


def check_window(start_step: Any, end_step: Any, *, open_end: bool = False) -> None:
    """Checks a window of optimizer steps.

    Args:
        start_step: Its first step.
        end_step: The step before which it ends.
        open_end: Whether ``end_step`` may be None.

    Raises:
        ValueError: If the two are not integers, or there is no step between them.
    """
    check_integer("start_step", start_step, 0)
    if open_end and end_step is None:
        return
    check_integer("end_step", end_step, 0)
    if end_step <= start_step:
        raise ValueError(
            f"`end_step` must be greater than `start_step` ({start_step})"
            f"{' or None' if open_end else ''}, got {end_step}."
        )


def check_integer(name: str, value: Any, minimum: int) -> None:
    """Checks a constructor's argument.

    Args:
        name: The argument's name.
        value: Its value.
        minimum: The least value allowed.

    Raises:
        ValueError: If ``value`` is not an integer of at least ``minimum``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"`{name}` must be an integer of at least {minimum}, got {value!r}.")
