"""The known facts about the field's benchmark data sets, and their base class."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from gga_lightning.data.folders import ImageFolders
from gga_lightning.data.listing import Listed, list_folders

__all__ = [
    "Archive",
    "Benchmark",
    "BenchmarkFolders",
    "DatasetError",
    "Survey",
    "find_folder",
    "survey_files",
]


class DatasetError(ValueError):
    """A data set is missing, incomplete, or not as expected. The message says what to do."""


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        file: Its name. A file of this name that a user has put into the root is used.
        sources: Addresses that serve exactly this file, in the order in which they are tried.
        size: Its size in bytes, if known.
        md5: Its MD5 in hexadecimal digits, if known.
    """

    file: str
    sources: tuple[str, ...]
    size: int | None = None
    md5: str | None = None


def find_folder(unpacked: Path, contents: tuple[str, ...]) -> Path:
    """Finds the folder that holds all parts of a data set.

    Args:
        unpacked: The folder to search, with all folders below it; the uppermost match counts.
        contents: Paths that must exist in the folder.

    Returns:
        The folder.

    Raises:
        DatasetError: If there is none.
    """
    level = [unpacked]
    while level:
        for folder in level:
            if all((folder / name).exists() for name in contents):
                return folder
        level = [entry for folder in level for entry in sorted(folder.iterdir()) if entry.is_dir()]
    found = sorted(entry.name for entry in unpacked.iterdir())
    raise DatasetError(f"No folder with {', '.join(contents)} among what was unpacked: {found}.")


def _arrange_nothing(unpacked: Path, contents: tuple[str, ...]) -> Path:
    return find_folder(unpacked, contents)


@dataclass(frozen=True)
class Benchmark:
    """The facts about a benchmark data set.

    Steps, checkpoint interval and batch size are the defaults of GGA's and SWAD's code.

    Attributes:
        key: The name that users type.
        title: Its printed name.
        folder: Its folder below the users' root, as DomainBed names it.
        domains: The domains in order, each with the number of its images.
        num_classes: The number of classes.
        steps: Training steps.
        checkpoint_interval: Training steps between evaluations.
        batch_size: Samples of each source domain in a training batch.
        licence: What its authors allow.
        homepage: The page that says so, or the page of the data set.
        download_size: Bytes of all archives, rounded if not known exactly.
        archives: The files to download.
        files: Paths that a complete folder has; those of the domains if empty.
        arrange: Turns the unpacked files into the data set. Called with the folder of all
            unpacked archives and ``files``; returns the data set's folder, somewhere below.
        earlier_counts: Images of each domain in an earlier release that is still in use.
        unit: What its samples are, in the plural.
    """

    key: str
    title: str
    folder: str
    domains: Mapping[str, int]
    num_classes: int
    licence: str
    homepage: str
    download_size: int
    archives: tuple[Archive, ...]
    steps: int = 5001
    checkpoint_interval: int = 200
    batch_size: int = 32
    files: tuple[str, ...] = ()
    arrange: Callable[[Path, tuple[str, ...]], Path] = _arrange_nothing
    earlier_counts: tuple[int, ...] = ()
    unit: str = "images"

    @property
    def contents(self) -> tuple[str, ...]:
        """The paths that a complete folder has."""
        return self.files or tuple(self.domains)

    @property
    def images(self) -> int:
        """The images of all domains."""
        return sum(self.domains.values())

    def path(self, root: str | Path) -> Path:
        """Names the data set's folder.

        Args:
            root: The folder of all data sets.

        Returns:
            The folder, which need not exist.
        """
        return Path(root).expanduser() / self.folder

    def missing(self, root: str | Path) -> list[str]:
        """Lists the paths that this data set lacks.

        Args:
            root: The folder of all data sets.

        Returns:
            Paths within the data set's folder: files, or folders that do not exist or are empty.
        """
        folder = self.path(root)
        return [name for name in self.contents if not _holds_something(folder / name)]

    def require(self, root: str | Path) -> Path:
        """Finds the data set's folder.

        Args:
            root: The folder of all data sets.

        Returns:
            The folder, complete.

        Raises:
            DatasetError: If it is missing or incomplete.
        """
        missing = self.missing(root)
        if missing:
            raise DatasetError(
                f"`root` must hold {self.title} in {str(self.path(root))!r}, which lacks "
                f"{', '.join(missing)}. Get it: gga-data download {self.key} --root {root}"
            )
        return self.path(root)

    def differences(self, counts: Mapping[str, int], num_classes: int) -> list[str]:
        """Compares numbers of images and classes with the known ones.

        Args:
            counts: The images of each domain.
            num_classes: The classes of all domains.

        Returns:
            A sentence for each number that differs. Those of an earlier release do not.
        """
        found = {name: counts.get(name, 0) for name in self.domains}
        known = found if tuple(found.values()) == self.earlier_counts else self.domains
        sentences = [
            f"{name} has {found[name]:,} {self.unit}, expected {expected:,}."
            for name, expected in known.items()
            if found[name] != expected
        ]
        if num_classes != self.num_classes:
            sentences.append(f"There are {num_classes} classes, expected {self.num_classes}.")
        return sentences

    def survey(self, counts: dict[str, Counter[str]]) -> "Survey":
        """Compares what was counted with the known numbers.

        Args:
            counts: Domain to class to number of samples.

        Returns:
            The counts. Faults are the differences.
        """
        survey = Survey(counts, [])
        survey.faults += self.differences(survey.totals, len(survey.classes))
        return survey


