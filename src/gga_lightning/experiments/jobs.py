"""Run folders: which job a folder belongs to, whether it is finished, and how it is resumed."""

import contextlib
import csv
import io
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

from gga_lightning.experiments.checkpoints import read_checkpoint, replace_file

__all__ = ["FolderInUse", "Job", "JobProgress"]


class FolderInUse(ValueError):
    """Another process works in the run folder."""


class Job:
    """A training and its folder, which is finished or can be resumed.

    It is finished when ``result.json`` is there. Until then ``job.json`` names the folder's
    job and the optimizer steps at which it was started; ``failure.json`` is there if its last
    start ended with an error. A start resumes from ``checkpoints/last.ckpt`` or, if that file is
    damaged, from ``checkpoints/previous.ckpt``.

    Attributes:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        """Stores the folder's path, and changes nothing on the disk.

        Args:
            folder: The run folder.
        """
        self.folder = folder

    def find_checkpoint(self) -> Path | None:
        """Finds the checkpoint to resume from: the last one or, if that is damaged, the previous.

        A file that is damaged, or a checkpoint of another job, is renamed to ``*.damaged``, with
        a warning.

        Returns:
            The file; None if no checkpoint can be used and the training starts from the beginning.
        """
        for name in ("last.ckpt", "previous.ckpt"):
            path = self.folder / "checkpoints" / name
            if os.path.lexists(path):
                try:
                    self._check_owner(path, read_checkpoint(path))
                except ValueError as error:
                    aside = path.with_name(f"{name}.damaged")
                    os.replace(path, aside)
                    warnings.warn(
                        f"{error} It is kept as {aside.name}, and the training resumes from an "
                        "earlier checkpoint, or begins anew if there is none.",
                        stacklevel=2,
                    )
                else:
                    return path
        return None

    @property
    def starts(self) -> list[int]:
        """The optimizer steps at which the job was started."""
        return self._read("job.json").get("starts", [])

    @property
    def config_hash(self) -> str | None:
        """The identity of the job that claimed the folder."""
        return self._read("job.json").get("config_hash")

    def result(self) -> dict[str, Any] | None:
        """Reads what ``result.json`` holds; None if the job is not finished."""
        return self._read("result.json") or None

    @contextlib.contextmanager
    def claim(self, config_hash: str, overrides: Sequence[str]) -> Generator[None]:
        """Holds the folder for this process, and notes an error that ends the job.

        Another process may have finished the job just before: ask :meth:`result` again in the
        body. The lock's file is removed with the claim of a finished job, since nobody will train
        in the folder any more. A process that had opened the file before gets a lock of no use,
        and finds the result.

        Args:
            config_hash: The job's identity, see :mod:`gga_lightning.experiments.identity`.
            overrides: What was typed or swept for the job, for reports.

        Yields:
            Nothing. In the body, the folder belongs to this job and process alone.

        Raises:
            FolderInUse: If another process holds it.
            ValueError: If the folder belongs to another job.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / ".lock"
        lock = FileLock(path)  # a lock of the kernel, which ends with the process
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise FolderInUse(
                f"another process works in {self.folder}: wait for its end, or choose another "
                "folder by `hydra.run.dir`."
            ) from None
        try:
            self._enter(config_hash, overrides)
            with self._failures():
                yield
        finally:
            if (self.folder / "result.json").exists():
                with contextlib.suppress(OSError):  # Windows keeps files that are open
                    path.unlink()
            lock.release()

    def _enter(self, config_hash: str, overrides: Sequence[str]) -> None:
        """Claims the folder for this job, unless it belongs to another one."""
        noted = self._read("job.json") or self._read("result.json")
        # refused before its training, such as for a setting: the corrected command may follow
        if noted.get("starts") == [] and self.result() is None:
            noted = {}
        owner = noted.get("config_hash", config_hash)
        if owner != config_hash:
            raise ValueError(
                f"{self.folder} holds another job (`config_hash` {owner}, here {config_hash}): "
                "choose another folder by `hydra.run.dir`, delete this one, or use the same "
                "configuration."
            )
        if "starts" not in noted:
            fresh = {"config_hash": config_hash, "overrides": list(overrides), "starts": []}
            self._write("job.json", fresh)
        (self.folder / "failure.json").unlink(missing_ok=True)

    def begin(self) -> None:
        """Renames the metrics of an earlier start, which a new CSV logger would delete."""
        current, earlier = self.folder / "metrics.csv", self.folder / "metrics-earlier.csv"
        if current.exists() and not earlier.exists():
            current.replace(earlier)

    def go_on(self, step: int, trainer: Trainer) -> None:
        """Restores the folder's state at a step, and notes the start.

        The rows of ``metrics.csv`` before that step are written again, digit for digit; without a
        CSV logger the file stays unchanged. Checkpoints of later steps are deleted, since these
        steps will be trained again.

        Args:
            step: The optimizer step from which the training continues.
            trainer: The trainer, for its loggers.
        """
        self._restore_metrics(step, [x for x in trainer.loggers if isinstance(x, CSVLogger)])
        for path in (self.folder / "checkpoints").glob("*-*.ckpt"):
            number = path.stem.rpartition("-")[2]
            if number.isdigit() and int(number) > step:
                path.unlink()
        noted = self._read("job.json")
        self._write("job.json", {**noted, "starts": [*noted.get("starts", []), step]})

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes ``result.json``, and deletes what only a resumed training needs.

        Args:
            result: The content of the file.
        """
        self._write("result.json", result)
        (self.folder / "checkpoints" / "previous.ckpt").unlink(missing_ok=True)

    def save_config(self, config: DictConfig, hydra: DictConfig) -> None:
        """Writes the files that Hydra would write, after the folder was claimed.

        Args:
            config: The job's configuration.
            hydra: Hydra's own.
        """
        folder = self.folder / ".hydra"
        folder.mkdir(exist_ok=True)
        OmegaConf.save(config, folder / "config.yaml")
        OmegaConf.save(OmegaConf.create({"hydra": hydra}), folder / "hydra.yaml")
        OmegaConf.save(hydra.overrides.task, folder / "overrides.yaml")

    def _check_owner(self, path: Path, checkpoint: Mapping[str, Any]) -> None:
        own = self.config_hash
        owner = checkpoint.get("job", {}).get("config_hash", own)
        if owner != own:
            raise ValueError(
                f"{path} is a checkpoint of another job (`config_hash` {owner}, here {own})."
            )

    def _restore_metrics(self, step: int, loggers: Sequence[CSVLogger]) -> None:
        earlier = self.folder / "metrics-earlier.csv"
        if not earlier.exists():
            return
        if not loggers:
            earlier.replace(self.folder / "metrics.csv")
            return
        rows = [row for row in _rows(earlier) if int(row["step"]) < step]
        for logger in loggers:
            for row in rows:
                values: dict[str, Any] = {n: v for n, v in row.items() if v and n != "step"}
                logger.log_metrics(values, int(row["step"]))
            logger.save()
        earlier.unlink()

    @contextlib.contextmanager
    def _failures(self) -> Generator[None]:
        """Notes an error that ends the job."""
        try:
            yield
        except Exception as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            trace = "".join(traceback.format_exception(error))
            try:
                self._write("failure.json", {"error": text, "traceback": trace})
            except OSError as full:
                path = self.folder / "failure.json"
                print(f"The error could not be noted in {path}: {full}", file=sys.stderr)
            raise

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.exists():
            return {}
        try:
            found = json.loads(path.read_bytes())
            if not isinstance(found, dict):
                raise ValueError("it holds no JSON object")
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} cannot be read ({error}), as after a full disk: delete it, and the job "
                "resumes from its last checkpoint."
            ) from error
        return cast("dict[str, Any]", found)

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes the complete file or nothing."""
        unfinished = (self.folder / name).with_suffix(".tmp")
        try:
            unfinished.write_text(json.dumps(content, indent=2) + "\n")
            replace_file(unfinished, self.folder / name)
        except OSError:  # a full disk
            unfinished.unlink(missing_ok=True)
            raise


class JobProgress(Callback):
    """Keeps a run folder right while its job trains.

    When a checkpoint is saved, the loggers write everything to disk. When one is loaded, the
    folder is brought to the step of the checkpoint.

    Attributes:
        job: The job.
    """

    def __init__(self, job: Job) -> None:
        """Starts the clock.

        Args:
            job: The job.
        """
        self.job = job
        self._step = 0
        self._earlier = 0.0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the job has taken, from its checkpoint's start on."""
        return self._earlier + time.monotonic() - self._began

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when the fit begins, with a checkpoint loaded."""
        if trainer.is_global_zero:
            self.job.go_on(self._step, trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called when a checkpoint is saved."""
        for logger in trainer.loggers:
            logger.save()
        checkpoint["job"] = {"seconds": self.seconds, "config_hash": self.job.config_hash}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called when a checkpoint is loaded, before Lightning's own counters are."""
        self._step = checkpoint["global_step"]
        self._earlier = checkpoint.get("job", {}).get("seconds", 0.0)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """A CSV file's rows; not the last one if it was cut off in writing."""
    text = path.read_bytes().decode(errors="replace")
    for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")):
        if None not in row.values() and row.get("step", "").isdigit():
            yield row
