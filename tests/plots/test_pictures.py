import numpy as np
import pytest

from gga_lightning.plots import plot_predictions


def drawn(count, **settings):
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8))
    names = ["cat", "dog"] * count
    return plot_predictions(images, names[:count], ["cat"] * count, **settings)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 24])
def test_every_picture_with_its_classes(count):
    figure = drawn(count, probabilities=np.linspace(0, 1, count))
    titles = [ax.get_title() for ax in figure.axes]
    assert len(titles) == count
    assert titles[0] == "cat 0%"
    assert all(title.endswith("\n(dog)") for title in titles[1::2])


def test_wrong_ones_have_another_colour():
    colours = [ax.title.get_color() for ax in drawn(4).axes]
    assert colours[0] == colours[2] != colours[1] == colours[3]


def test_long_names_are_shortened():
    figure = plot_predictions(np.zeros((1, 3, 4, 4)), ["a" * 40], ["b" * 40])
    assert max(map(len, figure.axes[0].get_title().split("\n"))) <= 16


def test_names_are_no_formulas(tmp_path):
    names = ["$5$", "a_$\\frac{$"]
    figure = plot_predictions(np.zeros((2, 3, 4, 4)), names, names[::-1], title="$x^$")
    figure.savefig(tmp_path / "figure.png")


@pytest.mark.parametrize(
    ("images", "names", "message"),
    [
        (np.zeros((0, 3, 4, 4)), [], "`images` must have shape"),
        (np.zeros((2, 4, 4)), ["a", "b"], "`images` must have shape"),
        (np.zeros((2, 1, 4, 4)), ["a", "b"], "`images` must have shape"),
        (np.zeros((2, 3, 4, 4)), ["a"], r"must be of 2 pictures, got \[1, 2\]"),
    ],
)
def test_wrong_shapes(images, names, message):
    with pytest.raises(ValueError, match=message):
        plot_predictions(images, names, names)