def _holds_something(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


@dataclass
class Survey:
    """The content of a data set's folder.

    Attributes:
        counts: Domain to class to number of images.
        faults: A sentence for each problem.
        files: Domain to (path, class) of each image, where images are files.
    """

    counts: dict[str, Counter[str]]
    faults: list[str]
    files: Listed = field(default_factory=dict[str, list[tuple[str, str]]])

    @property
    def totals(self) -> dict[str, int]:
        """The images of each domain."""
        return {domain: classes.total() for domain, classes in self.counts.items()}

    @property
    def classes(self) -> list[str]:
        """The classes of all domains."""
        return sorted({label for counts in self.counts.values() for label in counts})


class BenchmarkFolders(ImageFolders):
    """A benchmark of images in folders, as :class:`gga_lightning.data.folders.ImageFolders`.

    Its constructor warns if the numbers of images or classes differ from the known ones.

    Files are read as DomainBed reads them: orientations in EXIF data are ignored, and truncated
    or damaged files are decoded as far as possible. ``gga-data check`` finds such files.

    Attributes:
        facts: The known facts about it.
    """

    facts: ClassVar[Benchmark]
    domainbed: ClassVar[bool] = True

    def __init__(self, root: str | Path, **settings: Any) -> None:
        """Lists the files.

        Args:
            root: The folder of all data sets; the images are in the benchmark's folder there.
            **settings: Those of :class:`gga_lightning.data.folders.ImageFolders`.
        """
        folder = self.facts.require(root)
        settings = {"name": self.facts.key, **settings}
        super().__init__(folder, domains=list(self.facts.domains), **settings)
        counts = {name: len(domain.targets) for name, domain in self.domains.items()}
        differences = self.facts.differences(counts, self.num_classes)
        if differences:
            warnings.warn(
                f"{folder} is not the {self.facts.title} of the papers: {' '.join(differences)} "
                f"Look closer: gga-data check {self.facts.key} --root {root}",
                stacklevel=2,
            )

    @classmethod
    def survey(cls, root: str | Path) -> Survey:
        """Lists and counts the images, without opening them.

        Args:
            root: The folder of all data sets.

        Returns:
            What was found. Faults are wrong numbers of images or classes, and files that are no
            images.
        """
        survey = survey_files(*list_folders(cls.facts.require(root), list(cls.facts.domains)))
        survey.faults += cls.facts.differences(survey.totals, len(survey.classes))
        survey.faults += [
            f"{domain} has no images of class {label}."
            for domain, counts in survey.counts.items()
            for label in survey.classes
            if not counts[label]
        ]
        return survey


def survey_files(listed: Listed, problems: list[str]) -> Survey:
    """Counts the images of a list, without opening them.

    Args:
        listed: Domain to (path, class) of each image.
        problems: What does not belong, a line each.

    Returns:
        What was found. Faults are the problems.
    """
    counts = {domain: Counter(label for _, label in pairs) for domain, pairs in listed.items()}
    return Survey(counts, problems, listed)
