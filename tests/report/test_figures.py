import pytest

from gga_lightning.report.cli import main
from gga_lightning.report.figures import _accuracies, _differences, _file_name
from gga_lightning.report.statistics import compute_comparison
from tests.report.folders import Spec, leave_one_out_specs, search_summary, write_run
from tests.report.test_bases import arrange, rows

RULE = "training_domain_validation"


@pytest.fixture
def runs(tmp_path):
    for settings in ({}, {"annealing": "gga", "search": search_summary(transfer=0.002)}):
        for spec in leave_one_out_specs(pairs=False, seeds=(0, 1), **settings):
            write_run(tmp_path / "runs", spec)
    return tmp_path / "runs"


def compared(root, *specs, domains="ab"):
    methods, _ = rows(root, *specs)
    return compute_comparison("shapes", RULE, arrange(methods), domains)


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def test_files(report, runs, tmp_path):
    assert report(runs, "--plots", tmp_path / "new" / "plots")[0] == 0
    files = {path.name: path.stat().st_size for path in (tmp_path / "new" / "plots").iterdir()}
    assert set(files) == {
        f"accuracies-shapes-{RULE}.png",
        f"differences-{RULE}.png",
        "search-shapes.png",
        "cost-shapes.png",
    }
    assert min(files.values()) > 5000


def test_missing_seeds_are_written_at_the_marks(tmp_path):
    cells = [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    specs = [Spec((d,), seed=s) for d, s in cells]
    specs += [Spec((d,), seed=s, algorithm="coral") for d, s in cells[:3]]
    specs += [Spec(("a",), seed=5, algorithm="sam")]
    figure = _accuracies(compared(tmp_path, *specs))
    assert [texts(ax) for ax in figure.axes] == [
        ["n = 1, seed 5"],
        ["n = 1, seed 0", "no complete seed"],
        ["n = 1, seed 0", "no complete seed"],
    ]
    assert figure.get_supxlabel().endswith("n = 2, seeds 0-1")
    assert "better \u2192" in figure.get_supxlabel()
    assert len({ax.get_xlim() for ax in figure.axes}) == 1


@pytest.mark.parametrize("seeds", [1, 3, 10, 11])
def test_single_differences_are_drawn_when_they_are_few(tmp_path, seeds):
    specs = [
        Spec((d,), seed=s, annealing=a) for d in "ab" for s in range(seeds) for a in ("none", "gga")
    ]
    comparison = compared(tmp_path, *specs)
    figure = _differences([comparison])
    [difference] = [row.difference for row in comparison.rows if row.difference]
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "."]
    assert len(dots) == (1 < seeds <= 10)
    for line in dots:
        assert sorted(line.get_xdata()) == sorted(difference.values)
    assert f"n = {seeds} pairs" in figure.get_supxlabel()
    assert "difference to erm in points (better \u2192)" in figure.get_supxlabel()


def test_rows_of_several_bases_name_them(tmp_path):
    specs = [Spec(algorithm=a, annealing=b) for a in ("erm", "coral") for b in ("none", "gga")]
    figure = _differences([compared(tmp_path, *specs, domains="a")])
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["erm + gga vs erm", "coral vs erm", "coral + gga vs coral"]
    assert "difference to the base" in figure.get_supxlabel()


@pytest.mark.parametrize(
    "text", ["a b", "a_b", "a/b", "x" * 300, "\u00e9" * 300, "caf\u00e9", "a$b"]
)
def test_names_of_files(text):
    others = [
        _file_name(other) for other in ("a b", "a_b", "a/b", "a?b", "x" * 301) if other != text
    ]
    assert _file_name(text) not in others
    assert len(f"{_file_name(text)}.png".encode()) <= 255
    assert "/" not in _file_name(text)


def test_long_labels_make_files(tmp_path):
    names = [f"annealing.some_long_setting_{k}" for k in range(20)]
    data = "photos of a very long name " * 12
    for value in (1, 2):
        write_run(tmp_path / "runs", Spec(settings=dict.fromkeys(names, value)))
    result = [str(tmp_path / "runs"), "--plots", str(tmp_path / "plots")]
    for path in (tmp_path / "runs").glob("*/result.json"):
        path.write_text(path.read_text().replace('"data": "shapes"', f'"data": "{data}"'))
    assert main(result) == 0
    assert len(list((tmp_path / "plots").iterdir())) == 2
