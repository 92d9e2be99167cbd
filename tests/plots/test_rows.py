import numpy as np
import pytest

from gga_lightning.plots import (
    KINDS,
    plot_accuracies,
    plot_cost,
    plot_differences,
    plot_search,
)


def test_a_mark_and_an_interval_a_row():
    kinds = ["method", "control", "plain"]
    values = np.array([[1.0, -1.0], [0.5, np.nan], [2.0, 0.0]])
    ends = np.stack([values - 0.25, values + 0.5], axis=-1)
    ends[2, 1] = np.nan
    figure = plot_differences(["gga", "shuffled", "erm (x=1)"], kinds, values, ends, ["a", "b"])
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["gga", "shuffled", "erm (x=1)"]
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"]
    assert left.get_xlim() == right.get_xlim()
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


@pytest.mark.parametrize("end", [50.0, 500.0, 9.0])
def test_a_long_interval_does_not_set_the_scale(end):
    """As that of two pairs; it ends in arrows."""
    ends = [[[-end, end]], [[0.5, 2.0]]]
    figure = plot_differences(["a", "b"], ["method"] * 2, [[1.0], [2.0]], ends, ["x"])
    low, high = figure.axes[0].get_xlim()
    assert -7 < low < 0 < high < 8
    arrows = [line for line in figure.axes[0].lines if line.get_marker() in "<>"]
    assert [line.get_xdata()[0] for line in arrows] == [low, high]


def test_notes_and_single_values():
    samples = [[(0.5, 1.5), ()], [tuple(range(11)), (1.0,)]]
    notes = [["n = 2", ""], ["", "n = 1, seed 3"]]
    values, ends = np.ones((2, 2)), np.full((2, 2, 2), np.nan)
    figure = plot_differences(
        ["a", "b"], ["method"] * 2, values, ends, ["x", "y"], samples=samples, notes=notes
    )
    dots = [line for ax in figure.axes for line in ax.lines if line.get_marker() == "."]
    assert [list(line.get_xdata()) for line in dots] == [[0.5, 1.5]]
    written = [[t.get_text() for t in ax.texts if t.get_text()] for ax in figure.axes]
    assert written == [["n = 2"], ["n = 1, seed 3"]]


@pytest.mark.parametrize("name", ["a$b$c", "$\\frac", "a_b^c", "x" * 90])
def test_any_name_is_drawn(name, tmp_path):
    for figure in (
        plot_accuracies([name], ["method"], [name], [[1.0]], [[0.1]], title=name),
        plot_search([name], [0.1], [0.2], title=name),
        plot_cost([name], [2.0], [1.0], title=name),
    ):
        figure.savefig(tmp_path / "figure.png")
