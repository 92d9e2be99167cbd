"""The numbers that the GGA paper prints, to be shown beside one's own.

Source: Ballas & Diou, "Gradient-Guided Annealing for Domain Generalization", CVPR 2025, its two
result tables as pictured in the README of the official repository. Neither the model selection
rule nor the number of trials is said there, and several of the other methods' values are taken
over from earlier papers.
"""

from dataclasses import dataclass

__all__ = ["DATASETS", "NOTE", "PRINTED", "Printed"]

NOTE = (
    "Paper: Ballas & Diou, CVPR 2025, tables as pictured in the official repository's README, "
    "which does not say the model selection rule or the number of trials."
)

# our name of the data set: the paper's
DATASETS = {
    "pacs": "PACS",
    "vlcs": "VLCS",
    "office_home": "OfficeHome",
    "terra_incognita": "TerraIncognita",
    "domain_net": "DomainNet",
}


@dataclass(frozen=True)
class Printed:
    """What the paper prints for one method on one data set.

    Attributes:
        data: Our name of the data set.
        algorithm: Our name of the base algorithm.
        annealing: ``"none"``, ``"gga"`` or ``"gga_l"``.
        mean: Average accuracy over the held-out domains in percent, None where only the change
            is printed.
        error: What is printed after the mean.
        change: Change of the algorithm's average with the annealing, in points; None where only
            the mean is printed.
    """

    data: str
    algorithm: str
    annealing: str
    mean: float | None
    error: float | None
    change: float | None


# Mean and error, data sets in the order above.
_ERM = {
    "none": ((85.5, 0.2), (77.3, 0.4), (66.5, 0.3), (46.1, 1.8), (43.8, 0.3)),
    "gga": ((86.4, 0.5), (78.7, 0.8), (67.0, 0.3), (48.5, 1.1), (44.5, 0.2)),
    "gga_l": ((86.5, 0.7), (78.4, 0.9), (66.5, 0.4), (49.8, 1.8), (44.5, 0.2)),
}
# Mean and error of the algorithm alone, and the change with GGA, which is not printed for the last.
_OTHERS: dict[str, tuple[tuple[float, float, float | None], ...]] = {
    "mixstyle": (
        (85.2, 0.3, 1.4),
        (77.9, 0.5, 0.6),
        (60.4, 0.3, 0.5),
        (44.0, 0.7, 4.0),
        (34.0, 0.1, None),
    ),
    "group_dro": (
        (84.4, 0.8, 1.6),
        (76.7, 0.6, 0.2),
        (66.0, 0.7, -0.4),
        (43.2, 1.1, 5.2),
        (33.3, 0.2, None),
    ),
    "mmd": (
        (84.7, 0.5, 0.8),
        (77.5, 0.9, 0.6),
        (66.3, 0.1, 0.4),
        (42.2, 1.6, 5.1),
        (23.4, 9.5, None),
    ),
    "and_mask": (
        (84.4, 0.9, 0.1),
        (78.1, 0.9, 0.3),
        (65.6, 0.4, 1.2),
        (44.6, 0.3, -0.4),
        (37.2, 0.6, None),
    ),
    "arm": (
        (85.1, 0.4, 0.1),
        (77.6, 0.3, 0.4),
        (64.8, 0.3, 1.2),
        (45.5, 0.3, 2.4),
        (35.5, 0.2, None),
    ),
    "irm": (
        (83.5, 0.8, -1.5),
        (78.5, 0.5, -0.9),
        (64.3, 2.2, -2.1),
        (47.6, 0.8, -3.9),
        (33.9, 2.8, None),
    ),
    "mtl": (
        (84.6, 0.5, 1.8),
        (77.2, 0.4, 0.9),
        (66.4, 0.5, -0.3),
        (45.6, 1.2, 0.8),
        (40.6, 0.1, None),
    ),
    "vrex": (
        (84.9, 0.6, 0.6),
        (78.3, 0.2, -0.2),
        (66.4, 0.6, 1.5),
        (46.4, 0.6, -0.7),
        (33.6, 2.9, None),
    ),
    "mldg": (
        (84.9, 1.0, 1.2),
        (77.2, 0.4, 1.3),
        (66.8, 0.6, -0.2),
        (47.7, 0.2, 0.2),
        (41.2, 0.1, None),
    ),
    "mixup": (
        (84.6, 0.6, 1.0),
        (77.4, 0.6, 0.4),
        (68.1, 0.3, 0.1),
        (47.9, 0.8, 0.5),
        (39.2, 0.1, None),
    ),
    "sagnet": (
        (86.3, 0.2, -1.0),
        (77.8, 0.5, 0.9),
        (68.1, 0.1, 0.3),
        (48.6, 1.0, 0.7),
        (40.3, 0.1, None),
    ),
    "coral": (
        (86.2, 0.3, 0.7),
        (78.8, 0.6, -0.4),
        (68.7, 0.3, 0.2),
        (47.6, 1.0, 0.3),
        (41.5, 0.1, None),
    ),
    "rsc": (
        (85.2, 0.9, 0.1),
        (77.1, 0.5, 0.2),
        (65.5, 0.9, 0.0),
        (46.6, 1.0, 0.2),
        (38.9, 0.5, None),
    ),
    "fish": (
        (85.5, 0.3, 0.1),
        (77.8, 0.3, 0.9),
        (68.6, 0.4, -0.6),
        (45.1, 1.3, 1.8),
        (42.7, 0.2, None),
    ),
    "sam": (
        (85.8, 0.2, 0.3),
        (79.4, 0.1, 0.2),
        (69.6, 0.1, -1.0),
        (43.3, 0.7, 2.9),
        (44.3, 0.0, None),
    ),
    "gsam": (
        (85.9, 0.1, 0.6),
        (79.1, 0.2, 0.0),
        (69.3, 0.0, -0.7),
        (47.0, 0.8, -1.0),
        (44.6, 0.2, None),
    ),
    "sagm": (
        (86.6, 0.2, 0.2),
        (80.0, 0.3, 0.0),
        (70.1, 0.2, -0.6),
        (48.8, 0.9, -0.1),
        (45.0, 0.2, None),
    ),
}

PRINTED: tuple[Printed, ...] = (
    *(
        Printed(data, "erm", annealing, mean, error, None)
        for annealing, values in _ERM.items()
        for data, (mean, error) in zip(DATASETS, values, strict=True)
    ),
    *(
        printed
        for algorithm, values in _OTHERS.items()
        for data, (mean, error, change) in zip(DATASETS, values, strict=True)
        for printed in (
            Printed(data, algorithm, "none", mean, error, None),
            *([] if change is None else [Printed(data, algorithm, "gga", None, None, change)]),
        )
    ),
)
