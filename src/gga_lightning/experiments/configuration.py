"""Finds and checks the configuration, and explains errors in it in one line."""

import difflib
import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
)
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from gga_lightning.data.module import check_seed

__all__ = ["check_numbers", "check_seeds", "config_directory", "explain"]

# Options that come with a package of their own, by the extra that installs it.
_EXTRAS = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "submitit",
    "hydra/launcher/submitit_slurm": "submitit",
    "hydra/sweeper/optuna": "optuna",
}
_LOGGERS = ("tensorboard", "wandb", "mlflow")
_SEEDS = ("seed", "hparams_seed", "data.seed", "data.split_seed")


def config_directory() -> str:
    """Finds the Hydra groups: inside an installed package, or at the top of a checkout.

    Returns:
        An absolute path.
    """
    package = Path(__file__).resolve().parents[1]
    shipped = package / "conf"
    return str(shipped if shipped.is_dir() else package.parents[1] / "conf")


def check_numbers(config: DictConfig) -> None:
    """Raises an error if a number is not finite, or a seed is not a valid one.

    Args:
        config: The composed configuration.

    Raises:
        ValueError: If a number is NaN or infinite, or a seed is not one. The message names the
            setting.
    """
    _check_finite(OmegaConf.to_container(config, resolve=False), "")
    check_seeds({name: OmegaConf.select(config, name) for name in _SEEDS})


def check_seeds(values: Mapping[str, object]) -> None:
    """Raises an error if the value of a seed is not a valid one.

    Args:
        values: Setting to its value. Settings that are no seeds and interpolations are left out.

    Raises:
        ValueError: If a value is not an integer from 0 to 2^32 - 1. ``data.split_seed`` may be
            None, and so may ``data.seed`` of data that have none.

    Example:
        >>> check_seeds({"seed": 0, "data.split_seed": None})
        >>> check_seeds({"seed": True})
        Traceback (most recent call last):
        ValueError: `seed` must be an integer from 0 to 4294967295, got True.
    """
    for name, value in values.items():
        optional = value is None and name.startswith("data.")
        interpolation = isinstance(value, str) and "${" in value
        if name in _SEEDS and not optional and not interpolation:
            check_seed(name, value)


def _check_finite(value: Any, name: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_finite(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_finite(inner, f"{name}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"`{name}` must be a finite number, got {value}.")


def explain(error: Exception) -> str:
    """Explains an error: what is wrong, and what to do.

    Args:
        error: Hydra's, or what an object of the configuration raised.

    Returns:
        One line.
    """
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        return _explain_key(error, cause)
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        return _explain_option(error.missing_cfg_file, error.options)
    if isinstance(error, InstantiationException) and cause is not None:
        logger = next((name for name in _LOGGERS if f"logger.{name}" in str(error)), None)
        if logger and isinstance(cause, ImportError):
            return f"`logger={logger}` needs a package: {_install(logger)}"
        error = cast(Exception, cause)
    origin = error
    while isinstance(origin, InterpolationResolutionError) and origin.__context__ is not None:
        origin = cast(Exception, origin.__context__)  # OmegaConf keeps no cause
    if isinstance(origin, ValueError) and not isinstance(origin, OmegaConfBaseException):
        error = origin  # raised by a resolver of ours
    text = " ".join(str(error).split())
    kind = type(error).__name__
    plain = text and isinstance(error, ValueError | HydraException)
    return text if plain else f"{kind}: {text}".rstrip(": ")


def _explain_option(path: str, options: Sequence[str]) -> str:
    """Suggests the correct spelling of an option, or the extra that it needs."""
    if path in _EXTRAS:
        return f"`{path}` needs a package: {_install(_EXTRAS[path])}"
    group, _, name = (path.rpartition if path.startswith("hydra/") else path.partition)("/")
    folder = Path(config_directory(), group)
    nested = {str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.yaml")}
    known = sorted(nested | set(options))
    close = difflib.get_close_matches(name, known, n=1)
    guess = f" Did you mean `{close[0]}`?" if close else ""
    return f"there is no option `{group}={name}`.{guess} There are: {', '.join(known)}."


def _install(extra: str) -> str:
    return f"pip install 'gga-lightning[{extra}]'"


def _explain_key(error: Exception, cause: OmegaConfBaseException) -> str:
    """Suggests the correct spelling of a setting, or how to add one that is not listed."""
    parent, key = cause.parent_node, str(cause.key)
    if not isinstance(parent, DictConfig):
        return " ".join(f"{error} {cause}".split())
    target = parent.get("_target_", "")
    if target and key in inspect.signature(get_object(target)).parameters:
        return (
            f"`{cause.full_key}` is not among the configuration's settings, but "
            f"{target.rpartition('.')[2]} takes it: add it by a plus, `+{cause.full_key}=...`."
        )
    valid = [str(name) for name in parent if not str(name).startswith("_")]
    close = difflib.get_close_matches(key, valid, n=1)
    guess = f" Did you mean `{close[0]}`?" if close else ""
    where = str(cause.full_key).removesuffix(key).rstrip(".") or "the top level"
    return f"there is no setting `{cause.full_key}`.{guess} Valid at {where}: {', '.join(valid)}."
