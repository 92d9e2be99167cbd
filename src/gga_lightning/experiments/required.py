"""Settings of the data that have no default, such as the folder of a benchmark."""

from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from gga_lightning.data import Features, ImageFolders, ImageTable, Texts

__all__ = ["require_data"]


def require_data(config: DictConfig) -> None:
    """Raises an error if the configuration lacks a required setting of the data.

    Args:
        config: The composed configuration.

    Raises:
        ValueError: If a setting of the data that has no default is not given.
    """
    dataset = config.data.dataset
    kind = get_class(dataset._target_)
    needs_root = hasattr(kind, "facts") or issubclass(kind, ImageFolders)
    if needs_root and config.data.get("root", "") is None:
        raise ValueError(f"`data.root` must be given, got null: {_how('data.root', kind)}")
    for prefix, group in (("", config.data), ("dataset.", dataset)):
        for name in group:
            if OmegaConf.is_missing(group, name):
                setting = f"data.{prefix}{name}"
                raise ValueError(f"`{setting}` must be given: {_how(setting, kind)}")


def _how(setting: str, kind: type[Any]) -> str:
    """Describes the value of a setting of a data set."""
    facts = getattr(kind, "facts", None)
    if facts is not None:
        return (
            f"{setting}=DIR, where {facts.title} is in DIR/{facts.folder}. To download it, run "
            f"`gga-data download {facts.key} --root DIR`."
        )
    if issubclass(kind, ImageFolders):
        return f"{setting}=DIR, a folder that holds your images as DIR/domain/class/image."
    if issubclass(kind, Features):
        return f"{setting}=ROWS.csv, a CSV or Parquet file with a column for label and domain."
    if issubclass(kind, Texts):
        return f"{setting}=TEXTS.csv, a CSV file with the columns text, label and domain."
    if issubclass(kind, ImageTable):
        return f"{setting}=LIST.csv, a CSV file with the columns path, label and domain."
    return f"{setting}=VALUE."
