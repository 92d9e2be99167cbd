"""``gga-train``: trains an algorithm with one domain held out, from a Hydra configuration."""

import importlib.metadata
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from lightning.pytorch.callbacks import Checkpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from gga_lightning.algorithms import DomainGeneralizer
from gga_lightning.callbacks import (
    SWAD,
    GradientGuidedAnnealing,
    RandomState,
)
from gga_lightning.data import DomainDataModule
from gga_lightning.experiments.configuration import config_directory, explain
from gga_lightning.experiments.identity import config_hash, settings
from gga_lightning.experiments.jobs import FolderInUse, Job, JobProgress
from gga_lightning.experiments.output import draw_cosines, print_line, print_table, search_summary
from gga_lightning.experiments.required import require_data
from gga_lightning.experiments.selection import ValidationHistory, ValidationPass, select
from gga_lightning.experiments.sweeps import register
from hydra_plugins.gga_lightning_sweeper import quoted

__all__ = ["ProgressBar", "config_directory", "main", "make_algorithm", "make_data", "train"]

RANK_ZERO_LOGGER = "lightning.pytorch.utilities.rank_zero"

# Strategies that start processes otherwise than by running the script again.
_NO_SCRIPTS = ("spawn", "fork", "notebook")

register()


def train(
    config: DictConfig, folder: Path, names: Mapping[str, Any], overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Runs one training, or goes on with it, and leaves its results in a folder.

    Args:
        config: The composed configuration.
        folder: The run folder, which exists. The training goes on from a checkpoint in it.
        names: The chosen option of each configuration group, for the result.
        overrides: What was typed or swept, for the result.

    Returns:
        What ``result.json`` holds.
    """
    pl.seed_everything(config.seed, workers=True, verbose=False)
    data = make_data(config)
    module = make_algorithm(config, data)
    job, history = Job(folder), ValidationHistory()
    progress = JobProgress(job)
    callbacks: list[pl.Callback] = [*_instances(config.callbacks), history, progress, RandomState()]
    if "_target_" in config.annealing:
        callbacks.append(instantiate(config.annealing))
    rank_zero_only(job.begin)()
    trainer: pl.Trainer = instantiate(
        config.trainer,
        callbacks=callbacks,
        logger=_instances(config.logger),
        default_root_dir=str(folder),
        **_without_checkpoints(config, callbacks),
    )
    _check_length(trainer, data)
    description = _description(config, data, names)
    _log_settings(trainer, description)
    trainer.fit(module, datamodule=data, ckpt_path=job.checkpoint, weights_only=True)
    selections = select(history.evaluations)
    if any(isinstance(found, SWAD) for found in callbacks):
        selections["swad"] = _evaluate_averaged(trainer, module, data, history, folder)
    searches = [found for found in callbacks if isinstance(found, GradientGuidedAnnealing)]
    result = {
        **description,
        "steps": trainer.global_step,
        "selections": {rule: _selection(evaluation) for rule, evaluation in selections.items()},
        "evaluations": [
            {"step": evaluation.step, "accuracies": evaluation.accuracies}
            for evaluation in history.evaluations
        ],
        "search": search_summary(searches[0]) if searches else None,
        "seconds": progress.seconds,
        "starts": job.starts,
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("gga-lightning", "torch", "lightning")
        },
        "overrides": list(overrides),
    }
    if trainer.is_global_zero:
        draw_cosines(callbacks, folder)
        job.finish(result)
    return result


def make_data(config: DictConfig) -> DomainDataModule:
    """Makes the data module.

    Args:
        config: The composed configuration. ``data.root`` is for other settings to refer to.

    Returns:
        The data module.

    Raises:
        ValueError: If a setting that has no default is not given.
    """
    require_data(config)
    settings = OmegaConf.to_container(config.data, resolve=True)
    assert isinstance(settings, dict)
    settings.pop("root", None)
    return instantiate(settings)


def make_algorithm(config: DictConfig, data: DomainDataModule) -> DomainGeneralizer:
    """Makes the algorithm and its backbone.

    Args:
        config: The composed configuration. What ``algorithm`` leaves open (``???``) is taken from
            the data.
        data: The data.

    Returns:
        The algorithm.
    """
    facts = {"num_domains": len(data.source_domains), "input_shape": data.input_shape}
    left_open = {
        name: facts[name]
        for name in map(str, config.algorithm)
        if name in facts and OmegaConf.is_missing(config.algorithm, name)
    }
    kind: type[DomainGeneralizer] = get_class(config.algorithm._target_)
    shape = kind.featurizer_shape(data.input_shape)
    featurizer = instantiate(config.backbone, input_shape=shape)
    return instantiate(
        config.algorithm, featurizer=featurizer, num_classes=data.num_classes, **left_open
    )


class ProgressBar(RichProgressBar):
    """Lightning's rich bar, for trainings that count steps and know no last epoch."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch}"


def _evaluate_averaged(
    trainer: pl.Trainer,
    module: DomainGeneralizer,
    data: DomainDataModule,
    history: ValidationHistory,
    folder: Path,
) -> ValidationPass:
    """Evaluates, and saves, the weights that SWAD has left in the module."""
    trainer.validate(module, datamodule=data, verbose=False)
    trainer.save_checkpoint(folder / "checkpoints" / "swad.ckpt", weights_only=True)
    return history.evaluations.pop()


def _description(
    config: DictConfig, data: DomainDataModule, names: Mapping[str, Any]
) -> dict[str, Any]:
    """What identifies a job and tells it from others."""
    split_seed = config.data.get("split_seed")
    found, drawn = settings(config)
    return {
        "data": data.name,
        "test_domain": ",".join(data.test_domains),
        "test_domains": data.test_domains,
        "source_domains": data.source_domains,
        **{group: names.get(group, "") for group in ("algorithm", "annealing", "backbone")},
        "seed": config.seed,
        "split_seed": config.seed if split_seed is None else split_seed,
        "hparams_seed": config.hparams_seed,
        "hyperparameters": drawn,
        "num_classes": data.num_classes,
        "input_shape": list(data.input_shape),
        "config_hash": config_hash(config),
        "settings": found,
    }


def _without_checkpoints(config: DictConfig, callbacks: list[pl.Callback]) -> dict[str, Any]:
    """Lightning keeps a checkpoint of its own where no callback does, unless it is told."""
    given = "enable_checkpointing" in config.trainer
    keeps = any(isinstance(callback, Checkpoint) for callback in callbacks)
    return {} if given or keeps else {"enable_checkpointing": False}


def _check_length(trainer: pl.Trainer, data: DomainDataModule) -> None:
    """A training without a validation would end with nothing to select."""
    limit = trainer.limit_train_batches
    batches = len(data.train_dataloader())
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = max(1, batches // trainer.accumulate_grad_batches)
    if trainer.val_check_interval == 1.0 and 0 <= trainer.max_steps < steps:
        raise ValueError(
            "`trainer.max_steps` must be at least the steps between validations, "
            f"`data.steps_per_epoch`, which is {steps}, got {trainer.max_steps}."
        )


def _log_settings(trainer: pl.Trainer, description: dict[str, Any]) -> None:
    """Hands them to loggers by which people compare runs; beside a CSV file, .hydra/ has them."""
    told = dict(description)
    told |= told.pop("settings") | told.pop("hyperparameters")
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):
            logger.log_hyperparams(told)


def _instances(group: DictConfig) -> list[Any]:
    return [instantiate(entry) for entry in group.values()]


def _selection(evaluation: ValidationPass) -> dict[str, float]:
    names = ("step", "val_acc", "oracle_acc", "test_acc")
    return {name: getattr(evaluation, name) for name in names}


def _quieten() -> None:
    """Keeps back what a user of ``gga-train`` can do nothing about."""
    warnings.filterwarnings("ignore", "Experiment logs directory")  # the job's own files
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", ".*LeafSpec")  # Lightning's, of torch
    told = ("Tip:", "GPU available:", "TPU available:", "`Trainer.fit` stopped:")
    logging.getLogger(RANK_ZERO_LOGGER).addFilter(
        lambda record: not any(words in record.getMessage() for words in told)
    )


@hydra.main(version_base="1.3", config_path=config_directory(), config_name="train")
def _job(config: DictConfig) -> float:
    _quieten()
    hydra_config = cast(DictConfig, HydraConfig.get())
    folder = Path(hydra_config.runtime.output_dir)
    one_of_many = hydra_config.mode == RunMode.MULTIRUN
    if config.data.test_domain in ("all", "pairs") and not one_of_many:
        raise ValueError(
            f"`data.test_domain={config.data.test_domain}` stands for one job a domain or pair of "
            "domains: add -m."
        )
    result = Job(folder).result()
    finished_before = result is not None and result["config_hash"] == config_hash(config)
    if not finished_before:
        apart = one_of_many and _starts_processes(config)
        result = (_run_apart if apart else _run)(config, folder, hydra_config)
    assert result is not None
    if one_of_many and finished_before:
        print(f"already finished: {folder.name}", flush=True)
    else:
        (print_line if one_of_many else print_table)(result, folder)
    return result["selections"]["training_domain_validation"]["val_acc"]


def _run(config: DictConfig, folder: Path, hydra_config: DictConfig) -> dict[str, Any]:
    """Trains in a folder that is this job's alone, and keeps what went wrong."""
    choices = cast(Mapping[str, Any], hydra_config.runtime.choices)
    overrides = _overrides(hydra_config)
    if getattr(rank_zero_only, "rank", 0) != 0:  # the first process holds the folder for all
        return train(config, folder, choices, overrides)
    job = Job(folder)
    try:
        with job.claim(config_hash(config), overrides):
            job.save_config(config, hydra_config)
            return train(config, folder, choices, overrides)
    except Exception as error:
        if hydra_config.mode == RunMode.MULTIRUN:
            where = "" if isinstance(error, FolderInUse) else f" ({folder / 'failure.json'})"
            print(f"gga-train: a job failed: {explain(error)}{where}", file=sys.stderr)
        raise


def _overrides(hydra_config: DictConfig) -> list[str]:
    """What was typed or swept for the job, and where else than here options were looked for."""
    places = [
        quoted(f"file://{source.path}")
        for source in hydra_config.runtime.config_sources
        if source.provider in ("command-line", "hydra.searchpath in command-line")
    ]
    found = [f"hydra.searchpath=[{','.join(places)}]"] if places else []
    return [*found, *hydra_config.overrides.task]


def _starts_processes(config: DictConfig) -> bool:
    """Whether Lightning will start further processes from this one, which it can do once only."""
    strategy = str(config.trainer.get("strategy", "auto"))
    several = config.trainer.get("devices", 1) != 1 or config.trainer.get("num_nodes", 1) != 1
    started = "LOCAL_RANK" in os.environ or "SLURM_PROCID" in os.environ
    return (several or strategy != "auto") and not strategy.endswith(_NO_SCRIPTS) and not started


def _run_apart(config: DictConfig, folder: Path, hydra_config: DictConfig) -> dict[str, Any]:
    """Runs a sweep's job as a command of its own."""
    command = [sys.executable, "-m", "gga_lightning.experiments.train"]
    command += ["--config-name", str(hydra_config.job.config_name), *_overrides(hydra_config)]
    command += ["hydra.mode=RUN", f"hydra.run.dir={quoted(str(folder))}"]
    status = subprocess.run(command, check=False).returncode
    result = Job(folder).result()
    if status != 0 or result is None:
        raise RuntimeError(f"the job in {folder} ended with status {status}.")
    return result


def main() -> None:
    """Runs ``gga-train``: errors end it in one line, or whole with ``HYDRA_FULL_ERROR=1``."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        _job()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    try:
        _job()
    except Exception as error:
        print(f"gga-train: {explain(error)}", file=sys.stderr)
        print("(HYDRA_FULL_ERROR=1 shows where it comes from)", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
