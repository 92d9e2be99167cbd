import numpy as np
import pytest
from scipy.stats import ttest_1samp

from gga_lightning.report.rules import Trial, seeds
from gga_lightning.report.statistics import compare, compute_comparison, holm, t_interval
from gga_lightning.report.tables import difference_table, overview
from tests.helpers import mostly_slow
from tests.report.folders import Spec
from tests.report.test_bases import rows


def accuracies(values, domain="a"):
    """One domain's accuracies by seed."""
    return {(Trial(seed, seed), domain): value for seed, value in enumerate(values)}


@pytest.mark.parametrize("pairs", [2, 3, 5, 10])
def test_intervals_cover_what_they_promise(pairs):
    draw = np.random.default_rng(pairs)
    samples = draw.normal(0.7, 1.3, (2000, pairs))
    covered = [low <= 0.7 <= high for low, high in map(t_interval, samples.tolist())]
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("values", [[0.1, 0.05, 1.0], [1.0, 2.0], [0.2, 0.3, 0.1, 0.9]])
def test_few_differences_of_one_sign_show_nothing(values):
    found = compare(accuracies([value / 100 for value in values]), accuracies([0.0] * len(values)))
    assert found.values == pytest.approx(values)
    assert (found.low, found.high) == pytest.approx(t_interval(values))
    assert (found.p, found.clear, found.counts) == (None, False, None)
    if values[0] == 0.1:
        assert found.low < 0 < found.high


@pytest.mark.parametrize("size", [5, 7, 20])
def test_p_values(size):
    values = np.random.default_rng(size).normal(0.005, 0.01, size)
    found = compare(accuracies(values), accuracies(np.zeros(size)))
    assert found.p == pytest.approx(ttest_1samp(values, 0.0).pvalue)
    above = int((values > 0).sum())
    assert found.counts == (above, 0, size - above)


@pytest.mark.parametrize("value", [0.0, 0.01, -0.3])
def test_equal_differences_prove_nothing(value):
    """Without a spread there is no test; rounding is no spread."""
    start = np.linspace(0.3, 0.7, 6)
    found = compare(accuracies(start + value), accuracies(start))
    assert (found.low, found.high) == pytest.approx((100 * value, 100 * value))
    assert found.p is None


@pytest.mark.parametrize(
    ("found", "corrected"),
    [
        ([0.01], [0.01]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.9, 0.001], [1.0, 1.0, 0.003]),
        ([], []),
    ],
)
def test_holm(found, corrected):
    assert holm(found) == pytest.approx(corrected)


def test_pairs_are_complete():
    row = {(Trial(s, s), d): 0.5 + s / 10 for s in range(4) for d in "abc" if (s, d) != (1, "b")}
    base = {(Trial(s, s), d): 0.5 for s in range(4) for d in "ab" if (s, d) != (3, "a")}
    found = compare(row, base)
    assert (found.domains, seeds(found.trials)) == (("a", "b"), "seeds 0, 2")
    assert found.values == pytest.approx([0.0, 20.0])
    assert compare({(Trial(0, 0), "a"): 1.0}, {(Trial(0, 0), "b"): 1.0}) is None
    crossed = {(Trial(0, 0), "a"): 1.0, (Trial(1, 1), "b"): 1.0}
    assert compare(crossed, crossed) is None


@pytest.mark.parametrize(
    ("trials", "text"),
    [
        ([(0, 0)], "seed 0"),
        ([(2, 2), (0, 0), (1, 1)], "seeds 0-2"),
        ([(0, 0), (1, 1), (5, 5), (9, 9), (10, 10)], "seeds 0-1, 5, 9-10"),
        ([(0, 0), (0, 1)], "split/seeds 0/0, 0/1"),
    ],
)
def test_seeds(trials, text):
    assert seeds([Trial(*trial) for trial in trials]) == text


class TestManyArms:
    @pytest.fixture
    def study(self, tmp_path):
        """A base, one row that is clearly better, and rows that are about as good."""

        def make(arms):
            specs = [
                Spec(settings={"x.y": arm}, seed=seed)
                for arm in range(arms + 1)
                for seed in range(6)
            ]
            methods, _ = rows(tmp_path, *specs)
            draw = np.random.default_rng(0)
            return methods, {m.label: draw.normal(0.0, 0.01, 6) for m in methods}

        return make

    @pytest.mark.parametrize(("arms", "starred"), [(1, True), (3, True), (40, False)])
    def test_a_star_survives_few_comparisons_only(self, study, monkeypatch, arms, starred):
        """The first arm's p-value is about 0.005."""
        methods, noise = study(arms)
        values = {label: 0.5 + found for label, found in noise.items()}
        base, first, *_ = values
        values[base] = np.full(6, 0.5)
        values[first] = 0.5 + np.array([0.01, 0.02, 0.005, 0.015, 0.008, 0.03])
        results = iter(values.values())
        monkeypatch.setattr(
            "gga_lightning.report.statistics.apply_rule",
            lambda rule, runs: accuracies(next(results)),
        )
        arranged = [m if m.label == base else _with_base(m, base) for m in methods]
        comparison = compute_comparison("shapes", "last", arranged, ["a"])
        found = {row.method.label: row.difference for row in comparison.rows}
        assert 0.002 < found[first].p < 0.02
        assert found[first].clear == starred
        table = difference_table(comparison)
        assert any(row[3].endswith("*") for row in table.rows) == starred
        assert f"corrected for the {arms} rows" in table.caption
        *_, last = overview([comparison, comparison])
        assert any("*" in cell for row in last.rows for cell in row) == starred


def _with_base(method, base):
    return type(method)(**{**vars(method), "base": base})


@pytest.mark.parametrize("arms", mostly_slow([5, 20, 40], 5))
def test_a_study_without_effects_is_rarely_starred(arms):
    """In 200 studies of arms that do nothing, about one in twenty has a star."""
    draw = np.random.default_rng(arms)
    stars = 0
    for _ in range(200):
        found = [ttest_1samp(draw.normal(size=6), 0.0).pvalue for _ in range(arms)]
        stars += min(holm(found)) < 0.05
    assert stars <= 20
