"""Every number of the report against an independent computation from the metrics files."""

import json

import pytest

from tests.helpers import mostly_slow
from tests.report import independent
from tests.report.folders import DOMAINS, Spec, leave_one_out_specs, write_run

RULES = ["training_domain_validation", "oracle", "oracle_last", "last", "leave_one_domain_out"]


def methods(levels=0, seeds=(0, 1, 2), draws=(0,)):
    """Row to its runs; each draw of hyperparameters is a run of its own."""

    def sweep(**settings):
        return [
            spec
            for draw in draws
            for spec in leave_one_out_specs(
                seeds=seeds,
                levels=levels,
                hparams_seed=draw,
                hyperparameters={"algorithm.optimizer.lr": 0.1 * draw} if draws[1:] else {},
                **settings,
            )
        ]

    return {
        "erm": sweep(),
        "erm + gga": sweep(annealing="gga", lift=0.3),
        "coral": sweep(algorithm="coral"),
    }


def write(root, rows):
    for specs in rows.values():
        for spec in specs:
            write_run(root, spec)


def number(text):
    return float(text) if text else None


def check(lines, rows, rule, domains=DOMAINS):
    found = {row: independent.accuracies(rule, specs) for row, specs in rows.items()}
    for row, accuracies in found.items():
        for domain in domains:
            line = lines["shapes", rule, row, domain]
            values = [value for (_, name), value in accuracies.items() if name == domain]
            assert int(line["n"]) == len(values)
            if values:
                center, error, _ = independent.cell(values)
                assert number(line["mean"]) == pytest.approx(center, abs=2e-6)
                assert number(line["se"]) == pytest.approx(error, abs=2e-6)
        line = lines["shapes", rule, row, "Avg"]
        trials = independent.averages(accuracies, domains)
        assert int(line["n"]) == len(trials)
        if trials:
            center, error, deviation = independent.cell(trials)
            assert number(line["mean"]) == pytest.approx(center, abs=2e-6)
            assert number(line["se"]) == pytest.approx(error, abs=2e-6)
            assert number(line["sd"]) == pytest.approx(deviation, abs=2e-6)
        if row != "erm":
            check_difference(line, independent.differences(accuracies, found["erm"]))


def check_difference(line, values):
    assert int(line["pairs"] or 0) == len(values)
    if not values:
        return
    assert number(line["difference"]) == pytest.approx(sum(values) / len(values), abs=2e-6)
    if len(values) >= 5:
        assert int(line["better"]) == sum(value > 1e-9 for value in values)
        assert int(line["worse"]) == sum(value < -1e-9 for value in values)
        assert int(line["equal"]) == sum(abs(value) <= 1e-9 for value in values)
    else:
        assert [line[name] for name in ("better", "equal", "worse", "p")] == [""] * 4
        assert line["clear"] == "False"
    if len(values) > 1:
        low, high = independent.interval(values)
        assert number(line["low"]) == pytest.approx(low, abs=2e-6)
        assert number(line["high"]) == pytest.approx(high, abs=2e-6)


@pytest.mark.parametrize(
    ("levels", "draws"),
    [
        (0, (0,)),
        (2, (0, 1, 2)),
        pytest.param(2, (0,), marks=pytest.mark.slow),
        pytest.param(0, (0, 1, 2), marks=pytest.mark.slow),
    ],
)
def test_every_rule(tmp_path, lines, levels, draws):
    rows = methods(levels, draws=draws)
    write(tmp_path, rows)
    found = lines(tmp_path, "--selection", "all")
    for rule in RULES:
        check(found, rows, rule)


@pytest.mark.parametrize("rule", mostly_slow(RULES, RULES[0], RULES[-1]))
def test_incomplete_sweeps(tmp_path, lines, rule):
    rows = methods(seeds=(0, 1, 2, 3, 4))
    rows = {
        row: [s for k, s in enumerate(specs) if (7 * k + len(row)) % 11]
        for row, specs in rows.items()
    }
    write(tmp_path, rows)
    check(lines(tmp_path, "--selection", rule), rows, rule)


def test_evaluations_at_different_steps(tmp_path, lines):
    rows = methods()
    for spec in rows["erm"]:
        if len(spec.held_out) == 2:
            spec.steps = (25, 50, 100, 125, 200)
    write(tmp_path, rows)
    check(lines(tmp_path, "--selection", "all"), rows, "leave_one_domain_out")


def test_averaged_weights(tmp_path, lines):
    specs = [Spec((d,), seed=s, swad=True) for d in DOMAINS for s in (0, 1)]
    write(tmp_path, {"erm": specs})
    found = lines(tmp_path, "--selection", "swad")
    for domain in DOMAINS:
        values = [
            json.loads((s.folder / "result.json").read_text())["selections"]["swad"]["test_acc"]
            for s in specs
            if s.held_out == (domain,)
        ]
        line = found["shapes", "swad", "erm", domain]
        assert number(line["mean"]) == pytest.approx(100 * sum(values) / 2, abs=2e-6)


def test_a_trial_is_both_seeds(tmp_path, lines):
    specs = [
        Spec((d,), seed=seed, split_seed=split)
        for d in DOMAINS
        for seed in (0, 1)
        for split in (0, 1, 2)
    ]
    write(tmp_path, {"erm": specs})
    rule = "training_domain_validation"
    assert lines(tmp_path)["shapes", rule, "erm", "Avg"]["n"] == "6"
    check(lines(tmp_path), {"erm": specs}, rule)


def test_equal_differences_have_a_degenerate_interval(tmp_path, lines):
    specs = [Spec(("a",), seed=seed, levels=1, lift=1.0) for seed in range(4)]
    others = [Spec(("a",), seed=s, annealing="gga", levels=1, lift=1.0) for s in range(4)]
    write(tmp_path, {"erm": specs, "erm + gga": others})
    line = lines(tmp_path)["shapes", "training_domain_validation", "erm + gga", "Avg"]
    assert [number(line[k]) for k in ("difference", "low", "high")] == [0.0, 0.0, 0.0]
    assert [line[name] for name in ("pairs", "p", "clear")] == ["4", "", "False"]


def test_one_pair_has_no_interval(tmp_path, lines):
    write(tmp_path, {"erm": [Spec()], "erm + gga": [Spec(annealing="gga")]})
    line = lines(tmp_path)["shapes", "training_domain_validation", "erm + gga", "Avg"]
    assert [line[name] for name in ("pairs", "low", "high", "se", "sd")] == ["1", *[""] * 4]


@pytest.mark.parametrize("seeds", [(0,), (0, 1), (0, 1, 2, 3)])
def test_domainbeds_errors_on_request(tmp_path, lines, seeds):
    rows = methods(seeds=seeds)
    write(tmp_path, rows)
    found = lines(tmp_path, "--error", "domainbed")
    accuracies = independent.accuracies("training_domain_validation", rows["coral"])
    values = independent.averages(accuracies, DOMAINS)
    line = found["shapes", "training_domain_validation", "coral", "Avg"]
    _, error, deviation = independent.cell(values, domainbed=True)
    assert number(line["se"]) == pytest.approx(error, abs=2e-6)
    assert number(line["sd"]) == pytest.approx(deviation, abs=2e-6)


def test_an_interval_does_not_depend_on_other_rows(tmp_path, lines):
    rows = methods()
    key = "shapes", "oracle", "erm + gga", "Avg"
    write(tmp_path, {row: rows[row] for row in ("erm", "erm + gga")})
    alone = lines(tmp_path, "--selection", "oracle")[key]
    write(tmp_path, {"coral": rows["coral"]})
    assert lines(tmp_path, "--selection", "oracle")[key] == alone
