"""Figures from plain arrays, for runs, reports and notebooks alike.

``cosines`` draws how far the domains' gradients agree, ``rows`` draws a study's rows,
``pictures`` draws images with their predictions; ``layout`` has what they share.
"""

from gga_lightning.plots.cosines import plot_cosine_matrix, plot_cosines
from gga_lightning.plots.layout import KINDS
from gga_lightning.plots.pictures import plot_predictions
from gga_lightning.plots.rows import plot_accuracies, plot_cost, plot_differences, plot_search

__all__ = [
    "KINDS",
    "plot_accuracies",
    "plot_cosine_matrix",
    "plot_cosines",
    "plot_cost",
    "plot_differences",
    "plot_predictions",
    "plot_search",
]
