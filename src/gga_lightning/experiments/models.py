"""Loads the models of runs, and what their run folders store about the data."""

import argparse
import contextlib
import importlib.metadata
from collections.abc import Generator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, OmegaConf

from gga_lightning.algorithms import DomainGeneralizer
from gga_lightning.experiments.checkpoints import read_checkpoint
from gga_lightning.experiments.configuration import explain
from gga_lightning.experiments.jobs import Job
from gga_lightning.experiments.preprocess import make_preprocess
from gga_lightning.experiments.train import make_algorithm, make_data
from gga_lightning.experiments.trust import require_trusted

__all__ = [
    "DEFAULT_SELECTION",
    "SELECTIONS",
    "add_model_options",
    "chosen_checkpoint",
    "config_file",
    "data_facts",
    "load_model",
    "made_from",
    "quiet_trainer",
    "saved_config",
    "untrained_model",
]

DEFAULT_SELECTION = "training_domain_validation"
SELECTIONS = {  # to their files in a run's checkpoints/
    DEFAULT_SELECTION: f"{DEFAULT_SELECTION}-*.ckpt",
    "oracle": "oracle-*.ckpt",
    "last": "last.ckpt",
    "swad": "swad.ckpt",
}
_GROUPS = ("data", "backbone", "algorithm", "trainer")  # needed by a model or its evaluation


def load_model(
    folder: str | Path, selection: str = DEFAULT_SELECTION, *, trust: Sequence[str] = ()
) -> DomainGeneralizer:
    """Loads the model that a selection rule chose from a run.

    Nothing is downloaded. The data are not needed for a finished run. They are needed for an
    unfinished one, and for one whose ``result.json`` has no ``classes``, because an earlier
    version wrote it.

    Args:
        folder: A run folder of ``gga-train``, finished or not.
        selection: ``"training_domain_validation"``, ``"oracle"``, ``"last"`` or ``"swad"``.
        trust: Packages beside this one whose classes the run's configuration may name, such as
            that of an algorithm of your own. Loading a run executes no other code.

    Returns:
        The run's algorithm with the chosen weights, on the CPU, in evaluation mode. Its
        ``classes``, ``domains`` and ``input_shape`` are those of the run's data. Its
        ``preprocess`` makes inputs as in the run: of images, a
        :class:`~gga_lightning.experiments.preprocess.Preprocess`; of rows, a
        :class:`~gga_lightning.data.features.RowScaling`; of texts, a
        :class:`~gga_lightning.data.text_encoding.TextEncoding`. It is None for other data. The
        model predicts with :meth:`~gga_lightning.algorithms.DomainGeneralizer.predict`::

            load_model("multirun/FOLDER").predict("cat.jpg").label

    Raises:
        ValueError: If the folder is no run's, keeps no checkpoint of the selection, or that of
            another step than ``result.json`` names; if a file of it is damaged; or if its
            configuration names code that is not trusted. The message names the file.
    """
    folder = Path(folder)
    config = saved_config(folder, trust)
    path, checkpoint = chosen_checkpoint(folder, selection)
    facts = data_facts(folder, config)
    module = untrained_model(folder, config, facts)
    with made_from(path, "the checkpoint does not fit the model of the run's configuration"):
        module.load_state_dict(checkpoint["state_dict"])
    module.classes, module.domains = list(facts.classes), list(facts.domains)
    module.input_shape = tuple(facts.input_shape)
    with made_from(folder / "result.json", "`preprocess` is damaged"):
        module.preprocess = make_preprocess(facts.preprocessing(module.featurizer))
    return module.eval()


def chosen_checkpoint(folder: Path, selection: str) -> tuple[Path, dict[str, Any]]:
    """Reads the checkpoint that a selection rule chose from a run.

    Args:
        folder: The run folder.
        selection: See :func:`load_model`.

    Returns:
        The file, and its content.

    Raises:
        ValueError: If there is none, it is damaged, or of another step than the result names.
    """
    path = _find_checkpoint(folder, selection)
    checkpoint = read_checkpoint(path)
    _check_step(folder, selection, path.name, checkpoint["global_step"])
    return path, checkpoint


def untrained_model(folder: Path, config: DictConfig, facts: Any) -> DomainGeneralizer:
    """Makes the model of a run's configuration, without weights.

    Args:
        folder: The run folder, for messages.
        config: Its configuration.
        facts: What :func:`data_facts` finds.

    Returns:
        The algorithm, with random weights.
    """
    if "weights" in config.backbone:
        config.backbone.weights = None  # a checkpoint has them
    with made_from(config_file(folder), "the model of this configuration cannot be made"):
        return make_algorithm(config, facts)


