"""Runs a module's code on parts of a batch, without effects on the training."""

import contextlib
import sys
import warnings
from collections.abc import Generator, Hashable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from gga_lightning.probing.loggers import Silence, silent_logger
from gga_lightning.probing.precision import full_precision
from gga_lightning.probing.randomness import Access, global_random_states, same_random_state
from gga_lightning.probing.twin import Known, Twin

__all__ = ["Sandbox"]

_GLOBAL_HOOKS = [
    getattr(torch.nn.modules.module, f"_global_{kind}_hooks")
    for kind in ("forward", "forward_pre", "backward", "backward_pre")
]
_WROTE = (
    "The step writes to a large NumPy array, or to one in a file, which is shared instead of "
    "copied, since the first batch of the fit did not change it. It is one of {}. Give "
    "`domain_loss=`, a callable (module, domain_batch) -> loss that does not change it."
)


class Sandbox:
    """Evaluates a module on a copy, so that the module, the batch and the logs do not change.

    A sandbox owns everything that an evaluation can change: a copy of the module
    (:class:`Twin`), copies of the batch, the random state, the loggers, the attributes of the
    trainer, the hyperparameters of the optimizers, and the precision. The module's code runs in
    training mode and with gradients. All runs begin with the state in which the sandbox was opened.

    Use it as a context manager. Within it, :meth:`run` evaluates.

    Attributes:
        module: The module to run instead of the original.
        part: The copy of the batch to run it on, inside :meth:`run`.
        redraws: Whether each run draws new random numbers.
        draws_random_numbers: Whether a run has drawn random numbers.
        draws_elsewhere: Whether a run has drawn from another generator than the device's global
            one.
    """

    def __init__(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        known: Known,
        *,
        full_precision: bool = False,
        redraw_randomness: bool = False,
        trial: bool = False,
        double: bool = False,
    ) -> None:
        """Sets how to evaluate.

        Args:
            trainer: The trainer at work.
            pl_module: Its module, not wrapped.
            known: What earlier evaluations of the fit have shown.
            full_precision: Whether to compute in float32 without autocast and TF32, whatever the
                trainer's precision.
            redraw_randomness: Whether each run draws new random numbers, for dropout masks and
                the like. Otherwise runs of the same kind draw the same.
            trial: Whether this is the first evaluation of the fit, which fills ``known``. The
                sandbox can then be entered several times, until :meth:`discard`.
            double: Whether parameters, buffers and whatever the module makes are float64. The
                parameters are then copies: take gradients for those that :meth:`own` gives.
        """
        self._trainer = trainer
        self._original = pl_module
        self._known = known
        self._full_precision = full_precision
        self.redraws = redraw_randomness
        self._trial = trial
        self._double = double
        self._doubles: dict[int, Tensor] = {}
        self._stack = contextlib.ExitStack()
        self._twin: Twin | None = None
        self._instead: dict[int, Any] = {}
        self.part: Any = None
        self.draws_random_numbers = False
        self.draws_elsewhere = False
        self._parts: dict[Hashable, Any] = {}
        self._draws: dict[Hashable, list[tuple[Any, Any]]] = {}

    def __enter__(self) -> "Sandbox":
        trainer, device = self._trainer, self._original.device
        with contextlib.ExitStack() as stack:
            self._keep_surroundings(stack)
            self._silence()
            if self._twin is None:
                self._twin = self._make_twin()
            if self._twin.read_only:
                stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            stack.enter_context(torch.enable_grad())
            stack.enter_context(trainer.precision_plugin.train_step_context())
            if self._double:
                stack.callback(torch.set_default_dtype, torch.get_default_dtype())
                torch.set_default_dtype(torch.float64)
            if self._full_precision or self._double:
                stack.enter_context(full_precision(device))
            if "torch._dynamo" in sys.modules:
                # Compiled code is compiled again for other shapes. The training step might then
                # run other kernels than without the callback.
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        try:
            if self._twin is not None and error[0] is None:
                self._twin.check_sample()
        finally:
            if not self._trial:
                self.discard()

    def discard(self) -> None:
        """Frees the copies at once; they may refer to themselves."""
        if self._twin is not None:
            self._twin.discard()

    @contextlib.contextmanager
    def run(self, kind: Hashable, part: Any) -> Generator[Any, None, None]:
        """Runs the body in the state in which the sandbox was opened.

        Args:
            kind: A name for runs that are alike. The first run of each kind continues to draw
                random numbers where the first run of the kind before it stopped. Later runs of
                the kind draw the same numbers as its first run.
            part: The batch to run on, the same in all runs of a kind.

        Yields:
            A copy of ``part``, which the body may change.

        Raises:
            MisconfigurationException: If the body changed what cannot be restored.
            ValueError: If the body raised it.
        """
        twin, first = self._twin, kind not in self._parts
        assert twin is not None
        if first:
            self._parts[kind] = twin.adopt(part, "batch")
        twin.rewind(self._parts[kind])
        self.redraw(kind)
        drawn_from = [get() for get, _ in self._random] if first else []
        before = [(param._version, param.data_ptr()) for _, param in self._shared]
        self.part = self._parts[kind]
        try:
            yield self.part
        except ValueError as error:
            if twin.read_only and "read-only" in str(error):
                raise MisconfigurationException(_WROTE.format(twin.read_only_names())) from error
            raise
        for (name, param), old in zip(self._shared, before, strict=True):
            if (param._version, param.data_ptr()) != old:
                self._refuse_parameter_change(name)
        if first:
            twin.observe(self.part)
        if self._trial:
            twin.learn()
        if first:
            drawn = [
                (access, state)
                for access, state in zip(self._random, drawn_from, strict=True)
                if not same_random_state(access[0](), state)
            ]
            self.draws_random_numbers |= bool(drawn)
            self.draws_elsewhere |= any(a is not self._device_random for a, _ in drawn)
            self._draws[kind] = [] if self.redraws else [(put, s) for (_, put), s in drawn]

    def redraw(self, kind: Hashable) -> None:
        """Sets the random state in which runs of a kind begin.

        Args:
            kind: See :meth:`run`.
        """
        for put, state in self._draws.get(kind, ()):
            put(state)

    def rewind(self, kind: Hashable) -> None:
        """Undoes what runs of a kind change in tensors, by tensor operations only.

        Args:
            kind: See :meth:`run`. A run of it has been made.
        """
        assert self._twin is not None
        self._twin.rewind_tensors(self._parts[kind])

    def _refuse_parameter_change(self, name: str) -> None:
        for (_, param), memory in zip(self._shared, self._memories, strict=True):
            if param.data_ptr() != memory.data_ptr():
                param.data = memory
        raise MisconfigurationException(
            f"The step changes `self.{name}` in place while its loss is computed, but a "
            "search moves this parameter itself. Give `domain_loss=`, a callable (module, "
            "domain_batch) -> loss that does not change it."
        )

    def own(self, params: Sequence[Tensor]) -> list[Tensor]:
        """Finds the tensors that represent the module's parameters in the sandbox.

        Args:
            params: Parameters of the module.

        Returns:
            Their float64 copies under ``double``, else the parameters themselves.
        """
        return [self._doubles.get(id(param), param) for param in params]

    @property
    def changes_sparse(self) -> bool:
        """Whether a run has changed a sparse tensor, which :meth:`rewind` cannot restore."""
        return self._twin is not None and self._twin.changes_sparse

    @property
    def has_large(self) -> bool:
        """Whether the module has large tensors or arrays, beside its parameters."""
        return self._twin is not None and self._twin.has_large

    def _keep_surroundings(self, stack: contextlib.ExitStack) -> None:
        """Restores, in the end, the random state, the trainer and the optimizers' settings."""
        for get, put in global_random_states(self._original.device):
            stack.callback(put, get())
        spaces: list[dict[str, Any]] = [vars(self._trainer)]
        spaces += [group for opt in self._trainer.optimizers for group in opt.param_groups]
        for space in spaces:
            stack.callback(_restore, space, dict(space))
        hooks = [param._backward_hooks for param in self._original.parameters()]
        for found in (*hooks, *_GLOBAL_HOOKS):
            if found:  # they watch the training, such as `wandb.watch`
                stack.callback(found.update, dict(found))
                found.clear()

    def _silence(self) -> None:
        """Replaces the loggers of the trainer and the module by silent ones."""
        loggers = self._trainer.loggers
        silent = [silent_logger(logger) for logger in loggers]
        self._trainer.loggers = silent
        self._instead |= {id(real): quiet for real, quiet in zip(loggers, silent, strict=True)}
        for logger in loggers:
            experiment = vars(logger).get("_experiment")
            if experiment is not None:
                self._instead[id(experiment)] = Silence(experiment)

    def _make_twin(self) -> Twin:
        optimizers = self._trainer.optimizers
        schedules = [config.scheduler for config in self._trainer.lr_scheduler_configs]
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        if self._double:
            self._doubles = _doubled(self._original)
        twin = Twin(
            self._original,
            self._known,
            optimized={id(param) for group in groups for param in group["params"]},
            trial=self._trial,
            instead={
                **self._instead,
                **{id(part): part for part in (*optimizers, *schedules)},
                **self._doubles,
            },
        )
        globally = global_random_states(self._original.device)
        on_host = self._original.device.type in ("cpu", "meta")
        self._device_random = globally[0 if on_host else -1]
        self._random: list[Access] = [*globally, *twin.random_states]
        self._shared = [(n, p) for n, p in self._original.named_parameters() if p.requires_grad]
        self._memories = [param.detach() for _, param in self._shared]
        self.module: Any = twin.module
        return twin


def _doubled(module: torch.nn.Module) -> dict[int, Tensor]:
    """Float64 copies of a module's parameters and buffers, by the ids of the originals."""
    copies: dict[int, Tensor] = {
        id(param): torch.nn.Parameter(_double(param), param.requires_grad)
        for param in module.parameters()
        if param.is_floating_point()
    }
    floats = (buffer for buffer in module.buffers() if buffer.is_floating_point())
    return copies | {id(buffer): _double(buffer) for buffer in floats}


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float64, copy=True)  # a copy of a float64 tensor too


def _restore(space: dict[str, Any], saved: dict[str, Any]) -> None:
    for name in space.keys() - saved.keys():
        del space[name]
    for name, value in saved.items():
        if name not in space or space[name] is not value:
            space[name] = value
