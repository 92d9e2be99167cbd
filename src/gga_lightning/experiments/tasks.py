"""Makes the task of a run, checks it against the data, and describes it in the result."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from gga_lightning.algorithms import DomainGeneralizer
from gga_lightning.data import DomainDataModule
from gga_lightning.report.metric import ACCURACY, Metric, parse_metric
from gga_lightning.tasks import CLASSIFICATION, Classification, Task

__all__ = [
    "check_targets",
    "make_featurizer",
    "make_task",
    "metric_of",
    "task_argument",
    "task_entries",
    "validation_score",
]


def make_task(config: DictConfig) -> Task:
    """Makes the task.

    Args:
        config: The composed configuration. ``task.name`` is for other settings to refer to.
            Runs of earlier versions have no ``task``.

    Returns:
        The task; classification if there is none.
    """
    if config.get("task") is None:
        return CLASSIFICATION
    settings = OmegaConf.to_container(config.task, resolve=True)
    assert isinstance(settings, dict)
    settings.pop("name", None)
    return instantiate(settings)


def check_targets(task: Task, data: DomainDataModule) -> None:
    """Checks that the task can use the targets of the data, before a training.

    Args:
        task: The task.
        data: The data.

    Raises:
        ValueError: If it cannot.
    """
    for domain, targets in data.targets().items():
        where = f"domain {domain!r} of {data.name!r}"
        task.check(torch.as_tensor(targets), data.num_classes, where)


def metric_of(task: Task | None) -> Metric:
    """Describes a task's metric.

    Args:
        task: The task; None for a module of yours, which logs accuracies.

    Returns:
        The metric.
    """
    if task is None or task.name == ACCURACY.task:
        return ACCURACY
    return Metric(task.name, task.metric, task.metric_title, task.higher_is_better, task.in_percent)


def task_entries(task: Task) -> dict[str, Any]:
    """Describes the task in ``result.json``.

    Args:
        task: The task.

    Returns:
        ``task`` and ``metric``; nothing for classification, which goes without saying.
    """
    metric = metric_of(task)
    if metric == ACCURACY:
        return {}
    names = ("name", "title", "higher_is_better", "in_percent")
    return {"task": metric.task, "metric": {name: getattr(metric, name) for name in names}}


def make_featurizer(config: DictConfig, shape: Sequence[int], task: Task) -> nn.Module:
    """Makes the backbone, with feature maps if the task needs them.

    Args:
        config: The composed configuration.
        shape: Shape of one input of it.
        task: The task.

    Returns:
        The featurizer.

    Raises:
        ValueError: If the task needs feature maps, and the backbone has none.
    """
    if not task.dense:
        return instantiate(config.backbone, input_shape=shape)
    kind = get_class(config.backbone._target_)
    if "dense" not in inspect.signature(kind).parameters:
        raise ValueError(
            f"the task {task.name} needs a backbone that gives feature maps, which takes "
            f"`dense=True`; {kind.__name__} does not. Choose `backbone=small_cnn` or "
            "`backbone=mnist_cnn`."
        )
    return instantiate(config.backbone, input_shape=shape, dense=True)


def task_argument(kind: type[DomainGeneralizer], task: Task) -> dict[str, Task]:
    """Finds the argument for an algorithm's parameter ``task``.

    Args:
        kind: The algorithm's class.
        task: The task.

    Returns:
        The argument; none for classification, which is the default.

    Raises:
        ValueError: If the algorithm has no such parameter.
    """
    if type(task) is Classification:
        return {}
    if "task" not in inspect.signature(kind).parameters:
        raise ValueError(
            f"`task` must be classification for {kind.__name__}, whose constructor has no "
            f"parameter `task`, got {task.name}. Add one that it passes to DomainGeneralizer."
        )
    return {"task": task}


def validation_score(result: Mapping[str, Any]) -> float:
    """Finds what a search of hyperparameters maximizes.

    Args:
        result: What ``result.json`` holds.

    Returns:
        The mean of the metric over the source domains' validation parts; minus it if the best
        value is the lowest.
    """
    metric = parse_metric(result)
    value = result["selections"]["training_domain_validation"][metric.key("val")]
    return value if metric.higher_is_better else -value