def quiet_trainer(folder: Path, config: DictConfig, device: str, *callbacks: Callback) -> Trainer:
    """Makes a trainer that evaluates in a run's precision, and prints and saves nothing.

    Args:
        folder: The run folder, for messages.
        config: Its configuration.
        device: ``"auto"``, ``"cpu"`` or ``"gpu"``.
        *callbacks: The trainer's callbacks.

    Returns:
        The trainer.
    """
    with made_from(config_file(folder), "no trainer can be made"):
        return Trainer(
            accelerator=device,
            devices=1,
            precision=config.trainer.get("precision"),
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Gives a command that loads a model the options that such commands share.

    Args:
        parser: The command's parser.
    """
    parser.add_argument(
        "--selection",
        default=DEFAULT_SELECTION,
        metavar="NAME",
        help=f"{', '.join(SELECTIONS)} (%(default)s)",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "gpu"), default="auto", help="(%(default)s)"
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package whose classes the run may name, such as that of your own algorithm; "
        "can be repeated",
    )
    version = f"gga-lightning {importlib.metadata.version('gga-lightning')}"
    parser.add_argument("--version", action="version", version=version)


def config_file(folder: Path) -> Path:
    """Names the file of a run's configuration.

    Args:
        folder: The run folder.

    Returns:
        The file, which need not exist.
    """
    return folder / ".hydra" / "config.yaml"


def saved_config(folder: Path, trust: Sequence[str] = ()) -> DictConfig:
    """Reads a run's configuration.

    Args:
        folder: The run folder.
        trust: See :func:`load_model`.

    Returns:
        What ``.hydra/config.yaml`` holds.

    Raises:
        ValueError: If there is no such file, it is damaged, or it names code that is not trusted.
    """
    path = config_file(folder)
    if not path.is_file():
        raise ValueError(
            "`folder` must be a run folder of gga-train, which has a file .hydra/config.yaml, got "
            f"{str(folder)!r}."
        )
    with made_from(path, "the configuration is damaged"):
        config = cast(DictConfig, OmegaConf.load(path))
        optional = [config.task] if "task" in config else []  # earlier versions had none
        for group in (*(config[name] for name in _GROUPS), config.data.dataset, *optional):
            _require(OmegaConf.is_dict(group), "a group of settings is missing")
            OmegaConf.to_container(group, resolve=True, throw_on_missing=False)
    for group in (*(config[name] for name in _GROUPS[:-1]), *optional):  # never the trainer
        require_trusted(group, trust)
    return config


def _require(right: bool, problem: str) -> None:
    if not right:
        raise TypeError(problem)


@contextlib.contextmanager
def made_from(path: Path, what: str) -> Generator[None]:
    """Turns any error that the content of a file causes into one that names the file.

    Args:
        path: The file.
        what: What the error means.

    Yields:
        Nothing.

    Raises:
        ValueError: If the body raises an exception, of which there can be many kinds.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path}: {what} ({explain(error)}).") from error


def data_facts(folder: Path, config: DictConfig) -> Any:
    """Finds the facts about the data that a model needs.

    Args:
        folder: The run folder.
        config: Its configuration.

    Returns:
        The data module if the run is unfinished. Otherwise an object with those of its
        attributes that describe the data, from ``result.json``, and with its method
        ``preprocessing``.
    """
    path = folder / "result.json"
    result = Job(folder).result()
    if result is None or "classes" not in result:
        with made_from(config_file(folder), "the data of this configuration cannot be made"):
            return make_data(config)
    with made_from(path, "an entry that describes the data is missing or damaged"):
        names = ("domains", "source_domains", "classes", "num_classes", "input_shape")
        facts = {name: result[name] for name in names}
        # earlier versions trained on no views
        facts["training_domains"] = result.get("training_domains", facts["source_domains"])
        texts = [*facts["domains"], *facts["source_domains"], *facts["classes"], result["data"]]
        texts += facts["training_domains"]
        numbers = [*facts["input_shape"], facts["num_classes"]]
        _require(all(isinstance(text, str) for text in texts), "a name is not a text")
        _require(all(type(n) is int and n > 0 for n in numbers), "a size is not a positive integer")
        right = len(set(facts["classes"])) == facts["num_classes"]
        _require(right, "`classes` does not have `num_classes` different names")
        settings = result["preprocess"]
    return SimpleNamespace(name=result["data"], **facts, preprocessing=lambda _: settings)


def _find_checkpoint(folder: Path, selection: str) -> Path:
    """Finds the selection's checkpoint. A killed run can leave several; the latest counts."""
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
    """Checks the step of a checkpoint: callbacks of a user may keep another one under its name."""
    with made_from(folder / "result.json", "`selections` is damaged"):
        selections = (Job(folder).result() or {}).get("selections", {})
        expected = selections[selection]["step"] if selection in selections else step
    if step != expected:
        raise ValueError(
            f"`selection={selection!r}` must have a checkpoint of step {expected}, which the "
            f"result names, but {name} in {str(folder)!r} is of step {step}: choose another "
            "selection, or train again with the default callbacks."
        )
