"""Finds and calls the code that computes a module's domain loss."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from gga_lightning.probing.domains import Domain

__all__ = ["DomainLoss", "LossSource"]

DomainLoss = Callable[[LightningModule, Any], Tensor]


class LossSource:
    """Computes domain losses by what the user or the module provides.

    In this order: the callable given, the module's ``domain_loss`` method, the module's
    ``training_step`` on the domain's part of the batch (after its ``on_train_batch_start``, which
    may prepare the step).

    Attributes:
        name: A description of the source, for messages.
        takes_step: Whether it is ``training_step``, which takes the training batch reduced to
            one domain instead of the domain's own batch.
    """

    def __init__(self, pl_module: LightningModule, domain_loss: DomainLoss | None) -> None:
        """Finds the source.

        Args:
            pl_module: The module.
            domain_loss: The user's callable, if any.
        """
        kind = type(pl_module)
        self._given = domain_loss
        # of the class: an attribute of that name may well be a criterion for something else
        has_method = callable(getattr(kind, "domain_loss", None))
        self.takes_step = domain_loss is None and not has_method
        if domain_loss is not None:
            self.name = "`domain_loss=`"
        else:
            self.name = f"`{kind.__name__}.{'domain_loss' if has_method else 'training_step'}`"
        self._takes_index = is_param_in_hook_signature(
            pl_module.training_step, "batch_idx", min_args=2
        )

    def input(self, domain: Domain) -> Any:
        """Returns the part of a domain that the source takes.

        Args:
            domain: The domain.

        Returns:
            Its batch, or the training batch reduced to it.
        """
        return domain.step if self.takes_step else domain.batch

    def __call__(self, module: Any, part: Any, batch_idx: int, domain: str) -> Tensor | None:
        """Computes one domain's loss.

        Args:
            module: The module, or a copy of it.
            part: The result of :meth:`input`, or a copy of it.
            batch_idx: The batch's index.
            domain: The domain's name, for messages.

        Returns:
            A scalar with a graph, or None where ``training_step`` returned None.

        Raises:
            MisconfigurationException: If the result is not a scalar tensor with a graph.
        """
        if self._given is not None:
            loss = self._given(module, part)
        elif not self.takes_step:
            loss = module.domain_loss(part)
        elif module.on_train_batch_start(part, batch_idx) == -1:
            return None
        else:
            loss = module.training_step(*((part, batch_idx) if self._takes_index else (part,)))
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
