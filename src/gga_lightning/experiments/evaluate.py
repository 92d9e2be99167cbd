"""``gga-eval``: the model that a selection rule chose, on its held-out domain or on new data."""

import argparse
import importlib.metadata
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence, Sized
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Subset

from gga_lightning.algorithms import DomainGeneralizer
from gga_lightning.data import DomainDataset
from gga_lightning.data.loaders import DomainLoaders
from gga_lightning.experiments.configuration import config_directory, explain
from gga_lightning.experiments.jobs import Job
from gga_lightning.experiments.terminal import tidy
from gga_lightning.experiments.train import RANK_ZERO_LOGGER, make_algorithm, make_data
from hydra_plugins.gga_lightning_sweeper import names_as_text

__all__ = ["Accuracy", "WholeDomains", "evaluate", "load_model", "main"]

_RULE = "training_domain_validation"
_SELECTIONS = {  # to their files in a run's checkpoints/
    _RULE: f"{_RULE}-*.ckpt",
    "oracle": "oracle-*.ckpt",
    "last": "last.ckpt",
    "swad": "swad.ckpt",
}


def load_model(folder: str | Path, selection: str = _RULE) -> DomainGeneralizer:
    """Loads the model that a selection rule chose from a run.

    Nothing is downloaded, and the data are not needed, unless the run is unfinished.

    Args:
        folder: A run folder of ``gga-train``, finished or not.
        selection: ``"training_domain_validation"``, ``"oracle"``, ``"last"`` or ``"swad"``.

    Returns:
        The run's algorithm with the chosen weights, on the CPU, in evaluation mode. It takes what
        the run's data gave it: images must be normalized as in training.

    Raises:
        ValueError: If the folder is no run's, or keeps no checkpoint of the selection, or that of
            another step than ``result.json`` names.
    """
    folder = Path(folder)
    config = _saved_config(folder)
    path = _find_checkpoint(folder, selection)
    if "weights" in config.backbone:
        config.backbone.weights = None  # the checkpoint has them
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    _check_step(folder, selection, path.name, checkpoint["global_step"])
    module = make_algorithm(config, _facts(folder, config))
    module.load_state_dict(checkpoint["state_dict"])
    return module.eval()


class Accuracy(NamedTuple):
    """How often a model is right on a domain.

    Attributes:
        domain: The domain.
        part: ``"test"``: the larger part of a held-out domain, which is what is reported;
            ``"all"``: all samples; ``"all (source)"``: all samples of what is called like a
            domain that the model was trained on.
        samples: How many there are.
        accuracy: In [0, 1].
    """

    domain: str
    part: str
    samples: int
    accuracy: float


