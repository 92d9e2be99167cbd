"""Restricts the classes that a run folder may name, so that loading it runs no foreign code."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

__all__ = ["TRUSTED", "require_trusted"]

# The packages that the configurations of this project name.
TRUSTED = ("gga_lightning", "torch.optim", "torchjd.aggregation")


def require_trusted(config: DictConfig, trust: Sequence[str] = ()) -> None:
    """Checks every ``_target_`` of a configuration, before anything of it is imported or called.

    A target must be a class that is defined in a trusted package, or a function that is defined in
    one of ``trust``. What a trusted module has merely imported does not count:
    ``gga_lightning.experiments.train.os.system`` is refused.

    Args:
        config: The configuration to instantiate, with all interpolations that it needs.
        trust: Packages or modules to trust beyond this project's own: ``"my_lab"`` stands for
            all classes and functions that are defined in ``my_lab`` and below.

    Raises:
        ValueError: If a target is something else. The message names it, and how to allow it.
    """
    content = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    for place, target in _targets(content):
        if not _is_trusted(target, trust):
            package = str(target).partition(".")[0]
            raise ValueError(
                f"The run's configuration names {target!r} ({place}), which is not a class of "
                f"{', '.join((*TRUSTED, *trust))}. Loading it could run code of whoever made the "
                f"run. If you trust them, allow it: --trust {package}, or `trust=[{package!r}]` "
                "in Python."
            )


def _targets(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every ``_target_``, with its dotted place."""
    if isinstance(content, dict):
        for name, value in content.items():
            dotted = f"{place}.{name}" if place else str(name)
            if name == "_target_":
                yield dotted, value
            else:
                yield from _targets(value, dotted)
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from _targets(value, f"{place}[{index}]")


def _is_trusted(target: Any, trust: Sequence[str]) -> bool:
    # by the text first: an import alone runs code
    if not isinstance(target, str) or not _is_within(target, (*TRUSTED, *trust)):
        return False
    try:
        found = get_object(target)
    except Exception:  # there is no such thing, which says nothing about what it would be
        return False
    if inspect.isclass(found):
        return _is_within(found.__module__, (*TRUSTED, *trust))
    return inspect.isfunction(found) and _is_within(found.__module__, trust)


def _is_within(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
