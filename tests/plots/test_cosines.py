import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from gga_lightning.plots import plot_cosine_matrix, plot_cosines


def cosines(times, domains):
    values = np.random.default_rng(0).uniform(-1, 1, (times, domains, domains))
    return (values + values.transpose(0, 2, 1)) / 2


@pytest.mark.parametrize(("domains", "lines"), [(2, 1), (3, 4), (4, 7), (6, 2)])
def test_a_line_a_pair_and_their_minimum(domains, lines, tmp_path):
    names = [f"domain {i}" for i in range(domains)]
    values = cosines(10, domains)
    figure = plot_cosines(range(0, 100, 10), values, names, window=(20, 40))
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 10]
    assert len(drawn) == lines
    if domains > 2:
        lowest = drawn[-1].get_ydata()
        upper = np.triu_indices(domains, 1)
        assert lowest == pytest.approx(values[:, upper[0], upper[1]].min(1))
    figure.savefig(tmp_path / "cosines.png")
    assert (tmp_path / "cosines.png").stat().st_size > 5000


def test_matrix_shows_its_numbers(tmp_path):
    figure = plot_cosine_matrix([[1.0, -0.25], [-0.25, 1.0]], ["art", "photo"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["1.00", "-0.25", "-0.25", "1.00"]
    figure.savefig(tmp_path / "matrix.png")


def test_drawing_into_given_axes():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot_cosines([0], cosines(1, 3), "abc", ax=left) is figure
    assert plot_cosine_matrix(cosines(1, 3)[0], "abc", ax=right) is figure


def test_leaves_no_figure_open():
    pyplot = mpl.pyplot if hasattr(mpl, "pyplot") else None
    before = pyplot.get_fignums() if pyplot else []
    plot_cosines([0], cosines(1, 3), "abc")
    assert (pyplot.get_fignums() if pyplot else []) == before


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 3\), one matrix a step, got \(1, 3, 3\)"):
        plot_cosines([0, 1], cosines(1, 3), "abc")
    with pytest.raises(ValueError, match=r"shape \(2, 2\), got \(3, 3\)"):
        plot_cosine_matrix(cosines(1, 3)[0], "ab")


def test_many_pairs_are_a_range_and_their_mean():
    values = cosines(10, 5)
    figure = plot_cosines(range(10), values, "abcde")
    [ax] = figure.axes
    upper = np.triu_indices(5, 1)
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert lines["mean"] == pytest.approx(values[:, upper[0], upper[1]].mean(1))
    assert ax.get_legend().texts[0].get_text() == "range of 10 pairs"


@pytest.mark.parametrize("domains", ["ab", "abc", "abcde"])
def test_what_the_search_did(domains, tmp_path):
    search = [(100, -0.2, -0.1995), (101, -0.3, -0.3), (102, -0.1, -0.1002)]
    values = cosines(10, len(domains))
    steps = range(0, 200, 20)
    figure = plot_cosines(steps, values, domains, window=(100, 103), search=search)
    top, bottom = figure.axes
    [bars] = [found for found in bottom.collections if len(found.get_segments()) == 3]
    changes = [segment[1, 1] - segment[0, 1] for segment in bars.get_segments()]
    assert changes == pytest.approx([0.0005, 0.0, -0.0002])
    assert "-0.2000 to -0.1999, a change of +0.0001, mean over 3 steps" in bottom.get_title("left")
    assert top.get_xlim() == bottom.get_xlim()
    assert bottom.get_xlabel() == "optimizer step"
    figure.savefig(tmp_path / "cosines.png")


def test_a_search_that_searched_nothing_has_no_panel():
    assert len(plot_cosines([0], cosines(1, 3), "abc", search=[]).axes) == 1


def test_a_search_needs_a_new_figure_and_its_shape():
    with pytest.raises(ValueError, match="`search` must be None where `ax` is given"):
        plot_cosines([0], cosines(1, 3), "abc", search=[(0, 0, 0)], ax=Figure().subplots())
    for wrong in ([(0, 1)], [1.0, 2.0, 3.0], [[[0, 0, 0]]]):
        with pytest.raises(ValueError, match=r"`search` must have shape \(S, 3\).*got \("):
            plot_cosines([0], cosines(1, 3), "abc", search=wrong)
