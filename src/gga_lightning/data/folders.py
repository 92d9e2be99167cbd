"""Data sets of users' own image files, in folders or in a list."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from gga_lightning.data.cache import DecodedCache
from gga_lightning.data.decoding import decode
from gga_lightning.data.faulty import Faulty, check_faulty, report_problems
from gga_lightning.data.listing import Listed, examine, list_folders
from gga_lightning.data.names import file_name
from gga_lightning.data.splits import GroupPattern
from gga_lightning.data.transforms import (
    ColourTransform,
    CropTransform,
    EvalTransform,
    TrainTransform,
    to_float,
)

__all__ = ["DomainImages", "ImageFolders", "ListedImages"]


class DomainImages(Dataset[tuple[Tensor, int]]):
    """The images of a domain, which are decoded on access.

    Attributes:
        targets: Each image's class.
        groups: Each image's group, such as the object or patient that it shows; None without.
    """

    def __init__(
        self,
        paths: Sequence[str],
        targets: Sequence[int],
        *,
        groups: Sequence[str] | None = None,
        domainbed: bool = False,
    ) -> None:
        """Stores the list of the files.

        Args:
            paths: The files.
            targets: Their classes' indices.
            groups: Their groups.
            domainbed: As in :func:`gga_lightning.data.decoding.decode`.
        """
        # one array, which worker processes share; each of them would copy a list of objects
        self._paths = np.array([os.fsencode(path) for path in paths])
        self.targets = np.array(targets, dtype=np.int64)
        self.groups = None if groups is None else np.array(groups)
        self._domainbed = domainbed
        self._cache: DecodedCache | None = None

    def __len__(self) -> int:
        """The number of images."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Decodes an image.

        Args:
            index: Its place.

        Returns:
            The image, uint8, shape ``(3, height, width)``, and its class.

        Raises:
            ValueError: If the file cannot be decoded, see
                :func:`gga_lightning.data.decoding.decode`.
        """
        if self._cache is not None:
            image = self._cache[index]
        else:
            image = decode(self.path(index), domainbed=self._domainbed)
        return image, int(self.targets[index])

    def path(self, index: int) -> Path:
        """Finds an image's file.

        Args:
            index: The image's place.

        Returns:
            The file.
        """
        return Path(os.fsdecode(self._paths[index]))

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [self.path(index) for index in range(len(self))]

    def use_cache(self, cache: DecodedCache) -> None:
        """Reads images from a cache of decoded ones.

        Args:
            cache: Of exactly these files.
        """
        self._cache = cache


class ListedImages:
    """The base class of data sets of image files, listed by folders or by a table.

    Example:
        >>> from gga_lightning.data import ImageTable
        >>> issubclass(ImageFolders, ListedImages), issubclass(ImageTable, ListedImages)
        (True, True)
    """

    name: str
    domains: Mapping[str, DomainImages]
    classes: list[str]
    domainbed: ClassVar[bool] = False  # whether files are read as DomainBed reads them

    def __init__(
        self,
        listed: Listed,
        problems: list[str],
        *,
        source: str | Path,
        name: str,
        group_of: Callable[[str], str] | None = None,
        image_size: int = 224,
        faulty: Faulty = "stop",
        as_uint8: bool = False,
        augment: bool = True,
        device_colours: bool = False,
        cache: str | Path | None = None,
    ) -> None:
        """Makes the domains from a subclass's list, with the arguments of :class:`ImageFolders`."""
        check_faulty(faulty)
        if image_size < 1:
            raise ValueError(f"`image_size` must be at least 1, got {image_size}.")
        if device_colours and not (as_uint8 and augment):
            raise ValueError(
                "`device_colours` needs `as_uint8=True` and `augment=True`, "
                f"got {as_uint8} and {augment}."
            )
        files = listed
        if faulty == "leave_out":
            files = _leave_out_unreadable(files, problems, self.domainbed)
        report_problems(source, problems, faulty)
        self.name = name
        self.classes = sorted({label for pairs in files.values() for _, label in pairs})
        places = {label: place for place, label in enumerate(self.classes)}
        self.domains = {
            domain: DomainImages(
                [path for path, _ in pairs],
                [places[label] for _, label in pairs],
                groups=None if group_of is None else [group_of(path) for path, _ in pairs],
                domainbed=self.domainbed,
            )
            for domain, pairs in files.items()
        }
        self.num_classes = len(self.classes)
        self.input_shape = (3, image_size, image_size)
        self.as_uint8 = as_uint8
        last = None if as_uint8 else to_float
        evaluation = EvalTransform(image_size)
        training = TrainTransform if not device_colours else CropTransform
        self.train_transform = _Then(training(image_size) if augment else evaluation, last)
        self.device_transform = ColourTransform() if device_colours else None
        self.eval_transform = _Then(evaluation, last)
        if cache is not None:
            for domain, images in self.domains.items():
                file = Path(cache).expanduser() / _cache_name(source, name, domain)
                images.use_cache(DecodedCache.build(images.paths, file, domainbed=self.domainbed))


