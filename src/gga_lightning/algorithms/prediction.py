"""Predicts by a trained model: of images, rows of a table or texts."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from gga_lightning.tasks.predictions import AnyPrediction, Prediction

if TYPE_CHECKING:
    from gga_lightning.algorithms.base import DomainGeneralizer

__all__ = ["Prediction", "image_files", "predict", "predict_inputs"]


def image_files(folder: str | os.PathLike[str]) -> list[str]:
    """Lists the images in a folder and in the folders below it.

    Args:
        folder: The folder. Links to folders are followed, and each folder is listed once.

    Returns:
        The paths, sorted, of all files that end like an image (torchvision's
        ``IMG_EXTENSIONS``, in upper or lower case). Hidden files and folders are left out.

    Raises:
        ValueError: If there are none.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "photos").mkdir()
        ...     for name in ("photos/a.JPG", "b.png", "notes.txt"):
        ...         Path(folder, name).touch()
        ...     [os.path.relpath(path, folder) for path in image_files(folder)]
        ['b.png', 'photos/a.JPG']
    """
    found: list[str] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(os.fspath(folder), followlinks=True):
        real = os.path.realpath(place)
        again = real in seen
        seen.add(real)
        folders[:] = [] if again else sorted(name for name in folders if not _hidden(name))
        found += [
            os.path.join(place, name)
            for name in files
            if not again and name.lower().endswith(IMG_EXTENSIONS) and not _hidden(name)
        ]
    if not found:
        raise ValueError(
            f"The folder {os.fspath(folder)!r} has no images: no files that end with one of "
            f"{', '.join(IMG_EXTENSIONS)}."
        )
    return sorted(found)


def predict(
    model: "DomainGeneralizer", images: Any, batch_size: int
) -> AnyPrediction | list[AnyPrediction]:
    """Predicts by the model's task, see :meth:`gga_lightning.algorithms.DomainGeneralizer.predict`.

    Args:
        model: The model.
        images: An image or a collection.
        batch_size: How many images go through the model at a time.

    Returns:
        A prediction for an image, a list for a collection.

    Raises:
        ValueError: If an argument is out of range, or an image cannot be used.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    if len(model.classes) != model.num_classes:
        raise ValueError(
            f"`classes` must be one name for each of the model's {model.num_classes} classes, got "
            f"{model.classes}."
        )
    parts = _parts(images, model)
    each = iter([images]) if parts is None else _each(parts, model)
    found: list[AnyPrediction] = []
    while batch := list(itertools.islice(each, batch_size)):
        inputs = [_input(model, image) for image in batch]
        sources = [os.fspath(x) if isinstance(x, str | os.PathLike) else None for x in batch]
        found += predict_inputs(model, inputs, sources)
    return found[0] if parts is None else found


def predict_inputs(
    model: "DomainGeneralizer",
    inputs: Sequence[Tensor],
    sources: Sequence[str | None] | None = None,
) -> Sequence[AnyPrediction]:
    """Predicts of inputs that are ready, in one batch.

    Args:
        model: The model.
        inputs: What its ``preprocess`` makes.
        sources: Where each comes from, for its prediction.

    Returns:
        A prediction for each.

    Raises:
        ValueError: If an output is not finite.
    """
    if not inputs:
        return []
    sources = [None] * len(inputs) if sources is None else sources
    return model.task.predictions(_outputs(model, inputs), model.classes, sources)


def _parts(images: Any, model: "DomainGeneralizer") -> Iterable[Any] | None:
    """What a collection consists of; None for what is to be one image, row or text."""
    input_shape = model.input_shape
    if isinstance(images, str) and getattr(model.preprocess, "takes_texts", False):
        return None
    if isinstance(images, str | os.PathLike):
        items = getattr(model.preprocess, "items", None)  # of a file with many rows or texts
        if items is not None:
            return [item for _, item in items(images)]
        return image_files(images) if os.path.isdir(images) else None
    if isinstance(images, Tensor):
        if not images.is_floating_point():
            return images if images.ndim == 4 else None
        many = input_shape is not None and images.ndim == len(input_shape) + 1
        return images if many else None
    single = isinstance(images, bytes | bytearray | memoryview | Mapping)
    # arrays and open files, too, can be iterated over, but not by images
    if single or hasattr(images, "__array__") or hasattr(images, "read"):
        return None
    return images if isinstance(images, Iterable) else None


def _each(collection: Iterable[Any], model: "DomainGeneralizer") -> Iterator[Any]:
    """The images of a collection and of the collections in it."""
    for item in collection:
        parts = _parts(item, model)
        yield from [item] if parts is None else _each(parts, model)


def _input(model: "DomainGeneralizer", image: Any) -> Tensor:
    """The model's input for an image."""
    shape = model.input_shape
    wanted = "the model's input shape" if shape is None else f"the shape {tuple(shape)}"
    ready = isinstance(image, Tensor) and image.is_floating_point()
    if ready and not getattr(model.preprocess, "takes_floats", False):
        if shape is not None and tuple(image.shape) != tuple(shape):
            raise ValueError(
                f"`images` that are tensors of floats must be inputs of the model, of {wanted}, "
                f"got {tuple(image.shape)}. An image that is not normalized is a uint8 tensor."
            )
        return image
    if model.preprocess is None:
        found = f"{type(image).__name__} {image!r}" if isinstance(image, str) else type(image)
        raise ValueError(
            f"`images` must be tensors of floats of {wanted}, because this model has no "
            f"`preprocess`: its data are not images, rows of a table or texts. Got {found}."
        )
    return model.preprocess(image)


def _outputs(model: "DomainGeneralizer", inputs: Sequence[Tensor]) -> Tensor:
    """The model's outputs. The modes of its modules are the same afterwards."""
    weight = next(model.parameters())
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            batch = torch.stack([_like(weight, x) for x in inputs])
            outputs = model(batch).cpu().double()
    finally:
        for module, mode in modes:
            module.training = mode
    if not outputs.isfinite().all():
        raise ValueError(
            "The model's outputs must be finite, got NaN or infinity: its training diverged, or "
            "an input is not finite. Choose the checkpoint of another selection, or train again "
            "with a lower learning rate."
        )
    return outputs


def _like(weight: Tensor, x: Tensor) -> Tensor:
    """The input on the device of the weights and in their type; tokens of a text stay integers."""
    return x.to(weight.device, weight.dtype if x.is_floating_point() else x.dtype)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
