"""``gga-train``: trains an algorithm with one domain held out, from a Hydra configuration."""

import importlib.metadata
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import hydra
import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.callbacks import ProgressBar as AnyProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from gga_lightning.algorithms import DomainGeneralizer
from gga_lightning.algorithms.needs import require_source_domains
from gga_lightning.callbacks import (
    SWAD,
    GradientGuidedAnnealing,
    RandomState,
)
from gga_lightning.data import DomainDataModule
from gga_lightning.experiments import tasks
from gga_lightning.experiments.apart import run_apart, starts_processes, typed_overrides
from gga_lightning.experiments.checkpoints import save_checkpoint
from gga_lightning.experiments.configuration import check_numbers, config_directory, explain
from gga_lightning.experiments.divergence import DivergenceWatch
from gga_lightning.experiments.identity import config_hash, data_path, settings
from gga_lightning.experiments.jobs import FolderInUse, Job, JobProgress
from gga_lightning.experiments.output import (
    draw_cosines,
    print_line,
    print_table,
    search_summary,
    shown,
)
from gga_lightning.experiments.progress import ProgressBar
from gga_lightning.experiments.required import require_data
from gga_lightning.experiments.selection import ValidationHistory, ValidationPass, entry, select
from gga_lightning.experiments.signals import exit_on_signals, resumable
from gga_lightning.experiments.sweeps import domain_names, register
from gga_lightning.experiments.terminal import tidy, transcript
from hydra_plugins.gga_lightning_sweeper import names_as_text

__all__ = ["config_directory", "main", "make_algorithm", "make_data", "train"]

register()


def train(
    config: DictConfig, folder: Path, names: Mapping[str, Any], overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Runs or resumes one training, and saves its results in a folder.

    Args:
        config: The composed configuration.
        folder: The run folder, which exists. The training resumes from a checkpoint in it.
        names: The chosen option of each configuration group, for the result.
        overrides: The overrides that were typed or swept, for the result.

    Returns:
        What ``result.json`` holds.
    """
    pl.seed_everything(config.seed, workers=True, verbose=False)
    data = make_data(config)
    require_source_domains(get_class(config.algorithm._target_), data.training_domains)
    module = make_algorithm(config, data)
    tasks.check_targets(module.task, data)
    metric = tasks.metric_of(module.task)
    job, history = Job(folder), ValidationHistory()
    progress, watch = JobProgress(job), DivergenceWatch()
    chosen = _with_progress_bar(config, _instances(config.callbacks))
    callbacks: list[pl.Callback] = [*chosen, watch, history, progress, RandomState()]
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
    checkpoint = job.find_checkpoint()
    if checkpoint is not None and trainer.is_global_zero:
        print(f"Resuming from {shown(checkpoint)}", flush=True)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    selections = select(history.evaluations, higher_is_better=metric.higher_is_better)
    if any(isinstance(found, SWAD) for found in callbacks):
        selections["swad"] = _evaluate_averaged(trainer, module, data, history, folder)
    searches = [found for found in callbacks if isinstance(found, GradientGuidedAnnealing)]
    result = {
        **description,
        **tasks.task_entries(module.task),
        "data_path": data_path(config),
        "steps": trainer.global_step,
        "diverged": watch.step,
        "classes": data.classes,
        "domains": data.domains,
        "training_domains": data.training_domains,
        "preprocess": data.preprocessing(module.featurizer),
        "selections": {rule: entry(found, metric) for rule, found in selections.items()},
        "evaluations": [
            {"step": found.step, metric.values_key: found.accuracies}
            for found in history.evaluations
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
        config: The composed configuration. Values of ``algorithm`` that are ``???`` are taken
            from the data.
        data: The data.

    Returns:
        The algorithm.
    """
    facts = {"num_domains": len(data.training_domains), "input_shape": data.input_shape}
    left_open: dict[str, Any] = {
        name: facts[name]
        for name in map(str, config.algorithm)
        if name in facts and OmegaConf.is_missing(config.algorithm, name)
    }
    kind: type[DomainGeneralizer] = get_class(config.algorithm._target_)
    task = tasks.make_task(config)
    featurizer = tasks.make_featurizer(config, kind.featurizer_shape(data.input_shape), task)
    left_open |= tasks.task_argument(kind, task)
    return instantiate(
        config.algorithm, featurizer=featurizer, num_classes=data.num_classes, **left_open
    )


def _evaluate_averaged(
    trainer: pl.Trainer,
    module: DomainGeneralizer,
    data: DomainDataModule,
    history: ValidationHistory,
    folder: Path,
) -> ValidationPass:
    """Evaluates and saves the weights that SWAD has averaged."""
    trainer.validate(module, datamodule=data, verbose=False)
    save_checkpoint(trainer, folder / "checkpoints" / "swad.ckpt", weights_only=True)
    return history.evaluations.pop()


def _description(
    config: DictConfig, data: DomainDataModule, names: Mapping[str, Any]
) -> dict[str, Any]:
    """Describes a job for its result: the entries that tell it from other jobs."""
    found, drawn = settings(config)
    return {
        "data": data.name,
        "test_domain": ",".join(data.test_domains),
        "test_domains": data.test_domains,
        "source_domains": data.source_domains,
        **{group: names.get(group, "") for group in ("algorithm", "annealing", "backbone")},
        "seed": config.seed,
        "split_seed": data.split_seed,
        "hparams_seed": config.hparams_seed,
        "hyperparameters": drawn,
        "num_classes": data.num_classes,
        "input_shape": list(data.input_shape),
        "config_hash": config_hash(config),
        "settings": found,
    }


def _with_progress_bar(config: DictConfig, callbacks: list[pl.Callback]) -> list[pl.Callback]:
    """Replaces Lightning's own bar, unless another one or none at all was chosen."""
    others = [found for found in callbacks if not isinstance(found, AnyProgressBar)]
    if not config.trainer.get("enable_progress_bar", True):
        return others
    return callbacks if len(others) < len(callbacks) else [*callbacks, ProgressBar()]


def _without_checkpoints(config: DictConfig, callbacks: list[pl.Callback]) -> dict[str, Any]:
    """Turns Lightning's own checkpoints off if no callback saves any."""
    given = "enable_checkpointing" in config.trainer
    keeps = any(isinstance(callback, Checkpoint) for callback in callbacks)
    return {} if given or keeps else {"enable_checkpointing": False}


def _check_length(trainer: pl.Trainer, data: DomainDataModule) -> None:
    """Raises an error if the training would end before the first validation."""
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
    """Passes the settings to loggers other than CSV, for which .hydra/ has them."""
    told = dict(description)
    told |= told.pop("settings") | told.pop("hyperparameters")
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):
            logger.log_hyperparams(told)


