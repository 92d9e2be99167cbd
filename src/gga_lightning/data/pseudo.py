"""Pseudo-domains: training images grouped by their style, where there are too few domains."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from gga_lightning.data.batches import Transformed

__all__ = ["check_count", "split_by_style", "style_clusters", "style_of"]


def style_of(images: Tensor) -> Tensor:
    """Describes each image's style by the mean and the standard deviation of each channel.

    Args:
        images: Integers or floats of shape ``(N, C, H, W)``.

    Returns:
        C means and C standard deviations, float64 of shape ``(N, 2 C)``.

    Example:
        >>> style_of(torch.tensor([[[[0, 4], [4, 0]]]])).tolist()
        [[2.0, 2.0]]
    """
    pixels = images.flatten(2).double()
    return torch.cat([pixels.mean(2), pixels.std(2, correction=0)], 1)


def style_clusters(styles: Tensor, count: int, seed: int) -> Tensor:
    """Groups samples by style, by k-means on standardized statistics.

    Source: the pseudo-domains of Matsuura & Harada, AAAI 2020, arXiv 1911.07661. They cluster
    statistics of a network's feature maps, again in each epoch. Here the statistics are those of
    the pixels, and samples are clustered once.

    Args:
        styles: A row of statistics for each sample, shape ``(N, S)``; see :func:`style_of`.
        count: The number of clusters, at least 2.
        seed: Seed of the starting points. Of ten starts, the best result is kept.

    Returns:
        The number of each sample's cluster, shape ``(N,)``. Cluster 0 is the largest.

    Example:
        >>> style_clusters(torch.tensor([[9.0], [0.0], [0.1], [0.2]]), 2, seed=0).tolist()
        [1, 0, 0, 0]
    """
    from sklearn.cluster import KMeans  # slow to import

    scale = styles.std(0, correction=0)
    points = (styles - styles.mean(0)) / torch.where(scale > 0, scale, 1.0)
    # its type says that `n_init` is a string
    means = KMeans(count, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
    labels = means.fit_predict(points.numpy())
    found = torch.from_numpy(labels).long()
    return found.bincount(minlength=count).argsort(descending=True, stable=True).argsort()[found]


def split_by_style(
    samples: Dataset[Any],
    count: int,
    *,
    transform: Callable[[Any], Tensor] | None,
    num_workers: int,
    batch_size: int,
    seed: int,
) -> dict[str, Subset[Any]]:
    """Splits samples into pseudo-domains, after reading all of them once.

    Args:
        samples: The samples, each a tuple that begins with an image.
        count: The number of pseudo-domains, at least 2.
        transform: Makes images of one size, without drawing random numbers; None for none.
        num_workers: Worker processes.
        batch_size: The smallest number of samples of a pseudo-domain.
        seed: See :func:`style_clusters`.

    Returns:
        ``cluster-0``, ``cluster-1`` and so on, with their samples.

    Raises:
        ValueError: If a pseudo-domain has too few samples.
    """
    loader = DataLoader(
        Transformed(samples, transform),
        batch_size=64,
        num_workers=num_workers,
        generator=torch.Generator(),  # the global one stays as it was
    )
    styles = torch.cat([style_of(images) for images, *_ in loader])
    clusters = style_clusters(styles, count, seed).numpy()
    sizes = np.bincount(clusters, minlength=count).tolist()
    if sizes[-1] < batch_size:
        raise ValueError(
            f"`pseudo_domains={count}` gives clusters of {sizes} images, each of which must have "
            f"at least `batch_size={batch_size}`. Lower one of the two."
        )
    rows: list[Any] = [np.flatnonzero(clusters == number) for number in range(count)]
    return {f"cluster-{number}": Subset(samples, own) for number, own in enumerate(rows)}


def check_count(count: Any, input_shape: tuple[int, ...]) -> int:
    """Returns the number of pseudo-domains, 0 for none; raises a ValueError if it is not one."""
    whole = isinstance(count, int) and not isinstance(count, bool) and count > 1
    if count and not (whole and len(input_shape) == 3):
        raise ValueError(
            "`pseudo_domains` must be None, 0, or for images an integer of at least 2, got "
            f"{count!r} for inputs of shape {input_shape}."
        )
    return count or 0
