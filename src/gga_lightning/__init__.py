"""Gradient-Guided Annealing for domain generalization, as Lightning callbacks."""

from gga_lightning.callbacks import (
    GradientConflictMonitor,
    GradientGuidedAnnealing,
    GradientGuidedNoise,
)
from gga_lightning.proposals import Ball, Walk
from gga_lightning.search import Greedy

__all__ = [
    "Ball",
    "GradientConflictMonitor",
    "GradientGuidedAnnealing",
    "GradientGuidedNoise",
    "Greedy",
    "Walk",
]
