import pytest

from gga_lightning.report.figures import _cosines, _read_cosines
from gga_lightning.report.methods import group_methods
from gga_lightning.report.runs import read_runs
from tests.report.folders import Spec, leave_one_out_specs, search_summary, write_run


@pytest.fixture
def runs(tmp_path):
    for settings in ({}, {"annealing": "gga", "search": search_summary(transfer=0.002)}):
        for spec in leave_one_out_specs(pairs=False, seeds=(0, 1), **settings):
            write_run(tmp_path / "runs", spec)
    return tmp_path / "runs"


def test_files(report, runs, tmp_path):
    assert report(runs, "--plots", tmp_path / "new" / "plots")[0] == 0
    files = {path.name: path.stat().st_size for path in (tmp_path / "new" / "plots").iterdir()}
    assert set(files) == {
        "accuracies-shapes-training_domain_validation.png",
        "differences-training_domain_validation.png",
        "search-shapes.png",
        "cost-shapes.png",
        "cosines-shapes-erm.png",
        "cosines-shapes-erm_+_gga.png",
    }
    assert min(files.values()) > 5000


def test_cosines_are_the_mean_of_the_runs_of_one_domain(runs):
    methods, _ = group_methods(read_runs([runs]).runs)
    gga = next(method for method in methods if method.annealing == "gga")
    figure = _cosines("shapes", gga)
    tables = [_read_cosines(run) for run in gga.runs if run.test_domains == ("a",)]
    assert len(tables) == 2
    line = figure.axes[0].lines[1]
    assert line.get_label() == "b / c"
    expected = [(tables[0][step][0, 1] + tables[1][step][0, 1]) / 2 for step in sorted(tables[0])]
    assert line.get_ydata() == pytest.approx(expected)
    assert figure.axes[0].patches[0].get_x() == 50


def test_without_cosines_there_is_no_figure(runs):
    write_run(runs, Spec(algorithm="coral"))
    for path in runs.glob("*coral*/metrics.csv"):
        path.write_text(path.read_text().replace("conflict/", "other/"))
    methods, _ = group_methods(read_runs([runs]).runs)
    assert _cosines("shapes", next(m for m in methods if m.algorithm == "coral")) is None


@pytest.mark.parametrize("text", ["", "step,conflict/b-c\nx", "\0", "step\n1"])
def test_broken_metrics_are_passed_over(runs, text):
    for path in runs.glob("*/metrics.csv"):
        path.write_text(text)
    methods, _ = group_methods(read_runs([runs]).runs)
    assert [_cosines("shapes", method) for method in methods] == [None, None]


def test_long_labels_make_files(report, tmp_path):
    names = [f"annealing.some_long_setting_{k}" for k in range(20)]
    for value in (1, 2):
        write_run(tmp_path / "runs", Spec(settings=dict.fromkeys(names, value)))
    assert report(tmp_path / "runs", "--plots", tmp_path / "plots")[0] == 0
    assert len(list((tmp_path / "plots").glob("cosines-*.png"))) == 2
