"""Base algorithms: LightningModules that learn from batches of domains. One algorithm a file."""

from gga_lightning.algorithms.base import DomainGeneralizer, pool
from gga_lightning.algorithms.erm import ERM

__all__ = ["ERM", "DomainGeneralizer", "pool"]
