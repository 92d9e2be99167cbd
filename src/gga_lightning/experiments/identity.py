"""Identifies the job of a configuration: its hash, its settings, and the name of its folder."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, ListConfig, OmegaConf

from gga_lightning.data.names import file_name, plain_name
from gga_lightning.experiments.required import require_data

__all__ = ["config_hash", "data_path", "folder_name", "settings"]

# The settings that identify a job, and those among them that change no number.
_GROUPS = ("data", "backbone", "algorithm", "annealing", "trainer", "callbacks")
_IDLE = {
    "callbacks": ("checkpoint", "oracle", "last", "conflict", "progress", "pictures"),
    "data": ("num_workers",),
    "trainer": (
        "default_root_dir",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "log_every_n_steps",
    ),
}
_DEFAULT_TASK = "classification"
_SEEDS = ("seed", "split_seed", "test_domain")
_DRAWN = {"domainbed": "${draw:", "swad": "${grid:"}


def config_hash(config: DictConfig) -> str:
    """Computes a job's identity.

    Args:
        config: The composed configuration.

    Returns:
        16 hexadecimal digits. They are equal for configurations that differ only in where they
        log, what they show, how many processes load data, and where a benchmark is stored. The
        absolute path of users' own data counts: two folders with the same name are two data sets.
    """
    parts: dict[str, Any] = {name: _content(config, name) for name in _GROUPS}
    held_out = config.data.test_domain
    held_out = list(held_out) if OmegaConf.is_list(held_out) else [held_out]
    # 45 and '45' are the same
    parts["data"]["test_domain"] = [plain_name(str(entry)) for entry in held_out]
    if not parts["data"].get("pseudo_domains"):  # runs of earlier versions had none
        parts["data"].pop("pseudo_domains", None)
    parts |= {"seed": config.seed, "drawn": sorted(_drawn(config))}
    if _has_task(config):
        parts["task"] = _content(config, "task")
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def settings(config: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flattens a job's settings, for reports to compare.

    Args:
        config: The composed configuration.

    Returns:
        From dotted name to value: the settings of the job's identity except for the seeds and the
        held-out domain; and separately the values that a search space drew.
        ``data.seed`` is a setting if it differs from ``seed``.
    """
    found = {
        name: value
        for group in (*_GROUPS, *(["task"] if _has_task(config) else []))
        for name, value in _flat(_content(config, group), group)
        if name.rpartition(".")[2] not in _SEEDS
    }
    if config.data.get("seed", config.seed) != config.seed:
        found["data.seed"] = config.data.seed
    drawn = {name: found.pop(name) for name in _drawn(config) if name in found}
    return found, drawn


def folder_name(config: DictConfig, choices: Mapping[str, Any]) -> str:
    """Names a job's folder in a multirun: the same job, the same name.

    Args:
        config: The composed configuration.
        choices: The chosen option of each configuration group.

    Returns:
        The data, held-out domain, algorithm, annealing and seed, followed by the job's identity.
    """
    held_out = config.data.test_domain
    held_out = "+".join(map(str, held_out)) if OmegaConf.is_list(held_out) else held_out
    chosen = [choices.get(group) for group in ("algorithm", "annealing")]
    parts = [choices.get("data"), held_out, *chosen, f"seed{config.seed}"]
    return file_name("-".join(map(str, parts)), f"-{config_hash(config)}")


def data_path(config: DictConfig) -> str | None:
    """Finds where a user's own data are, which tells data sets of the same name apart.

    Args:
        config: The composed configuration.

    Returns:
        The absolute path of the folder of domains, or of the table. None for benchmarks, which
        are the same anywhere, and for data that come with the package.
    """
    dataset = _content(config, "data")["dataset"]
    return next((dataset[name] for name in ("file", "root") if dataset.get(name)), None)


def _content(config: DictConfig, group: str) -> dict[str, Any]:
    if group == "data":
        require_data(config)
    content = {
        str(name): _resolved(config[group], name)
        for name in config[group]
        if name not in _IDLE.get(group, ())
    }
    if group == "data":
        dataset = content["dataset"]
        if dataset.get("task") == _DEFAULT_TASK:
            dataset.pop("task")
        if dataset.get("cache"):
            dataset["cache"] = True  # wherever it is
        if hasattr(get_class(dataset["_target_"]), "facts"):  # a benchmark is the same anywhere
            content.pop("root", None)
            dataset.pop("root", None)
        for place, name in ((content, "root"), (dataset, "root"), (dataset, "file")):
            if isinstance(place.get(name), str) and place[name] != "???":
                place[name] = str(Path(place[name]).expanduser().resolve())
    return content


def _has_task(config: DictConfig) -> bool:
    """Whether the task is part of the identity: not classification, the only one there was."""
    task = config.get("task")
    return task is not None and task.get("name") != _DEFAULT_TASK


def _resolved(parent: DictConfig | ListConfig, name: Any) -> Any:
    """A setting's value; where it names the run folder, which the job names, its text."""
    node: Any = parent._get_node(name)  # pyright: ignore[reportPrivateUsage]
    if OmegaConf.is_interpolation(parent, name):
        if "${hydra:" in node._value():
            return node._value()
        node = parent[name]
    if OmegaConf.is_dict(node):
        return {str(inner): _resolved(node, inner) for inner in node}
    if OmegaConf.is_list(node):
        return [_resolved(node, index) for index in range(len(node))]
    return node._value() if OmegaConf.is_missing(parent, name) else parent[name]


def _drawn(config: DictConfig) -> list[str]:
    """The names of the settings that a search space draws."""
    if config.search_space is None:
        return []
    raw = {g: OmegaConf.to_container(config[g], resolve=False) for g in _GROUPS}
    return [
        n
        for n, value in _flat(raw)
        if isinstance(value, str) and value.startswith(_DRAWN[config.search_space])
    ]


def _flat(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        dotted = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, Mapping) and value:
            yield from _flat(value, dotted)
        else:
            yield dotted, value