class ImageFolders(ListedImages):
    """Images in folders, ``root/domain/class/image``, such as the field's benchmarks.

    Classes are the union over the domains, in alphabetical order: a domain that lacks some keeps
    the others' indices. Within a domain, images are sorted by class and path as in DomainBed, so
    that the splits equal DomainBed's. Names of classes and domains are plain
    (:func:`gga_lightning.data.names.plain_name`): folders whose names differ only in spaces or in
    their Unicode form are one class.

    What does not belong (hidden folders, folders without images, files that are no images, links
    to folders above, classes that differ only in upper and lower case) is reported by name. With
    ``faulty="leave_out"`` all images are opened once, and those that cannot be read or are
    damaged are left out too. Orientations in EXIF data are applied.

    Attributes:
        name: The data set's name in results.
        domains: Domain name to its images.
        classes: The classes' names.
        num_classes: The number of classes.
        input_shape: ``(3, image_size, image_size)``.
        train_transform: Turns a decoded image into a training input.
        eval_transform: The same for evaluation.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as root:
        ...     for place in ("photo/cat", "photo/dog", "sketch/cat"):
        ...         (Path(root) / place).mkdir(parents=True)
        ...         Image.new("RGB", (8, 8)).save(Path(root) / place / "1.png")
        ...     pets = ImageFolders(root)
        >>> pets.classes, {name: len(images) for name, images in pets.domains.items()}
        (['cat', 'dog'], {'photo': 2, 'sketch': 1})
    """

    def __init__(
        self,
        root: str | Path,
        *,
        domains: Sequence[str] | None = None,
        name: str | None = None,
        group: str | None = None,
        image_size: int = 224,
        faulty: Faulty = "stop",
        as_uint8: bool = False,
        augment: bool = True,
        device_colours: bool = False,
        cache: str | Path | None = None,
    ) -> None:
        """Lists the files.

        Args:
            root: The folder of the domains' folders.
            domains: The domains' names, in order; all of them, sorted, if None.
            name: The data set's name; the root's name if None.
            group: A regular expression that finds in each file's name which object, patient or
                scene the image shows, so that :class:`DomainDataModule` splits by these: its
                first parenthesis, such as ``"(.+)_"`` for ``dog17_left.jpg``, or without one all
                that it matches. It must match each name from its start.
            image_size: Height and width of an input.
            faulty: What to do where something does not belong or cannot be read: ``"stop"`` with
                an error, or ``"leave_out"`` with a warning.
            as_uint8: Whether inputs are integers from 0 to 255 instead of normalized floats. They
                need a quarter of the memory, and :class:`DomainDataModule` normalizes them on the
                device.
            augment: Whether training inputs are augmented; see
                :class:`gga_lightning.data.transforms.TrainTransform`.
            device_colours: Whether colours are augmented a batch at a time on the device, where
                that is a GPU with time to spare; the workers then only crop and flip.
            cache: A folder for the decoded images, which are then read from there.

        Raises:
            ValueError: If an argument is out of range, a folder is missing, ``group`` does not
                match a file's name, or with ``faulty="stop"`` something does not belong.
        """
        root = Path(root).expanduser()
        listed, problems = list_folders(root, domains)
        empty = [domain for domain, pairs in listed.items() if not pairs]
        if empty or not listed:
            reasons = "".join(f"; {problem}" for problem in problems[:3])
            raise ValueError(
                f"`root` must hold domain{os.sep}class{os.sep}image, got no images in "
                f"{', '.join(map(repr, empty)) or repr(str(root))}{reasons}."
            )
        super().__init__(
            listed,
            problems,
            source=root,
            name=root.name if name is None else name,
            group_of=None if group is None else GroupPattern(group),
            image_size=image_size,
            faulty=faulty,
            as_uint8=as_uint8,
            augment=augment,
            device_colours=device_colours,
            cache=cache,
        )


def _cache_name(source: str | Path, name: str, domain: str) -> str:
    """A file's name that data of the same name in another place do not have."""
    identity = repr((os.path.abspath(source), name, domain)).encode()
    spare = 38 * "."  # bytes that the cache appends while it builds the file
    ending = f"-{hashlib.sha256(identity).hexdigest()[:8]}.images"
    return file_name(f"{name}-{domain}", ending + spare).removesuffix(spare)


class _Then:
    """Applies functions one after the other. It is a class because workers must unpickle it."""

    def __init__(
        self, first: Callable[[Tensor], Tensor], last: Callable[[Tensor], Tensor] | None
    ) -> None:
        self.first, self.last = first, last

    def __call__(self, image: Tensor) -> Tensor:
        image = self.first(image)
        return image if self.last is None else self.last(image)


def _leave_out_unreadable(files: Listed, problems: list[str], domainbed: bool) -> Listed:
    found: Listed = {}
    for domain, pairs in files.items():
        found[domain] = []
        examined = examine([path for path, _ in pairs], domainbed=domainbed)
        for pair, (digest, problem) in zip(pairs, examined, strict=True):
            if problem is None or (domainbed and digest is not None):
                found[domain].append(pair)
            else:
                problems.append(problem)
    return found
