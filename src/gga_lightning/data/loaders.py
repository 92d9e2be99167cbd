"""The protocol of data sets with several domains, and the base class of their data modules."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any, Protocol, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    Subset,
    TensorDataset,
    default_collate,
)

from gga_lightning.data.batches import EvaluationSampler, Transformed
from gga_lightning.data.resume import LazyLoader
from gga_lightning.data.transforms import IMAGENET_MEAN, IMAGENET_STD, EvalTransform, to_float

__all__ = ["DomainDataset", "DomainLoaders"]


class DomainDataset(Protocol):
    """A data set with several domains.

    It may also have ``train_transform`` and ``eval_transform``, callables on one input, for which
    worker processes do the work; and a true ``as_uint8``: inputs are then integer images, which
    the data module normalizes on the device, as the featurizer's ``normalization`` says, those of
    training after a ``device_transform``, a callable on a batch of them. ``classes`` are the
    classes' names, in the order of their targets; without it they are ``"0"``, ``"1"`` and so on.

    A method ``fit`` may find the transform in the training data, such as a scaling: it is called
    with ``{source domain: training part}`` (:class:`torch.utils.data.Subset`) once the domains are
    split, and returns the callable that is used in place of both transforms.

    For another :class:`~gga_lightning.tasks.Task` than classification, targets are what the task
    says, and ``num_classes`` and ``classes`` are the number and the names of its outputs: of
    labels, values or classes of pixels.

    Attributes:
        name: Its name in results.
        domains: Domain name to its samples, pairs (input, target); targets are integers.
        num_classes: The number of classes.
        input_shape: Shape of one input.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> from gga_lightning.data import DomainDataModule
        >>> class Mine:
        ...     name, num_classes, input_shape = "mine", 2, (3,)
        ...     domains = {d: TensorDataset(torch.zeros(40, 3), torch.arange(40) % 2) for d in "ab"}
        >>> data = DomainDataModule(Mine(), test_domain="b", batch_size=4)
        >>> batch = next(iter(data.train_dataloader()))
        >>> {name: inputs.shape for name, (inputs, targets) in batch.items()}
        {'a': torch.Size([4, 3])}
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def domains(self) -> Mapping[str, Dataset[Any]]: ...  # noqa: D102

    @property
    def num_classes(self) -> int: ...  # noqa: D102

    @property
    def input_shape(self) -> tuple[int, ...]: ...  # noqa: D102