def _instances(group: DictConfig) -> list[Any]:
    return [instantiate(entry) for entry in group.values()]


@hydra.main(version_base="1.3", config_path=config_directory(), config_name="train")
def _job(config: DictConfig) -> float:
    with tidy("gga-train"):  # in launchers' processes too, which do not run main()
        hydra_config = cast(DictConfig, HydraConfig.get())
        one_of_many = hydra_config.mode == RunMode.MULTIRUN
        folder = Path(hydra_config.runtime.output_dir)
        check_numbers(config)
        _check_domains(config, one_of_many=one_of_many)
        result = Job(folder).result()
        if result is not None and result["config_hash"] == config_hash(config):
            _show(result, folder, hydra_config, earlier=True)
        elif one_of_many and starts_processes(config):
            result = run_apart(folder, hydra_config)
        else:
            result = _run(config, folder, hydra_config)
        return tasks.validation_score(result)


def _check_domains(config: DictConfig, *, one_of_many: bool) -> None:
    """Refuses `all` and `pairs` in a single run, unless a domain has this name."""
    chosen = config.data.test_domain
    if chosen in ("all", "pairs") and not one_of_many and chosen not in domain_names(config):
        raise ValueError(
            f"`data.test_domain={chosen}` stands for one job a domain or pair of domains: add -m."
        )


def _show(
    result: dict[str, Any], folder: Path, hydra_config: DictConfig, *, earlier: bool = False
) -> None:
    """Prints a job's result; within a sweep, in one line."""
    one_of_many = hydra_config.mode == RunMode.MULTIRUN
    if one_of_many and earlier:
        print(f"already finished: {folder.name}", flush=True)
    else:
        (print_line if one_of_many else print_table)(result, folder)


def _run(config: DictConfig, folder: Path, hydra_config: DictConfig) -> dict[str, Any]:
    """Trains in a folder that this job has claimed, and saves an error that ends it."""
    choices = cast(Mapping[str, Any], hydra_config.runtime.choices)
    overrides = typed_overrides(hydra_config)
    if getattr(rank_zero_only, "rank", 0) != 0:  # the first process holds the folder for all
        return train(config, folder, choices, overrides)
    job, one_of_many = Job(folder), hydra_config.mode == RunMode.MULTIRUN
    try:
        with job.claim(config_hash(config), overrides):
            earlier = job.result()  # of a process that ended just now
            with transcript(folder / "train.log") if earlier is None else nullcontext():
                job.save_config(config, hydra_config)
                with resumable("gga-train", folder, one_of_many=one_of_many):
                    result = earlier or train(config, folder, choices, overrides)
                _show(result, folder, hydra_config, earlier=earlier is not None)
        return result
    except Exception as error:
        if one_of_many:
            where = "" if isinstance(error, FolderInUse) else f" ({shown(folder / 'failure.json')})"
            print(f"gga-train: a job failed: {explain(error)}{where}", file=sys.stderr)
        raise


def main() -> None:
    """Runs ``gga-train``. Errors take one line, or have a traceback with ``HYDRA_FULL_ERROR=1``."""
    if "--version" in sys.argv[1:]:  # Hydra would print its own
        print(f"gga-lightning {importlib.metadata.version('gga-lightning')}")
        return
    sys.argv[1:] = names_as_text(sys.argv[1:])
    with _hydra_raises() as whole, tidy("gga-train"), exit_on_signals("gga-train"):
        try:
            _job()
        except Exception as error:
            if whole:
                raise
            print(f"gga-train: {explain(error)}", file=sys.stderr)
            if not isinstance(error, HydraException):
                print("(HYDRA_FULL_ERROR=1 shows where it comes from)", file=sys.stderr)
            sys.exit(1)


@contextmanager
def _hydra_raises() -> Generator[bool]:
    """Lets Hydra raise its errors instead of printing them; yields if the user wants tracebacks."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield before == "1"
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


if __name__ == "__main__":
    main()
