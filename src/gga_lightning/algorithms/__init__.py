"""Base algorithms: LightningModules that learn from batches of domains. One algorithm a file."""

from gga_lightning.algorithms.base import DomainGeneralizer, pool
from gga_lightning.algorithms.coral import CORAL
from gga_lightning.algorithms.cutmix import CutMix
from gga_lightning.algorithms.erm import ERM
from gga_lightning.algorithms.group_dro import GroupDRO
from gga_lightning.algorithms.iga import IGA
from gga_lightning.algorithms.irm import IRM
from gga_lightning.algorithms.mixup import Mixup
from gga_lightning.algorithms.mmd import MMD
from gga_lightning.algorithms.spectral_decoupling import SpectralDecoupling
from gga_lightning.algorithms.vrex import VREx

__all__ = [
    "CORAL",
    "ERM",
    "IGA",
    "IRM",
    "MMD",
    "CutMix",
    "DomainGeneralizer",
    "GroupDRO",
    "Mixup",
    "SpectralDecoupling",
    "VREx",
    "pool",
]
