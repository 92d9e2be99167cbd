"""RotatedMNIST and ColoredMNIST, made from MNIST's files."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import rotate

from gga_lightning.data.benchmarks.benchmark import Archive, Benchmark, DatasetError, Survey

__all__ = ["ColoredMNIST", "RotatedMNIST"]


def arrange(unpacked: Path, contents: tuple[str, ...]) -> Path:
    """Puts MNIST's files where torchvision looks for them.

    Args:
        unpacked: Holds the files.
        contents: Their paths within the data set's folder.

    Returns:
        The data set's folder.
    """
    folder = unpacked / "MNIST"
    for name in contents:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (unpacked / target.name).rename(target)
    return folder


_SIZES = (9_912_422, 28_881, 1_648_877, 4_542)
_ROTATED = Benchmark(
    key="rotated_mnist",
    title="RotatedMNIST",
    folder="MNIST",
    domains={"0": 11_667, "15": 11_667, "30": 11_667, "45": 11_667, "60": 11_666, "75": 11_666},
    num_classes=10,
    checkpoint_interval=100,
    batch_size=64,
    licence="CC BY-SA 3.0, as MNIST's is usually quoted",
    homepage="https://github.com/facebookresearch/DomainBed",
    download_size=sum(_SIZES),
    archives=tuple(
        Archive(file, tuple(mirror + file for mirror in MNIST.mirrors), size, md5)
        for (file, md5), size in zip(MNIST.resources, _SIZES, strict=True)
    ),
    files=tuple(f"raw/{Path(file).stem}" for file, _ in MNIST.resources),
    arrange=arrange,
)


class _MNIST(ABC):
    """MNIST's 70,000 images, divided among domains that change them."""

    facts: Benchmark
    input_shape: tuple[int, ...]
    _classes: Sequence[str] = tuple(map(str, range(10)))
    domains: Mapping[str, TensorDataset]

    def __init__(self, root: str | Path, *, seed: int = 0) -> None:
        """Makes the domains.

        Args:
            root: The folder of all data sets, which holds MNIST as torchvision stores it, in
                ``MNIST/raw``. DomainBed's download has the same layout.
            seed: Seed of the images' order and of all random numbers.
        """
        self.name = self.facts.key
        self.num_classes = self.facts.num_classes
        self.classes = list(self._classes)
        images, digits = _read(self.facts.require(root).parent)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(images), generator=generator)
        images, digits = images[order], digits[order]
        domains = list(self.facts.domains)
        self.domains = {
            domain: TensorDataset(
                *self._change(
                    domain, images[start :: len(domains)], digits[start :: len(domains)], generator
                )
            )
            for start, domain in enumerate(domains)
        }

    @abstractmethod
    def _change(
        self, domain: str, images: Tensor, digits: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Makes a domain's inputs and targets from its share of the images."""

    @classmethod
    def survey(cls, root: str | Path) -> Survey:
        """Reads the files and counts the images.

        Args:
            root: The folder of all data sets.

        Returns:
            What was found.
        """
        domains = cls(root).domains
        counts = {
            name: Counter(map(str, domain.tensors[1].tolist())) for name, domain in domains.items()
        }
        return cls.facts.survey(counts)


class RotatedMNIST(_MNIST):
    """MNIST rotated by 0, 15, 30, 45, 60 and 75 degrees (Ghifary et al., ICCV 2015).

    As in DomainBed, training and test images are joined, shuffled, assigned to the domains in
    turn, and rotated with bilinear interpolation. Unlike in DomainBed, the result depends on the
    seed alone, and not on random numbers that were drawn before.

    Attributes:
        facts: The known facts about it.
        name: ``"rotated_mnist"``.
        domains: Degrees to images, float32 in [0, 1], and digits.
        classes: ``"0"`` to ``"9"``.
        num_classes: 10.
        input_shape: ``(1, 28, 28)``.
    """

    facts = _ROTATED
    input_shape = (1, 28, 28)

    def _change(
        self, domain: str, images: Tensor, digits: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return rotate(images, int(domain), InterpolationMode.BILINEAR), digits


class ColoredMNIST(_MNIST):
    """MNIST in two colours that are correlated with the label (Arjovsky et al., 2019).

    The label is whether the digit is less than 5, flipped with probability 0.25. The image is
    written into the channel of the label, which is flipped again with probability 0.1 (the domain
    ``"+90%"``, where colour and label agree in 90 % of the images), 0.2 (``"+80%"``) or 0.9
    (``"-90%"``). Images are joined, shuffled, assigned and seeded as in :class:`RotatedMNIST`.

    Attributes:
        facts: The known facts about it.
        name: ``"colored_mnist"``.
        domains: Domain name to images, float32 in [0, 1], and labels.
        classes: ``"5 to 9"`` and ``"0 to 4"``: the label is 1 for digits less than 5.
        num_classes: 2.
        input_shape: ``(2, 28, 28)``.
    """

    facts = replace(
        _ROTATED,
        key="colored_mnist",
        title="ColoredMNIST",
        domains={"+90%": 23_334, "+80%": 23_333, "-90%": 23_333},
        num_classes=2,
    )
    input_shape = (2, 28, 28)
    _classes = ("5 to 9", "0 to 4")

    def _change(
        self, domain: str, images: Tensor, digits: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        flip = {"+90%": 0.1, "+80%": 0.2, "-90%": 0.9}[domain]
        labels = (digits < 5).long() ^ _coin(0.25, len(digits), generator)
        channels = labels ^ _coin(flip, len(digits), generator)
        coloured = torch.zeros(len(images), 2, *images.shape[2:])
        coloured[torch.arange(len(images)), channels] = images[:, 0]
        return coloured, labels


def _read(root: Path) -> tuple[Tensor, Tensor]:
    """Training and test images, shape (N, 1, 28, 28), in [0, 1], and their digits."""
    try:
        parts = [MNIST(root, train=train) for train in (True, False)]
    except (AssertionError, RuntimeError, ValueError) as error:
        raise DatasetError(
            f"The files in {root / 'MNIST'} cannot be read ({error}). Delete them and "
            f"download them again: gga-data download rotated_mnist --root {root}"
        ) from error
    images = torch.cat([part.data for part in parts])
    return images[:, None].float() / 255.0, torch.cat([part.targets for part in parts])


def _coin(probability: float, count: int, generator: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=generator) < probability).long()
