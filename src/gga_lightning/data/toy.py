"""Points in the plane, with domains that are shifted along the axis without class information."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import TensorDataset

__all__ = ["Toy"]


class Toy:
    """Three domains of points in the plane.

    The first coordinate tells the class, N(-0.6, 0.3) or N(0.6, 0.3) (mean, standard deviation).
    The second one tells the domain, N(mu, 0.2) with mu 0 in ``centre``, ``gap`` in ``right`` and
    ``-gap`` in ``left``. The setting is that of the GGA paper's Figure 1.

    For regression, the target of the same points is a number y with x the first coordinate::

        y = sin(2 x) + N(0, 0.1)

    Attributes:
        name: ``"toy"``.
        domains: Domain name to its points: inputs of shape ``(2,)``, targets 0 or 1, or y.
        classes: ``"negative"`` and ``"positive"``, after the first coordinate's mean; ``"y"``
            for regression.
        num_classes: 2; 1 for regression.
        input_shape: ``(2,)``.

    Example:
        >>> toy = Toy(gap=3.0)
        >>> {name: len(points) for name, points in toy.domains.items()}
        {'centre': 250, 'right': 250, 'left': 1250}
    """

    name = "toy"
    input_shape = (2,)

    def __init__(
        self,
        gap: float = 2.0,
        *,
        points: Sequence[int] = (250, 250, 1250),
        seed: int = 0,
        task: str = "classification",
    ) -> None:
        """Draws the points.

        Args:
            gap: Distance between the domains' means.
            points: The numbers of points of the three domains. The last one, which is held out by
                default, has the most, so that the test accuracy varies less.
            seed: Seed of the draws.
            task: The targets: ``"classification"`` or ``"regression"``.

        Raises:
            ValueError: If ``points`` are not three positive numbers, or there are no targets for
                such a task.
        """
        if len(points) != 3 or min(points) < 1:
            raise ValueError(f"`points` must be three positive numbers, got {list(points)}.")
        if task not in ("classification", "regression"):
            raise ValueError(f"`task` must be 'classification' or 'regression', got {task!r}.")
        self.classes = ["negative", "positive"] if task == "classification" else ["y"]
        self.num_classes = len(self.classes)
        random = np.random.default_rng(seed)
        noise = np.random.default_rng([seed, 1])  # of its own: the points are the same
        shifts = {"centre": 0.0, "right": gap, "left": -gap}
        self.domains: dict[str, TensorDataset] = {}
        for (name, shift), count in zip(shifts.items(), points, strict=True):
            targets = random.integers(0, 2, count)
            first = random.normal(np.where(targets == 1, 0.6, -0.6), 0.3)
            second = random.normal(shift, 0.2, count)
            if task == "regression":
                targets = (np.sin(2 * first) + noise.normal(0, 0.1, count)).astype(np.float32)
            inputs = np.stack([first, second], axis=1).astype(np.float32)
            self.domains[name] = TensorDataset(torch.from_numpy(inputs), torch.from_numpy(targets))