class DomainLoaders(LightningDataModule):
    """Base class of data modules with domains: attributes, evaluation loaders, normalization.

    Attributes:
        name: The data set's name.
        domains: The names of all domains, in order.
        classes: The classes' names, in the order of their targets.
        num_classes: The number of classes.
        input_shape: Shape of one input.
        class_numbers: The number of each class in evaluation batches, for a model that numbers
            the classes in another order; None to keep the data set's numbers.

    Example:
        >>> from gga_lightning.data import DomainDataModule, Toy
        >>> data = DomainDataModule(Toy())
        >>> isinstance(data, DomainLoaders), data.domains, data.classes
        (True, ['centre', 'right', 'left'], ['negative', 'positive'])
    """

    def __init__(self, dataset: DomainDataset, *, eval_batch_size: int, num_workers: int) -> None:
        """Takes the domains.

        Args:
            dataset: The domains.
            eval_batch_size: Samples in an evaluation batch; at least 1.
            num_workers: Worker processes of a loader.

        Raises:
            ValueError: If ``eval_batch_size`` is less than 1, or the data set's ``classes`` are
                not one name for each class.
        """
        super().__init__()
        if eval_batch_size < 1:
            raise ValueError(f"`eval_batch_size` must be at least 1, got {eval_batch_size}.")
        self.name = dataset.name
        self.domains = list(dataset.domains)
        self.classes = _class_names(dataset)
        self.num_classes = dataset.num_classes
        self.input_shape = tuple(dataset.input_shape)
        self._dataset = dataset
        self._eval_batch_size = eval_batch_size
        self._num_workers = num_workers
        self._fitted: Callable[[Any], Any] | None = None
        self.class_numbers: Sequence[int] | None = None
        if getattr(dataset, "as_uint8", False):
            # only then, since Lightning lets it replace a hook of the module's own
            self.on_after_batch_transfer = self._to_floats

    def preprocessing(self, featurizer: object) -> dict[str, Any] | None:
        """Describes how an image file, a row of a table or a text becomes an input in evaluation.

        Args:
            featurizer: The model's; integer images are normalized as its ``normalization`` says.

        Returns:
            What :func:`gga_lightning.experiments.preprocess.make_preprocess` takes: what the
            transform's method ``settings`` returns, if it has one; for images, the settings of
            :class:`gga_lightning.experiments.preprocess.Preprocess`; None for other data.
        """
        transform = self._transform("eval_transform")
        settings = getattr(transform, "settings", None)
        if settings is not None:
            return settings()
        resize, last = getattr(transform, "first", transform), getattr(transform, "last", None)
        as_uint8 = getattr(self._dataset, "as_uint8", False)
        if not isinstance(resize, EvalTransform) or last is not (None if as_uint8 else to_float):
            return None
        found = _normalization(featurizer if as_uint8 else None)
        mean, std = ([float(value) for value in values] for values in found)
        domainbed = getattr(self._dataset, "domainbed", False)
        return {"size": self.input_shape[-1], "mean": mean, "std": std, "domainbed": domainbed}

    def sample_images(self, part: str, count: int) -> tuple[Tensor, Tensor] | None:
        """Gets images of a part of the domains, evenly spread, as evaluation resizes them.

        Args:
            part: ``"val"``, ``"test"``, ``"oracle"`` or ``"seen"``.
            count: The largest number of images.

        Returns:
            uint8 of shape ``(N, 3, height, width)``, and their classes, shape ``(N,)``; None
            where inputs are no integer images with three channels.
        """
        if not getattr(self._dataset, "as_uint8", False) or self.input_shape[0] != 3:
            return None
        loaders = cast(Mapping[str, DataLoader[Any]], self.val_dataloader())
        parts = [loader.dataset for name, loader in loaders.items() if name.startswith(f"{part}/")]
        joined: Dataset[Any] = ConcatDataset(parts)
        size = sum(len(cast(Sized, dataset)) for dataset in parts)
        samples = [joined[index] for index in range(0, size, max(1, -(-size // count)))]
        images = torch.stack([image for image, *_ in samples])
        return images, torch.tensor([int(target) for _, target, *_ in samples])

    def to_inputs(self, images: Tensor, module: object) -> Tensor:
        """Normalizes integer images as a module expects them.

        Args:
            images: uint8 of shape ``(N, 3, height, width)``, on any device.
            module: The module, whose featurizer may have a ``normalization``.

        Returns:
            float32 of the same shape, on the same device.
        """
        return to_float(images, *_normalization(getattr(module, "featurizer", None)))

    def targets(self) -> dict[str, Any]:
        """Finds the targets of each domain.

        Returns:
            Domain name to its targets. Of a domain without a list of them, the first one alone.
        """
        return {name: _targets(domain) for name, domain in self._dataset.domains.items()}

    def _evaluation_loader(self, part: Subset[Any], *, augment: bool = False) -> DataLoader[Any]:
        # Lightning opens one after the other, so that only one has workers at a time
        kind = "train_transform" if augment else "eval_transform"
        return LazyLoader(
            Transformed(part, self._transform(kind), self.class_numbers),
            batch_size=self._eval_batch_size,
            sampler=EvaluationSampler(len(part), *self._ranks()),
            num_workers=self._num_workers,
            pin_memory=self._pins(),
        )

    def _transform(self, kind: str) -> Callable[[Any], Any] | None:
        """The transform of inputs in training or evaluation."""
        return self._fitted or getattr(self._dataset, kind, None)

    def _to_floats(self, batch: Any, dataloader_idx: int) -> Any:
        """Turns integer images into floats on the device, as the featurizer expects them."""
        trainer = self.trainer
        module = trainer and trainer.lightning_module
        transform = getattr(self._dataset, "device_transform", None)

        def finished(images: Tensor) -> Tensor:
            if transform is not None and trainer is not None and trainer.training:
                images = transform(images)
            return self.to_inputs(images, module)

        if isinstance(batch, Mapping):
            return {name: (finished(images), *rest) for name, (images, *rest) in batch.items()}
        images, *rest = batch
        return finished(images), *rest

    def _pins(self) -> bool:
        return self._num_workers > 0 and torch.cuda.is_available()

    def _ranks(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size


def _targets(domain: Dataset[Any]) -> Any:
    if isinstance(domain, TensorDataset):
        return domain.tensors[1]
    found = getattr(domain, "targets", None)
    return default_collate([domain[0][1]]) if found is None else found


def _class_names(dataset: DomainDataset) -> list[str]:
    """The classes' names; their numbers if the data set has no names."""
    found: Any = getattr(dataset, "classes", None)
    found = range(dataset.num_classes) if found is None else found
    names = list(map(str, found)) if isinstance(found, Iterable) else [repr(found)]
    if len(names) != dataset.num_classes or len(set(names)) < len(names):
        raise ValueError(
            f"`classes` of the data set {dataset.name!r} must be {dataset.num_classes} different "
            f"names, one for each class, got {names}."
        )
    return names


def _normalization(featurizer: object) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation that integer images are normalized with."""
    return getattr(featurizer, "normalization", None) or (IMAGENET_MEAN, IMAGENET_STD)
