"""What an algorithm needs: of a task beside a loss, and how many source domains."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gga_lightning.tasks import Task

if TYPE_CHECKING:
    from gga_lightning.algorithms.base import DomainGeneralizer

__all__ = ["MORE_DOMAINS", "require_offers", "require_source_domains"]

MORE_DOMAINS = (
    "Train on more source domains, or make several of one: `data.pseudo_domains=3` (clusters of "
    "images by style) or `data.views=[edges]`, which are arguments of DomainDataModule."
)

_NEEDS = {
    "classes": "one class for each sample",
    "logits": "outputs that are logits",
    "vectors": "one feature vector for each sample",
}


def require_offers(kind: "type[DomainGeneralizer]", task: Task) -> None:
    """Checks that a task has what an algorithm needs.

    Args:
        kind: The algorithm's class.
        task: The task.

    Raises:
        ValueError: If something is missing. The message names algorithms that work with the task.
    """
    missing = [need for need in kind.needs if need not in task.offers]
    if missing:
        raise ValueError(
            f"{kind.__name__} needs {' and '.join(_NEEDS[need] for need in missing)}, which the "
            f"task {task.name} does not have. These algorithms work with it: "
            f"{', '.join(_working_with(task))}."
        )


def require_source_domains(kind: "type[DomainGeneralizer]", domains: Sequence[str]) -> None:
    """Checks that a training has as many source domains as an algorithm needs.

    Args:
        kind: The algorithm's class.
        domains: The names of the domains in a training batch.

    Raises:
        MisconfigurationException: If there are fewer. The message says how to get more.
    """
    if len(domains) < kind.min_domains:
        raise MisconfigurationException(
            f"{kind.__name__} needs at least {kind.min_domains} source domains, got "
            f"{list(domains)}. {MORE_DOMAINS}"
        )


def _working_with(task: Task) -> list[str]:
    """The names of this package's algorithms that a task has all for."""
    package = importlib.import_module(
        "gga_lightning.algorithms"
    )  # whole by now, and it imports this module
    base = package.DomainGeneralizer
    kinds = [getattr(package, name) for name in package.__all__]
    return [
        kind.__name__
        for kind in kinds
        if isinstance(kind, type)
        and issubclass(kind, base)
        and kind is not base
        and task.offers.issuperset(kind.needs)
    ]
