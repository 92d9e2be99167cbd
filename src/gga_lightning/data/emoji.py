"""Emoji in five drawing styles: embedded pictures with a real domain shift."""

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import PurePosixPath

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from gga_lightning.data.decoding import decode
from gga_lightning.data.transforms import EvalTransform, TrainTransform

__all__ = ["Emoji", "EmojiStyle"]

_STYLES = ("noto", "twemoji", "fluent-3d", "openmoji", "emojione-mono")
_CLASSES = (
    *("face", "hand", "mammal", "bird", "plant", "produce", "meal", "building", "vehicle"),
    "clothing",
)


class EmojiStyle(TensorDataset):
    """The emoji of one style, decoded: pairs of a picture and its class.

    ``emoji.domains["noto"].labels[0]`` is the name of the first object.

    Attributes:
        images: uint8, shape ``(N, 3, 64, 64)``.
        targets: Each picture's class, shape ``(N,)``.
        groups: Each picture's object, as its Unicode code points (``"1F415"``, ``"1F408-2B1B"``).
        labels: Each object's name in English, such as ``"dog"``.
    """

    def __init__(
        self, images: Tensor, targets: Tensor, groups: Sequence[str], labels: Sequence[str]
    ) -> None:
        """Stores the pictures.

        Args:
            images: See the attributes.
            targets: See the attributes.
            groups: See the attributes.
            labels: See the attributes.
        """
        super().__init__(images, targets)
        self.images, self.targets = images, targets
        self.groups, self.labels = groups, labels


class Emoji:
    """2,411 emoji of 64 x 64 pixels: 514 objects in 10 classes, drawn in five styles.

    The domains are the styles of five vendors: ``noto`` (Google), ``twemoji`` (Twitter),
    ``fluent-3d`` (Microsoft), ``openmoji``, and ``emojione-mono``, line drawings without
    colours, which is held out by default and is the hardest. Not every style has every object:
    they have 514, 514, 505, 514 and 364.

    The same objects are in all styles, so :class:`~gga_lightning.data.DomainDataModule` splits
    them by object (``groups``): it trains on a share of the objects, and validates and tests on
    the others.

    The drawings keep their vendors' licences, which ask for attribution: see ``NOTICE.md`` in
    ``gga_lightning/data/embedded``. Class names follow the groups of Unicode's emoji.

    Attributes:
        name: ``"emoji"``.
        domains: Style to its pictures.
        classes: ``face``, ``hand``, ``mammal``, ``bird``, ``plant``, ``produce``, ``meal``,
            ``building``, ``vehicle`` and ``clothing``.
        num_classes: 10.
        input_shape: ``(3, image_size, image_size)``.
        as_uint8: True: pictures are normalized on the device.
        train_transform: The field's augmentation, or that of evaluation.
        eval_transform: Resizes to ``image_size``.

    Example:
        >>> from gga_lightning.data import DomainDataModule, Emoji
        >>> data = DomainDataModule(Emoji(), "openmoji", holdout_fraction=0.4)
        >>> data.source_domains
        ['noto', 'twemoji', 'fluent-3d', 'emojione-mono']
    """

    name = "emoji"
    num_classes = len(_CLASSES)
    as_uint8 = True

    def __init__(
        self,
        *,
        domains: Sequence[str] | None = None,
        image_size: int = 64,
        augment: bool = True,
    ) -> None:
        """Decodes the pictures.

        Args:
            domains: The styles to use, in order; all five if None.
            image_size: Height and width of an input, in pixels; at least 1.
            augment: Whether training inputs are augmented; see
                :class:`gga_lightning.data.transforms.TrainTransform`.

        Raises:
            ValueError: If there is no such style, one is named twice, or the size is less than 1.
        """
        chosen = list(_STYLES if domains is None else domains)
        if not chosen or not set(chosen) <= set(_STYLES) or len(set(chosen)) < len(chosen):
            raise ValueError(f"`domains` must be different ones of {list(_STYLES)}, got {chosen}.")
        self.classes = list(_CLASSES)
        self.input_shape = (3, image_size, image_size)
        self.eval_transform = EvalTransform(image_size)
        self.train_transform = TrainTransform(image_size) if augment else self.eval_transform
        content = files("gga_lightning.data").joinpath("embedded", "emoji.zip").read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            table = csv.DictReader(io.TextIOWrapper(archive.open("objects.csv"), "utf-8"))
            objects = {row["code_point"]: row for row in table}
            self.domains = {style: _read(archive, style, objects) for style in chosen}


def _read(
    archive: zipfile.ZipFile, style: str, objects: Mapping[str, Mapping[str, str]]
) -> EmojiStyle:
    """Decodes the pictures of a style."""
    names = [name for name in archive.namelist() if name.startswith(f"{style}/")]
    points = [PurePosixPath(name).stem for name in names]
    return EmojiStyle(
        torch.stack([decode(archive.read(name)) for name in names]),
        torch.tensor([_CLASSES.index(objects[point]["class"]) for point in points]),
        points,
        [objects[point]["label"] for point in points],
    )