def evaluate(
    folder: str | Path,
    selection: str = _RULE,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
) -> list[Accuracy]:
    """Evaluates the model that a selection rule chose from a run.

    Args:
        folder: See :func:`load_model`.
        selection: See :func:`load_model`.
        overrides: Hydra overrides of data. With ``data=NAME``, and that one's settings, all
            samples of all its domains are evaluated, classes being matched by their order. With
            settings alone, such as ``data.root=DIR``, it is the run's own data, and the parts of
            its held-out domains that the run reports.
        device: ``"auto"``, ``"cpu"`` or ``"gpu"``.

    Returns:
        One entry a domain.

    Raises:
        ValueError: If the data do not fit the model, an override is not one of data, or as
            :func:`load_model`.
    """
    folder = Path(folder)
    module = load_model(folder, selection)
    config = _saved_config(folder)
    facts = _facts(folder, config)
    if overrides:
        config.data = _other_data(folder, overrides)
    data: DomainLoaders = make_data(config)
    _check_fit(data, facts)
    trainer = Trainer(
        accelerator=device,
        devices=1,
        precision=config.trainer.get("precision"),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        warnings.filterwarnings("ignore", ".*LeafSpec")  # Lightning's, of torch
        trainer.test(module, datamodule=data, verbose=False)
    loaders = cast(dict[str, DataLoader[Any]], trainer.test_dataloaders)
    sources = facts.source_domains if data.name == facts.name else ()
    found: list[Accuracy] = []
    for name, loader in loaders.items():
        part, _, domain = name.partition("/")
        part += " (source)" if domain in sources else ""
        accuracy = float(trainer.callback_metrics[f"{name}/acc"])
        found.append(Accuracy(domain, part, len(cast(Sized, loader.dataset)), accuracy))
    return found


class WholeDomains(DomainLoaders):
    """All samples of all domains, of any number and size: nothing is split or held out."""

    def __init__(
        self, dataset: DomainDataset, *, eval_batch_size: int, num_workers: int, **training: Any
    ) -> None:
        """Takes the domains.

        Args:
            dataset: The domains.
            eval_batch_size: Samples in a batch; at least 1.
            num_workers: Worker processes.
            **training: What else :class:`~gga_lightning.data.DomainDataModule` takes, which is
                not used.
        """
        super().__init__(dataset, eval_batch_size=eval_batch_size, num_workers=num_workers)

    def test_dataloader(self) -> dict[str, DataLoader[Any]]:
        """Makes one loader a domain, ``all/<domain>``."""
        return {
            f"all/{name}": self._evaluation_loader(Subset(domain, range(len(cast(Sized, domain)))))
            for name, domain in self._dataset.domains.items()
        }


def _saved_config(folder: Path) -> DictConfig:
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        raise ValueError(
            "`folder` must be a run folder of gga-train, which has a file .hydra/config.yaml, got "
            f"{str(folder)!r}."
        )
    return cast(DictConfig, OmegaConf.load(path))


def _find_checkpoint(folder: Path, selection: str) -> Path:
    """The selection's checkpoint; of several, which only a killed run leaves, the latest."""
    kept = {
        name: sorted((folder / "checkpoints").glob(pattern), key=_step)
        for name, pattern in _SELECTIONS.items()
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


def _facts(folder: Path, config: DictConfig) -> Any:
    """What a model needs to know of its data: from the result, else from the data themselves."""
    result = Job(folder).result()
    if result is None or "input_shape" not in result:
        return make_data(config)
    return SimpleNamespace(
        name=result["data"],
        source_domains=result["source_domains"],
        num_classes=result["num_classes"],
        input_shape=tuple(result["input_shape"]),
    )


def _other_data(folder: Path, overrides: Sequence[str]) -> DictConfig:
    """The run's data with other settings, or all samples of the data that are chosen."""
    overrides = names_as_text(overrides)
    groups = [o.key_or_group for o in OverridesParser.create().parse_overrides(overrides)]
    for word, group in zip(overrides, groups, strict=True):
        if group.partition(".")[0] != "data":
            raise ValueError(
                "overrides must be of the data, as all else is the run's: `data=...` or "
                f"`data.NAME=...`, got {word!r}."
            )
    chosen = "data" in groups
    place = Path(config_directory()) if chosen else folder / ".hydra"
    with initialize_config_dir(str(place.resolve()), version_base="1.3"):
        data = compose("train" if chosen else "config", overrides).data
    if chosen:
        data._target_ = f"{WholeDomains.__module__}.{WholeDomains.__name__}"
    return data


def _check_fit(data: DomainLoaders, facts: Any) -> None:
    if data.num_classes != facts.num_classes:
        raise ValueError(
            f"the data must have the model's {facts.num_classes} classes, in their order, but "
            f"{data.name!r} has {data.num_classes}."
        )
    if data.input_shape != tuple(facts.input_shape):
        raise ValueError(
            f"the data must have inputs of the model's shape, {tuple(facts.input_shape)}, but "
            f"those of {data.name!r} are {data.input_shape}; that of images is set by "
            "`data.dataset.image_size`."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``gga-eval``: an error in a run is printed in one line, and the next run follows.

    Args:
        arguments: Those of the command line; the process's own if None.

    Returns:
        The exit status, 0 if all runs were evaluated.
    """
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    runs = [word for word in options.words if "=" not in word or Path(word).is_dir()]
    overrides = [word for word in options.words if word not in runs]
    if not runs:
        parser.error("there must be at least one RUN, a run folder of gga-train")
    logging.getLogger(RANK_ZERO_LOGGER).setLevel(logging.WARNING)  # not which devices there are
    status = 0
    for run in runs:
        try:
            with tidy("gga-eval"):
                found = evaluate(run, options.selection, overrides, device=options.device)
        except Exception as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            print(f"gga-eval: {explain(error)}", file=sys.stderr)
            status = 1
        else:
            _show(run, options, found)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gga-eval",
        usage="%(prog)s RUN... [data=NAME] [data.SETTING=VALUE...] [options]",
        description="Evaluates the model that a selection rule chose: on the part of the held-out "
        "domain that its run reports or, with data=NAME, on all samples of other data. Settings "
        "alone are those of the run's own data: data.root=PLACE, if they have been moved.",
    )
    parser.add_argument("words", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument(
        "--selection",
        default=_RULE,
        metavar="NAME",
        help=f"{', '.join(_SELECTIONS)} (%(default)s)",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "gpu"), default="auto", help="(%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON a run")
    version = f"gga-lightning {importlib.metadata.version('gga-lightning')}"
    parser.add_argument("--version", action="version", version=version)
    return parser


def _show(run: str, options: argparse.Namespace, found: Sequence[Accuracy]) -> None:
    """Prints a run's accuracies."""
    if options.json:
        rows = [row._asdict() for row in found]
        print(json.dumps({"run": run, "selection": options.selection, "accuracies": rows}))
        return
    console = Console()
    console.print(f"{run}: {options.selection}", highlight=False, soft_wrap=True)
    table = Table("domain", "part", "samples", "accuracy")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in found:
        table.add_row(row.domain, row.part, f"{row.samples:,}", f"{row.accuracy:.1%}")
    if len(found) > 1:
        table.add_section()
        mean = sum(row.accuracy for row in found) / len(found)
        table.add_row("mean", "", f"{sum(row.samples for row in found):,}", f"{mean:.1%}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
