"""A feature map's style: its mean and standard deviation, as MixStyle and SagNet define it."""

import torch
from torch import Tensor

__all__ = ["style"]


def style(features: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Computes each sample's style.

    Args:
        features: Feature maps, shape ``(N, C, ...)``; or feature vectors, shape ``(N, F)``, which
            count as the positions of a single channel.
        epsilon: Added to the variance.

    Returns:
        Mean and standard deviation over the positions, of shapes that broadcast to the features.
    """
    positions = tuple(range(2, features.ndim)) or (1,)
    count = torch.Size(features.shape[place] for place in positions).numel()
    variance, mean = torch.var_mean(features, positions, correction=min(1, count - 1), keepdim=True)
    return mean, (variance + epsilon).sqrt()
