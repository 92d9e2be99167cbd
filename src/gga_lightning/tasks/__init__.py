"""What a model predicts and how this is evaluated: a task's loss, metric and predictions."""

from gga_lightning.tasks.classification import CLASSIFICATION, Classification
from gga_lightning.tasks.multi_label import MultiLabel
from gga_lightning.tasks.predictions import (
    LabelsPrediction,
    MaskPrediction,
    Prediction,
    ValuesPrediction,
)
from gga_lightning.tasks.regression import Regression
from gga_lightning.tasks.segmentation import PixelClassifier, Segmentation
from gga_lightning.tasks.task import Task

__all__ = [
    "CLASSIFICATION",
    "Classification",
    "LabelsPrediction",
    "MaskPrediction",
    "MultiLabel",
    "PixelClassifier",
    "Prediction",
    "Regression",
    "Segmentation",
    "Task",
    "ValuesPrediction",
]
