"""Gradient-Guided Annealing for domain generalization, as Lightning callbacks."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gga_lightning.alignment import Ball, Climb, Greedy, Guided, Metropolis, Walk
    from gga_lightning.callbacks import (
        SWAD,
        GradientAgreementVoting,
        GradientConflictMonitor,
        GradientGuidedAnnealing,
        GradientGuidedNoise,
        LinearProbe,
        RandomState,
        SimpleMovingAverage,
    )

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
    "LinearProbe",
    "Metropolis",
    "RandomState",
    "SimpleMovingAverage",
    "Walk",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is asked for: ``gga-report`` does not wait for torch."""
    if name == "__version__":
        return importlib.metadata.version("gga-lightning")
    if name in __all__:
        for package in ("alignment", "callbacks"):
            module = importlib.import_module(f"{__name__}.{package}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
