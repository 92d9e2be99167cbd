"""Measurements of penguins of three species, embedded."""

from importlib.resources import as_file, files

from gga_lightning.data.features import Features

__all__ = ["Penguins"]


class Penguins(Features):
    """The sex of 333 penguins from four measurements, with the species as domains.

    Females are smaller than males in each species, but the species differ more. The length and
    the depth of the bill, in millimetres, the length of a flipper, in millimetres, and the mass,
    in grams, are the inputs. With Adelie held out, a linear model falls well below what it
    reaches on the other species (docs/data.md).

    The data are those of palmerpenguins (CC0): Gorman, Williams & Fraser, "Ecological Sexual
    Dimorphism and Environmental Variability within a Community of Antarctic Penguins (Genus
    Pygoscelis)", PLoS ONE 9(3), 2014. Penguins of unknown sex are left out.

    Attributes:
        name: ``"penguins"``.
        domains: ``Adelie``, ``Gentoo`` and ``Chinstrap``, each with its penguins.
        columns: The four measurements.
        classes: ``female`` and ``male``.
        num_classes: 2.
        input_shape: ``(4,)``.

    Example:
        >>> {species: len(penguins) for species, penguins in Penguins().domains.items()}
        {'Adelie': 146, 'Gentoo': 119, 'Chinstrap': 68}
    """

    def __init__(self, *, scaling: dict[str, list[float]] | None = None) -> None:
        """Reads the measurements.

        Args:
            scaling: See :class:`Features`.
        """
        with as_file(files("gga_lightning.data").joinpath("embedded", "penguins.csv")) as file:
            super().__init__(
                file,
                label="sex",
                domain="species",
                columns=["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"],
                scaling=scaling,
                name="penguins",
            )
