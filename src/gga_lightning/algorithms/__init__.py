"""Base algorithms: LightningModules that learn from batches of domains, one per module."""

from gga_lightning.algorithms.agr_rand import AgrRand
from gga_lightning.algorithms.agr_sum import AgrSum
from gga_lightning.algorithms.and_mask import ANDMask
from gga_lightning.algorithms.arith import Arith
from gga_lightning.algorithms.arm import ARM
from gga_lightning.algorithms.base import DomainGeneralizer, pool
from gga_lightning.algorithms.cad import CAD
from gga_lightning.algorithms.causirl_coral import CausIRLCORAL
from gga_lightning.algorithms.causirl_mmd import CausIRLMMD
from gga_lightning.algorithms.cdann import CDANN
from gga_lightning.algorithms.cond_cad import CondCAD
from gga_lightning.algorithms.coral import CORAL
from gga_lightning.algorithms.cutmix import CutMix
from gga_lightning.algorithms.dann import DANN
from gga_lightning.algorithms.eqrm import EQRM
from gga_lightning.algorithms.erm import ERM
from gga_lightning.algorithms.fish import Fish
from gga_lightning.algorithms.fishr import Fishr
from gga_lightning.algorithms.genie import GENIE
from gga_lightning.algorithms.group_dro import GroupDRO
from gga_lightning.algorithms.gsam import GSAM
from gga_lightning.algorithms.ib_erm import IBERM
from gga_lightning.algorithms.ib_irm import IBIRM
from gga_lightning.algorithms.iga import IGA
from gga_lightning.algorithms.irm import IRM
from gga_lightning.algorithms.jacobian_descent import JacobianDescent
from gga_lightning.algorithms.miro import MIRO
from gga_lightning.algorithms.mixstyle import MixStyle
from gga_lightning.algorithms.mixup import Mixup
from gga_lightning.algorithms.mldg import MLDG
from gga_lightning.algorithms.mmd import MMD
from gga_lightning.algorithms.mtl import MTL
from gga_lightning.algorithms.pgrad import PGrad
from gga_lightning.algorithms.rdm import RDM
from gga_lightning.algorithms.rsc import RSC
from gga_lightning.algorithms.sagm import SAGM
from gga_lightning.algorithms.sagnet import SagNet
from gga_lightning.algorithms.sam import SAM
from gga_lightning.algorithms.sand_mask import SANDMask
from gga_lightning.algorithms.selfreg import SelfReg
from gga_lightning.algorithms.spectral_decoupling import SpectralDecoupling
from gga_lightning.algorithms.transfer import Transfer
from gga_lightning.algorithms.urm import URM
from gga_lightning.algorithms.vrex import VREx

__all__ = [
    "ARM",
    "CAD",
    "CDANN",
    "CORAL",
    "DANN",
    "EQRM",
    "ERM",
    "GENIE",
    "GSAM",
    "IBERM",
    "IBIRM",
    "IGA",
    "IRM",
    "MIRO",
    "MLDG",
    "MMD",
    "MTL",
    "RDM",
    "RSC",
    "SAGM",
    "SAM",
    "URM",
    "ANDMask",
    "AgrRand",
    "AgrSum",
    "Arith",
    "CausIRLCORAL",
    "CausIRLMMD",
    "CondCAD",
    "CutMix",
    "DomainGeneralizer",
    "Fish",
    "Fishr",
    "GroupDRO",
    "JacobianDescent",
    "MixStyle",
    "Mixup",
    "PGrad",
    "SANDMask",
    "SagNet",
    "SelfReg",
    "SpectralDecoupling",
    "Transfer",
    "VREx",
    "pool",
]
