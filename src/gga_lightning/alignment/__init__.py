"""How far gradients agree, and the search for a point where they agree more.

Plain PyTorch: everything here works on tensors and functions, without Lightning.
"""

from gga_lightning.alignment.acceptance import Acceptance, Greedy, Metropolis
from gga_lightning.alignment.ascent import agreement_ascent
from gga_lightning.alignment.evaluator import DomainEvaluator, Evaluation
from gga_lightning.alignment.gradients import (
    Conflict,
    conflict_summary,
    cosine_matrix,
    domain_gradients,
    gram_matrix,
    inner_products,
    pairwise,
)
from gga_lightning.alignment.place import Place, uniform_noise
from gga_lightning.alignment.proposals import Ball, Climb, Guided, Proposal, Walk
from gga_lightning.alignment.score import Objective, Score
from gga_lightning.alignment.search import SearchResult, annealing_search

__all__ = [
    "Acceptance",
    "Ball",
    "Climb",
    "Conflict",
    "DomainEvaluator",
    "Evaluation",
    "Greedy",
    "Guided",
    "Metropolis",
    "Objective",
    "Place",
    "Proposal",
    "Score",
    "SearchResult",
    "Walk",
    "agreement_ascent",
    "annealing_search",
    "conflict_summary",
    "cosine_matrix",
    "domain_gradients",
    "gram_matrix",
    "inner_products",
    "pairwise",
    "uniform_noise",
]
