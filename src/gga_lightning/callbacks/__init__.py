"""The callbacks: add one to a Trainer and nothing else changes."""

from gga_lightning.callbacks.annealing import GradientGuidedAnnealing, SearchRecord
from gga_lightning.callbacks.conflict import ConflictRecord, GradientConflictMonitor
from gga_lightning.callbacks.noise import GradientGuidedNoise

__all__ = [
    "ConflictRecord",
    "GradientConflictMonitor",
    "GradientGuidedAnnealing",
    "GradientGuidedNoise",
    "SearchRecord",
]
