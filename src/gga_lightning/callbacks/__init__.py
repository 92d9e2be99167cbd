"""The callbacks: add one to a Trainer and nothing else changes."""

from gga_lightning.callbacks.annealing import GradientGuidedAnnealing, SearchRecord
from gga_lightning.callbacks.conflict import ConflictRecord, GradientConflictMonitor
from gga_lightning.callbacks.linear_probe import LinearProbe
from gga_lightning.callbacks.moving_average import SimpleMovingAverage
from gga_lightning.callbacks.noise import GradientGuidedNoise
from gga_lightning.callbacks.random_state import RandomState
from gga_lightning.callbacks.swad import SWAD
from gga_lightning.callbacks.voting import GradientAgreementVoting, VoteRecord

__all__ = [
    "SWAD",
    "ConflictRecord",
    "GradientAgreementVoting",
    "GradientConflictMonitor",
    "GradientGuidedAnnealing",
    "GradientGuidedNoise",
    "LinearProbe",
    "RandomState",
    "SearchRecord",
    "SimpleMovingAverage",
    "VoteRecord",
]
