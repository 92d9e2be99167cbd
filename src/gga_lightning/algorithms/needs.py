"""What an algorithm needs of a task beside a loss."""

import importlib
from typing import TYPE_CHECKING

from gga_lightning.tasks import Task

if TYPE_CHECKING:
    from gga_lightning.algorithms.base import DomainGeneralizer

__all__ = ["require_offers"]

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
