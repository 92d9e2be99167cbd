"""Runs a sweep's job as a separate command if it starts several processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gga_lightning.experiments.jobs import Job
from hydra_plugins.gga_lightning_sweeper import quoted

__all__ = ["run_apart", "starts_processes", "typed_overrides"]

# Strategies that start processes in another way than by running the script again.
_NO_SCRIPTS = ("spawn", "fork", "notebook")


def typed_overrides(hydra_config: DictConfig) -> list[str]:
    """Lists the command-line arguments that describe a job.

    Args:
        hydra_config: Hydra's own configuration.

    Returns:
        The overrides that were typed or swept for the job, after the options that name further
        folders of configuration.
    """
    places = [
        quoted(f"file://{source.path}")
        for source in hydra_config.runtime.config_sources
        if source.provider in ("command-line", "hydra.searchpath in command-line")
    ]
    found = [f"hydra.searchpath=[{','.join(places)}]"] if places else []
    return [*found, *hydra_config.overrides.task]


def starts_processes(config: DictConfig) -> bool:
    """Determines whether Lightning will start further processes. A process can do this only once.

    Args:
        config: The composed configuration.

    Returns:
        Whether it will.
    """
    strategy = str(config.trainer.get("strategy", "auto"))
    several = config.trainer.get("devices", 1) != 1 or config.trainer.get("num_nodes", 1) != 1
    started = "LOCAL_RANK" in os.environ or "SLURM_PROCID" in os.environ
    return (several or strategy != "auto") and not strategy.endswith(_NO_SCRIPTS) and not started


def run_apart(folder: Path, hydra_config: DictConfig) -> dict[str, Any]:
    """Runs a sweep's job as a separate command, which prints its result.

    Args:
        folder: The run folder.
        hydra_config: Hydra's own configuration.

    Returns:
        What ``result.json`` holds.

    Raises:
        RuntimeError: If the command failed.
    """
    command = [sys.executable, "-m", "gga_lightning.experiments.train"]
    command += ["--config-name", str(hydra_config.job.config_name), *typed_overrides(hydra_config)]
    command += ["hydra.mode=RUN", f"hydra.run.dir={quoted(str(folder))}"]
    status = subprocess.run(command, check=False).returncode
    result = Job(folder).result()
    if status != 0 or result is None:
        raise RuntimeError(f"the job in {folder} ended with status {status}.")
    return result
