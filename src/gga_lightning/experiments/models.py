"""The models that runs have trained, and what runs know of their data."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from gga_lightning.algorithms import DomainGeneralizer
from gga_lightning.experiments.jobs import Job
from gga_lightning.experiments.preprocess import Preprocess
from gga_lightning.experiments.train import make_algorithm, make_data

__all__ = ["DEFAULT_SELECTION", "SELECTIONS", "data_facts", "load_model", "saved_config"]

DEFAULT_SELECTION = "training_domain_validation"
SELECTIONS = {  # to their files in a run's checkpoints/
    DEFAULT_SELECTION: f"{DEFAULT_SELECTION}-*.ckpt",
    "oracle": "oracle-*.ckpt",
    "last": "last.ckpt",
    "swad": "swad.ckpt",
}


def load_model(folder: str | Path, selection: str = DEFAULT_SELECTION) -> DomainGeneralizer:
    """Loads the model that a selection rule chose from a run.

    Nothing is downloaded. The data are not needed for a finished run. They are needed for an
    unfinished one, and for one whose ``result.json`` has no ``classes``, because an earlier
    version wrote it.

    Args:
        folder: A run folder of ``gga-train``, finished or not.
        selection: ``"training_domain_validation"``, ``"oracle"``, ``"last"`` or ``"swad"``.

    Returns:
        The run's algorithm with the chosen weights, on the CPU, in evaluation mode. Its
        ``classes``, ``domains`` and ``input_shape`` are those of the run's data. Its
        ``preprocess``, a :class:`~gga_lightning.experiments.preprocess.Preprocess`, makes inputs
        of images as in the run; it is None if the run's inputs are not images in files. The model
        predicts with :meth:`~gga_lightning.algorithms.DomainGeneralizer.predict`::

            load_model("multirun/FOLDER").predict("cat.jpg").label

    Raises:
        ValueError: If the folder is no run's, or keeps no checkpoint of the selection, or that of
            another step than ``result.json`` names.
    """
    folder = Path(folder)
    config = saved_config(folder)
    path = _find_checkpoint(folder, selection)
    if "weights" in config.backbone:
        config.backbone.weights = None  # the checkpoint has them
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    _check_step(folder, selection, path.name, checkpoint["global_step"])
    facts = data_facts(folder, config)
    module = make_algorithm(config, facts)
    module.load_state_dict(checkpoint["state_dict"])
    module.classes, module.domains = list(facts.classes), list(facts.domains)
    module.input_shape = tuple(facts.input_shape)
    settings = facts.preprocessing(module.featurizer)
    module.preprocess = None if settings is None else Preprocess(**settings)
    return module.eval()


def saved_config(folder: Path) -> DictConfig:
    """Reads a run's configuration.

    Args:
        folder: The run folder.

    Returns:
        What ``.hydra/config.yaml`` holds.

    Raises:
        ValueError: If there is no such file.
    """
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        raise ValueError(
            "`folder` must be a run folder of gga-train, which has a file .hydra/config.yaml, got "
            f"{str(folder)!r}."
        )
    return cast(DictConfig, OmegaConf.load(path))


def data_facts(folder: Path, config: DictConfig) -> Any:
    """Finds what a model needs to know of its data.

    Args:
        folder: The run folder.
        config: Its configuration.

    Returns:
        The data module if the run is unfinished. Otherwise an object with those of its
        attributes that describe the data, from ``result.json``, and with its method
        ``preprocessing``.
    """
    result = Job(folder).result()
    if result is None or "classes" not in result:
        return make_data(config)
    names = ("domains", "source_domains", "classes", "num_classes", "input_shape")
    return SimpleNamespace(
        name=result["data"],
        **{name: result[name] for name in names},
        preprocessing=lambda featurizer: result["preprocess"],
    )


def _find_checkpoint(folder: Path, selection: str) -> Path:
    """The selection's checkpoint; of several, which only a killed run leaves, the latest."""
    kept = {
        name: sorted((folder / "checkpoints").glob(pattern), key=_step)
        for name, pattern in SELECTIONS.items()
    }
    if kept.get(selection):
        return kept[selection][-1]
    there_are = ", ".join(name for name, paths in kept.items() if paths)
    where = f"`selection` must be one that {str(folder)!r} has a checkpoint of"
    if not there_are:
        raise ValueError(
            f"{where}, got {selection!r}, and there are none at all. Runs keep them from their "
            "first validation on, but not with callbacks=none: train with another choice."
        )
    raise ValueError(f"{where}, {there_are}, got {selection!r}.")


def _step(path: Path) -> int:
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _check_step(folder: Path, selection: str, name: str, step: int) -> None:
    """Other callbacks than the default ones may keep something else under a selection's name."""
    selections = (Job(folder).result() or {}).get("selections", {})
    expected = selections[selection]["step"] if selection in selections else step
    if step != expected:
        raise ValueError(
            f"`selection={selection!r}` must have a checkpoint of step {expected}, which the "
            f"result names, but {name} in {str(folder)!r} is of step {step}: choose another "
            "selection, or train again with the default callbacks."
        )
