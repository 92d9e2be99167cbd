"""Checks callbacks before any training, and sorts them into the order in which they run."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import nn
from torch.nn.parameter import is_lazy

from gga_lightning.alignment import Acceptance, Guided, Proposal
from gga_lightning.alignment.score import check_objective
from gga_lightning.probing.source import LossSource

__all__ = [
    "MORE_DOMAINS",
    "ParameterChoice",
    "check_domains",
    "check_integer",
    "check_moved",
    "check_parameters",
    "check_search",
    "check_settings",
    "check_setup",
    "check_window",
    "run_in_order",
]

ParameterChoice = str | Callable[[str, nn.Parameter], bool]

MORE_DOMAINS = (
    "more source domains, or several made of one: `data.pseudo_domains=3` (clusters of images by "
    "style) or `data.views=[edges]`, which are arguments of DomainDataModule"
)

# By name, so that `pytorch_lightning`'s strategies are known too. DeepSpeedStrategy descends from
# DDPStrategy, but shards.
_STRATEGIES = {"SingleDeviceStrategy", "DDPStrategy"}
_SHARDING = {"DeepSpeedStrategy"}


def check_settings(
    *,
    start_step: Any,
    end_step: Any,
    every_n_steps: Any,
    control: Any,
    controls: tuple[str, ...],
    parameters: Any,
    domain_loss: Any,
    split: Any,
) -> None:
    """Checks what the callbacks have in common; see :class:`GradientGuidedAnnealing` for each.

    Args:
        start_step: The first step of the window.
        end_step: The step before which it ends.
        every_n_steps: The number of steps from one action to the next.
        control: The control.
        controls: The controls that there are.
        parameters: The choice of parameters.
        domain_loss: The loss.
        split: The split.

    Raises:
        ValueError: If one of them is out of range.
    """
    check_window(start_step, end_step)
    check_integer("every_n_steps", every_n_steps, 1)
    if control is not None and control not in controls:
        allowed = " or ".join(map(repr, controls))
        raise ValueError(f"`control` must be {allowed} or None, got {control!r}.")
    if parameters is not None:
        check_parameters(parameters)
    if domain_loss is not None and not callable(domain_loss):
        raise ValueError(
            f"`domain_loss` must be a callable (module, domain_batch) -> loss, got {domain_loss!r}."
        )
    if split is not None and not (isinstance(split, str | int) or callable(split)):
        raise ValueError(
            "`split` must be a key or index of the batch, or a callable (batch) -> mapping of "
            f"domain names to domain batches, got {split!r}."
        )


def check_search(search: Any) -> None:
    """Checks the settings of a search.

    Args:
        search: The :class:`GradientGuidedAnnealing`.

    Raises:
        ValueError: If one of its attributes is out of range.
    """
    check_integer("num_candidates", search.num_candidates, 1)
    if not isinstance(search.proposal, Proposal):
        raise ValueError(
            f"`proposal` must be a Proposal, such as Walk(1e-5), got {search.proposal!r}."
        )
    if isinstance(search.proposal, Guided) and not search.fixed_dropout:
        raise ValueError(
            "`fixed_dropout` must be True with a Guided proposal, which takes differences of "
            "gradients that new dropout masks would drown, got False."
        )
    if not isinstance(search.acceptance, Acceptance):
        raise ValueError(
            f"`acceptance` must be an acceptance, such as Greedy(0.1), got {search.acceptance!r}."
        )
    if search.radius_schedule not in ("constant", "linear"):
        raise ValueError(
            f"`radius_schedule` must be 'constant' or 'linear', got {search.radius_schedule!r}."
        )
    check_objective(search.objective)
    if search.patience is not None:
        check_integer("patience", search.patience, 1)
    if search.precision not in ("float32", "trainer"):
        raise ValueError(f"`precision` must be 'float32' or 'trainer', got {search.precision!r}.")


def check_parameters(choice: Any) -> None:
    """Checks a choice of parameters.

    Args:
        choice: The choice.

    Raises:
        ValueError: If it is neither a regular expression nor a callable.
    """
    if not callable(choice):
        try:
            re.compile(choice)
        except (re.error, TypeError) as error:
            raise ValueError(
                "`parameters` must be a regular expression for the start of parameter names, "
                f"or a callable (name, parameter) -> bool, got {choice!r}."
            ) from error


def check_window(start_step: Any, end_step: Any) -> None:
    """Checks a window of optimizer steps.

    Args:
        start_step: Its first step.
        end_step: The step before which it ends; None for the end of training.

    Raises:
        ValueError: If the two are not integers, or there is no step between them.
    """
    check_integer("start_step", start_step, 0)
    if end_step is not None:
        check_integer("end_step", end_step, 0)
        if end_step <= start_step:
            raise ValueError(
                f"`end_step` must be greater than `start_step` ({start_step}), got {end_step}."
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


def check_setup(
    callback: Callback, trainer: Trainer, pl_module: LightningModule, source: LossSource
) -> None:
    """Checks whether the domain gradients of a module can be computed in a trainer.

    Args:
        callback: The callback that needs them.
        trainer: The trainer.
        pl_module: The module.
        source: Where the domain losses come from.

    Raises:
        MisconfigurationException: If they cannot.
    """
    name = type(callback).__name__
    ancestors = {ancestor.__name__ for ancestor in type(trainer.strategy).__mro__}
    if ancestors & _SHARDING or not ancestors & _STRATEGIES:
        raise MisconfigurationException(
            f"{name} needs all parameters on every process, so it works with a single device "
            f"and with DDP, got {type(trainer.strategy).__name__}."
        )
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
    lazy = [name for name, param in pl_module.named_parameters() if is_lazy(param)]
    if lazy:
        raise MisconfigurationException(
            f"{name} needs parameters with values, but `{lazy[0]}` gets its shape from the first "
            "batch. Run the module on a batch before training."
        )


def check_domains(callback: Any, trainer: Trainer) -> None:
    """Checks that there are several domains, as far as this is known before the first batch.

    A data module knows it by its attribute ``training_domains``, and a mapping of domain names to
    loaders by its keys. Other loaders show it batch by batch.

    Args:
        callback: The callback, with its ``split`` and ``refuses_one_domain``.
        trainer: The trainer.

    Raises:
        MisconfigurationException: If there is a single domain, and the callback has no ``split``,
            which could find others.
    """
    if not callback.refuses_one_domain:
        return
    known = getattr(getattr(trainer, "datamodule", None), "training_domains", None)
    if known is None and isinstance(trainer.train_dataloader, Mapping):
        known = trainer.train_dataloader
    if known is not None and len(known) < 2 and callback.split is None:
        raise MisconfigurationException(
            f"{type(callback).__name__} compares the gradients of at least two source domains, but "
            f"the data have only {list(known)}. Train on {MORE_DOMAINS}; or leave the callback out "
            "(`annealing=none`)."
        )


def check_moved(callback: Any, chosen: Sequence[nn.Parameter], proposal: Proposal) -> None:
    """Checks the parameters that a search moves.

    Args:
        callback: The callback, with its ``parameters``.
        chosen: The parameters.
        proposal: The proposal, for the warning of parameters in half precision.

    Raises:
        MisconfigurationException: If some are complex.
    """
    name = type(callback).__name__
    if not all(param.is_floating_point() for param in chosen):
        raise MisconfigurationException(
            f"{name} moves real parameters, but `parameters={callback.parameters!r}` selects "
            "complex ones. Select others."
        )
    if half := {p.dtype for p in chosen if p.dtype in (torch.float16, torch.bfloat16)}:
        rank_zero_warn(
            f"{name}: the parameters are {half.pop()}, in which small moves are rounded away "
            f"({proposal} at most). Use mixed precision instead, which keeps them in float32."
        )


def run_in_order(trainer: Trainer) -> None:
    """Sorts callbacks that say which place they need, such as before others that use randomness.

    Args:
        trainer: The trainer. Callbacks with an attribute ``place`` are moved to the front of its
            list, the lowest first; all others keep their order.
    """
    found: list[Callback] = vars(trainer)["callbacks"]
    # a new list: Lightning is going through the old one
    vars(trainer)["callbacks"] = sorted(found, key=lambda c: getattr(c, "place", math.inf))
