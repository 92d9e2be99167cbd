"""Gradient-Guided Annealing for domain generalization, as Lightning callbacks."""

from gga_lightning.callbacks import (
    SWAD,
    GradientAgreementVoting,
    GradientConflictMonitor,
    GradientGuidedAnnealing,
    GradientGuidedNoise,
    RandomState,
)
from gga_lightning.proposals import Ball, Climb, Guided, Walk
from gga_lightning.search import Greedy, Metropolis

__all__ = [
    "SWAD",
    "Ball",
    "Climb",
    "GradientAgreementVoting",
    "GradientConflictMonitor",
    "GradientGuidedAnnealing",
    "GradientGuidedNoise",
    "Greedy",
    "Guided",
    "Metropolis",
    "RandomState",
    "Walk",
]
