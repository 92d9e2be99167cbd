"""Data sets with several domains, and the module that splits and loads them."""

from gga_lightning.data.digits import Digits
from gga_lightning.data.emoji import Emoji
from gga_lightning.data.features import Features
from gga_lightning.data.folders import ImageFolders
from gga_lightning.data.loaders import DomainDataset
from gga_lightning.data.module import DomainDataModule
from gga_lightning.data.penguins import Penguins
from gga_lightning.data.segmentation_toy import SegmentationToy
from gga_lightning.data.table import ImageTable
from gga_lightning.data.texts import Texts
from gga_lightning.data.toy import Toy

__all__ = [
    "Digits",
    "DomainDataModule",
    "DomainDataset",
    "Emoji",
    "Features",
    "ImageFolders",
    "ImageTable",
    "Penguins",
    "SegmentationToy",
    "Texts",
    "Toy",
]
