"""Evaluates a LightningModule's domain losses and gradients, and leaves no trace.

A probe runs the module's own code on parts of a training batch, in training mode, as often as
asked. What that code changes on its way (logs, metrics, buffers, random state, counters) is put
back; ``.grad`` is never touched. The parameters are the caller's business.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn

from gga_lightning._rewind import Rewind
from gga_lightning.domains import DomainBatches, Split, batch_rows, shuffle_domains, split_batch
from gga_lightning.evaluation import DomainEvaluator

__all__ = ["DomainLoss", "LossSource", "Probe", "probe"]

DomainLoss = Callable[[LightningModule, Any], Tensor]


class LossSource:
    """Where a module's domain loss comes from.

    In this order: the callable given, the module's ``domain_loss`` method, the module's
    ``training_step`` on the domain's part of the batch.

    Attributes:
        name: The source in words, for messages.
        takes_step: Whether it is ``training_step``, which takes the batch cut down to one domain
            instead of the domain's own batch.
    """

    def __init__(self, pl_module: LightningModule, domain_loss: DomainLoss | None) -> None:
        """Finds the source.

        Args:
            pl_module: The module.
            domain_loss: The user's callable, if any.
        """
        # of the class: an attribute of that name may well be a criterion for something else
        method = getattr(type(pl_module), "domain_loss", None)
        self.takes_step = False
        self._pl_module = pl_module
        if domain_loss is not None:
            self.name = "`domain_loss=`"
            self._call = lambda part, _: domain_loss(pl_module, part)
        elif callable(method):
            self.name = f"`{type(pl_module).__name__}.domain_loss`"
            self._call = lambda part, _: method(pl_module, part)
        else:
            self.name = f"`{type(pl_module).__name__}.training_step`"
            self.takes_step = True
            wants_index = is_param_in_hook_signature(
                pl_module.training_step, "batch_idx", min_args=2
            )
            self._call = lambda part, index: (
                pl_module.training_step(part, index)
                if wants_index
                else pl_module.training_step(part)
            )

    def __call__(self, part: Any, batch_idx: int, domain: str) -> Tensor | None:
        """Computes one domain's loss.

        Args:
            part: The domain's batch, or its step if :attr:`takes_step`.
            batch_idx: The batch's index, for ``training_step``.
            domain: The domain's name, for messages.

        Returns:
            A scalar with a graph, or None where ``training_step`` returned None.

        Raises:
            MisconfigurationException: If what comes back is not a scalar tensor with a graph.
        """
        loss = self._call(part, batch_idx)
        if self.takes_step:
            loss = loss.get("loss") if isinstance(loss, Mapping) else loss
            if loss is None:
                return None
        if not isinstance(loss, Tensor):
            problem = f"must return a scalar tensor, got {type(loss).__name__}"
        elif loss.numel() != 1:
            problem = f"must return a scalar (the domain's mean loss), got shape {list(loss.shape)}"
        elif not loss.requires_grad:
            problem = "must return a loss that depends on the parameters, got one without a graph"
        else:
            return loss.reshape(())
        raise MisconfigurationException(f"{self.name} {problem}, on domain {domain!r}.")


class Probe(DomainEvaluator):
    """A batch's domains, ready to be evaluated. Made by :func:`probe`.

    Under several processes every domain is that of all ranks' batches joined: a rank weighs by
    its number of samples, and one that has none of a domain adds nothing to it. Where
    ``training_step`` returns None the domain's loss is NaN and its gradient zero.

    Attributes:
        domains: The names of the domains that have samples, on any rank, in a common order.
        batches: The batch, split.
        missing: Rank to the domains it has no sample of, for the ranks that lack one.
    """

    def __init__(
        self,
        batches: DomainBatches,
        loss: Callable[[str], Tensor | None],
        params: Sequence[Tensor],
        rewind: Rewind,
        *,
        reduce: Callable[[Tensor], Tensor] | None = None,
        loss_scale: float = 1.0,
        module: nn.Module | None = None,
    ) -> None:
        """Counts the domains' samples over all ranks.

        Args:
            batches: This rank's batch, split.
            loss: Computes the loss of the domain of that name.
            params: The parameters to take gradients for.
            rewind: Puts back what evaluations change.
            reduce: Sums a tensor over the ranks; None for a single process.
            loss_scale: What losses are multiplied by while differentiated, against underflow
                in float16.
            module: The module that the losses run.
        """
        here = {name: batch_rows(part) for name, part in batches.parts.items()}
        ranks = [here] if reduce is None else _gather(here)
        self.domains = tuple(dict.fromkeys(name for rank in ranks for name in rank))
        self.batches = batches
        self.missing = {
            rank: names
            for rank, sizes in enumerate(ranks)
            if (names := [name for name in self.domains if name not in sizes])
        }
        totals = [sum(sizes.get(name, 0) for sizes in ranks) for name in self.domains]
        super().__init__(
            [functools.partial(loss, name) for name in self.domains],
            params,
            sizes=totals,
            shares=[here.get(n, 0) / total for n, total in zip(self.domains, totals, strict=True)],
            reduce=reduce,
            surroundings=_Guarded(rewind, params),
            loss_scale=loss_scale,
            module=module,
        )


class _Guarded:
    """A rewind that also sees to it that nobody else moves the parameters."""

    def __init__(self, rewind: Rewind, params: Sequence[Tensor]) -> None:
        self._rewind = rewind
        self._params = params
        self._versions: list[int] = []

    def before(self, kind: int) -> None:
        self._rewind.before(kind)
        self._versions = [param._version for param in self._params]

    def after(self, kind: int) -> None:
        if self._versions != [param._version for param in self._params]:
            raise MisconfigurationException(
                "The module changes its parameters in place while its loss is computed, which "
                "cannot be undone. Give `domain_loss=`, a callable (module, domain_batch) -> "
                "loss without that."
            )
        self._rewind.after(kind)


@contextlib.contextmanager
def probe(
    trainer: Trainer,
    pl_module: LightningModule,
    batch: Any,
    batch_idx: int,
    params: Sequence[Tensor],
    *,
    domain_loss: DomainLoss | None = None,
    split: Split | None = None,
    full_precision: bool = False,
    redraw_randomness: bool = False,
    shuffle: torch.Generator | None = None,
) -> Generator[Probe, None, None]:
    """Opens a training batch for evaluations without side effects.

    Args:
        trainer: The trainer at work.
        pl_module: Its module, not wrapped.
        batch: The training batch, on the module's device.
        batch_idx: Its index.
        params: The parameters to take gradients for.
        domain_loss: See :class:`LossSource`.
        split: See :func:`gga_lightning.domains.split_batch`.
        full_precision: Whether to compute in float32 without autocast and TF32, whatever the
            trainer's precision, as the search needs: its differences drown in less.
        redraw_randomness: Whether each evaluation draws its own dropout masks instead of all of
            them seeing the same.
        shuffle: If given, draws which domain each sample counts as; see
            :func:`gga_lightning.domains.shuffle_domains`.

    Yields:
        The probe. On leaving, also by an exception, everything but the parameters is as before.

    Raises:
        MisconfigurationException: If no domains can be found in the batch, or they cannot be
            shuffled.
    """
    try:
        batches = split_batch(batch, split)
        if shuffle is not None and batches.parts:
            batches = shuffle_domains(batches, shuffle)
    except ValueError as error:
        raise MisconfigurationException(str(error)) from error
    source = LossSource(pl_module, domain_loss)
    inputs = batches.steps if source.takes_step else batches.parts
    scaler = None if full_precision else getattr(trainer.precision_plugin, "scaler", None)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_silenced(trainer, pl_module))
        rewind = Rewind(pl_module, pl_module.device, redraw_randomness=redraw_randomness)
        stack.callback(rewind.restore)
        stack.enter_context(torch.enable_grad())
        stack.enter_context(trainer.precision_plugin.train_step_context())
        if full_precision:
            stack.enter_context(_full_precision(pl_module.device))
        if "torch._dynamo" in sys.modules:
            # Probing compiled code with other shapes would make it recompile, and the training
            # step might then pick another kernel than without us.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield Probe(
            batches,
            lambda name: source(inputs[name], batch_idx, name),
            params,
            rewind,
            reduce=_reducer(trainer),
            loss_scale=1.0 if scaler is None else scaler.get_scale(),
            module=pl_module,
        )


@contextlib.contextmanager
def _silenced(trainer: Trainer, pl_module: LightningModule) -> Generator[None, None, None]:
    """Keeps the module's logs, prints and logger calls from going anywhere."""

    def ignore(*args: Any, **kwargs: Any) -> None:
        return None

    loggers = trainer.loggers
    modules = [child for child in pl_module.modules() if hasattr(type(child), "log_dict")]
    for child in modules:
        vars(child).update(log=ignore, log_dict=ignore, print=ignore)
    trainer.loggers = [DummyLogger() for _ in loggers]
    try:
        yield
    finally:
        trainer.loggers = loggers
        for child in modules:
            for name in ("log", "log_dict", "print"):
                vars(child).pop(name, None)


@contextlib.contextmanager
def _full_precision(device: torch.device) -> Generator[None, None, None]:
    """Turns off autocast and whatever computes float32 products with fewer bits."""
    backends: Any = torch.backends
    operations: list[Any] = [
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.rnn,
    ]
    reduced = [(op, op.fp32_precision) for op in operations]
    reduced = [(op, precision) for op, precision in reduced if precision in ("tf32", "bf16")]
    for op, _ in reduced:
        op.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for op, precision in reduced:
            op.fp32_precision = precision


def _reducer(trainer: Trainer) -> Callable[[Tensor], Tensor] | None:
    if trainer.world_size == 1:
        return None
    return lambda tensor: trainer.strategy.reduce(tensor, reduce_op="sum")


def _gather(value: Any) -> list[Any]:
    """Every rank's value, in the order of the ranks."""
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
