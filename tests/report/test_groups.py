"""Held-out domains that are split by group: two accuracies, on new groups and on those seen."""

import json

import pytest

from tests.report.folders import Spec, write_run

SELECTIONS = ("training_domain_validation", "oracle", "last")


@pytest.fixture
def specs(tmp_path):
    return [
        write_run(tmp_path, Spec(held_out=(name,), seed=seed, groups=True, data="emoji"))
        for name in ("a", "b")
        for seed in (0, 1)
    ]


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize(("part", "accuracy"), [("test", "test_acc"), ("seen", "oracle_acc")])
def test_each_part_with_the_same_selections(lines, tmp_path, specs, selection, part, accuracy):
    found = lines(tmp_path, "--selection", selection, "--part", part)
    data = "emoji" if part == "test" else "emoji, seen groups"
    for name in ("a", "b"):
        stored = [
            json.loads((spec.folder / "result.json").read_text())["selections"][selection][accuracy]
            for spec in specs
            if spec.held_out == (name,)
        ]
        row = found[data, selection, "erm", name]
        assert float(row["mean"]) == pytest.approx(100 * sum(stored) / 2)


def test_other_data_have_no_such_part(report, tmp_path):
    write_run(tmp_path, Spec())
    status, _, errors = report(tmp_path, "--part", "seen")
    assert status == 1
    assert "`--part seen` needs runs whose held-out domain has groups" in errors
    assert "got runs of shapes" in errors


def test_other_data_are_left_out(report, tmp_path, specs):
    write_run(tmp_path, Spec())
    status, output, _ = report(tmp_path, "--part", "seen")
    assert status == 0
    assert "emoji, seen groups" in output
    assert "shapes" not in output


def test_of_two_held_out_domains_the_choice_stays(lines, tmp_path):
    for held_out in (("a",), ("a", "b"), ("a", "c")):
        spec = Spec(held_out=held_out, groups=True, domains=("a", "b", "c"), data="emoji")
        write_run(tmp_path, spec)
    rule = ("--selection", "leave_one_domain_out")
    new, seen = (lines(tmp_path, *rule, "--part", part) for part in ("test", "seen"))
    (run,) = (path for path in tmp_path.glob("emoji-a-*/result.json"))
    passes = json.loads(run.read_text())["evaluations"]
    pairs = {(row["accuracies"]["test/a"], row["accuracies"]["seen/a"]) for row in passes}
    cells = [
        float(table[data, "leave_one_domain_out", "erm", "a"]["mean"]) / 100
        for table, data in ((new, "emoji"), (seen, "emoji, seen groups"))
    ]
    assert any(cells == pytest.approx(pair) for pair in pairs)
