"""Resolves what sweeps refer to: names of domains, and hyperparameters by number."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from gga_lightning.data.batches import seed_hash
from gga_lightning.experiments.identity import folder_name
from gga_lightning.experiments.required import require_data

__all__ = ["domain_names", "draw", "grid", "register"]

_KINDS: dict[str, Callable[[float], float]] = {
    "log10": lambda x: 10**x,
    "uniform": lambda x: x,
    "log2_int": lambda x: int(2**x),
    "log10_int": lambda x: int(10**x),
    "int": int,
}


def domain_names(config: DictConfig) -> list[str]:
    """Finds the names of a configuration's domains.

    Args:
        config: The composed configuration. A benchmark need not be on the disk, other data are
            read.

    Returns:
        The names, in the data's order.
    """
    require_data(config)
    dataset = config.data.dataset
    facts = getattr(get_class(dataset._target_), "facts", None)
    return list(facts.domains) if facts else list(instantiate(dataset).domains)


def draw(name: str, default: Any, kind: str, *bounds: Any, _root_: DictConfig) -> Any:
    """Draws a hyperparameter as DomainBed's random search does.

    In a configuration: ``lr: ${draw:lr,5.0e-5,log10,-5,-3.5}``. It is the default unless
    ``search_space`` is ``domainbed``.

    Args:
        name: DomainBed's name of it, which is part of the draw's seed, beside ``hparams_seed``
            and the trial seed: ``data.split_seed``, or ``seed``.
        default: Its value for ``hparams_seed=0``.
        kind: ``log10`` (10^U(a, b)), ``uniform`` (U(a, b)), ``log2_int`` (int(2^U(a, b))),
            ``log10_int``, ``int`` (int(U(a, b))) or ``choice``.
        *bounds: The two bounds, or the choices.

    Returns:
        The value.

    Raises:
        ValueError: If there is no such kind.

    Source: DomainBed, ``hparams_registry``.
    """
    if _root_.search_space != "domainbed" or _root_.hparams_seed == 0:
        return default
    trial = _root_.seed if _root_.data.split_seed is None else _root_.data.split_seed
    random = np.random.RandomState(seed_hash(seed_hash(_root_.hparams_seed, trial), name))
    if kind == "choice":
        return random.choice(bounds).item()
    if kind not in _KINDS:
        raise ValueError(f"`kind` must be one of {[*_KINDS, 'choice']}, got {kind!r}.")
    return _KINDS[kind](random.uniform(*bounds))


def grid(stride: int, *values: Any, _root_: DictConfig) -> Any:
    """Returns a hyperparameter's value at the grid point number ``hparams_seed``.

    In a configuration: ``lr: ${grid:1,1.0e-5,3.0e-5,5.0e-5}`` and ``dropout: ${grid:3,0.0,0.5}``
    are a grid of six points.

    Args:
        stride: How many points go by before the value changes: the product of the numbers of
            values of those that change faster.
        *values: The values.

    Returns:
        The value.
    """
    return values[_root_.hparams_seed // stride % len(values)]


def register() -> None:
    """Makes the resolvers known to Hydra."""
    OmegaConf.register_new_resolver("draw", draw, replace=True)
    OmegaConf.register_new_resolver("grid", grid, replace=True)
    OmegaConf.register_new_resolver("job_folder", _job_folder, replace=True)


def _job_folder(*, _root_: DictConfig) -> str:
    return folder_name(_root_, _root_.hydra.runtime.choices)
