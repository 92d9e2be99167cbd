import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from gga_lightning.plots import (
    KINDS,
    plot_accuracies,
    plot_cosine_matrix,
    plot_cosines,
    plot_cost,
    plot_differences,
    plot_search,
)


def cosines(times, domains):
    values = np.random.default_rng(0).uniform(-1, 1, (times, domains, domains))
    return (values + values.transpose(0, 2, 1)) / 2


@pytest.mark.parametrize(("domains", "lines"), [(2, 1), (3, 4), (6, 16)])
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


def test_a_mark_and_an_interval_a_row():
    kinds = ["method", "control", "plain"]
    values = np.array([[1.0, -1.0], [0.5, np.nan], [2.0, 0.0]])
    ends = np.stack([values - 0.25, values + 0.5], axis=-1)
    ends[2, 1] = np.nan
    figure = plot_differences(["gga", "shuffled", "erm (x=1)"], kinds, values, ends, ["a", "b"])
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["gga", "shuffled", "erm (x=1)"]
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"]
    marks = [[bar.lines[0] for bar in ax.containers] for ax in (left, right)]
    assert [[line.get_xdata()[0] for line in lines] for lines in marks] == [[1, 0.5, 2], [-1, 0]]
    assert [line.get_marker() for line in marks[0]] == [KINDS[kind][1] for kind in kinds]
    assert len({line.get_color() for line in marks[0]}) == 3
    segments = [bar.lines[2][0].get_segments()[0][:, 0] for bar in left.containers]
    assert segments == [pytest.approx([v - 0.25, v + 0.5]) for v in (1.0, 0.5, 2.0)]
    assert right.containers[1].has_xerr is False
    assert [text.get_text() for text in figure.legends[0].texts] == kinds


def test_accuracies_by_domain():
    means = [[60.0, 70.0], [65.0, np.nan]]
    figure = plot_accuracies(["erm", "gga"], ["baseline", "method"], ["a", "Avg"], means, means)
    drawn = [[bar.lines[0].get_xdata()[0] for bar in ax.containers] for ax in figure.axes]
    assert drawn == [[60, 65], [70]]


def test_gains_with_what_is_left_of_them():
    figure = plot_search(["gga", "guided"], [0.002, 0.1], [np.nan, 0.05])
    [ax] = figure.axes
    assert [t.get_text() for t in ax.texts] == ["+0.002", "+0.1, next +0.05"]
    own, moved = (points.get_offsets()[:, 0].tolist() for points in ax.collections[1:])
    assert (own, moved) == ([0.002, 0.1], [0.05])


def test_the_searchs_share_of_the_time():
    figure = plot_cost(["erm", "gga", "guided"], [100.0, 1200.0, 101.0], [0.0, 900.0, 0.5])
    texts = [text.get_text().strip() for text in figure.axes[0].texts]
    assert texts == ["100 s", "1,200 s, 75% search", "101 s, < 1% search"]
    widths = [bar.get_width() for bar in figure.axes[0].patches if bar.get_height() == 0.62]
    assert widths == [100, 300, 100.5, 0, 900, 0.5]


@pytest.mark.parametrize("rows", [1, 25])
def test_nothing_is_cut_off(rows, tmp_path):
    names = [f"algorithm + annealing (setting={i})" for i in range(rows)]
    values = np.linspace(-1, 1, rows)[:, None]
    ends = np.stack([values - 1, values + 1], axis=-1)
    for figure in (
        plot_differences(names, ["method"] * rows, values, ends, ["data"]),
        plot_search(names, values[:, 0], values[:, 0]),
        plot_cost(names, values[:, 0] + 2, values[:, 0] + 1),
    ):
        figure.savefig(tmp_path / "figure.png")
        for label in figure.axes[0].get_yticklabels():
            box = label.get_window_extent()
            assert box.x0 >= 0
            assert 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_wrong_rows():
    with pytest.raises(ValueError, match=r"`differences` must have shape \(1, 2\), got \(1,\)"):
        plot_differences(["a"], ["method"], [0.0], [[0.0, 1.0]], ["x", "y"])
    with pytest.raises(ValueError, match="`kinds` must be of method, .*, got 'odd'"):
        plot_accuracies(["a"], ["odd"], ["x"], [[1.0]], [[1.0]])
    with pytest.raises(ValueError, match=r"`transfers` must have shape \(1,\), got \(2,\)"):
        plot_search(["a"], [1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"`seconds` must have shape \(1,\), got \(0,\)"):
        plot_cost(["a"], [], [0.0])
