import json
import os

import pytest

from gga_lightning.report.results import earliest_best
from gga_lightning.report.runs import read_runs
from tests.report.folders import Spec, write_run


def edit(spec, **changes):
    """Changes a result; None takes the key away."""
    path = spec.folder / "result.json"
    result = json.loads(path.read_text())
    for name, value in changes.items():
        if value is None:
            del result[name]
        else:
            result[name] = value
    path.write_text(json.dumps(result))


def only(root):
    [finding] = read_runs([root]).findings
    return finding


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"data": "sha', "Unterminated string"),
        ("[1, 2]", "must hold an object"),
        ("null", "must hold an object"),
        ("[" * 100_000, "recursion"),
        ('{"seconds": 1', "delimiter"),
        ("\udcff", "utf-8"),
    ],
)
def test_broken_files_are_left_out_by_name(tmp_path, text, reason):
    kept, broken = (write_run(tmp_path, Spec((name,))) for name in "ab")
    (broken.folder / "result.json").write_text(text, errors="surrogateescape")
    reading = read_runs([tmp_path])
    assert [run.folder for run in reading.runs] == [kept.folder]
    [finding] = reading.findings
    assert (finding.kind, finding.folder) == ("left out", broken.folder)
    assert reason in finding.reason
    assert "\n" not in finding.reason


KEYS = json.loads(
    '["data", "test_domains", "source_domains", "algorithm", "annealing", "backbone", "seed", '
    '"split_seed", "hparams_seed", "hyperparameters", "selections", "evaluations", "search", '
    '"seconds", "versions", "config_hash", "overrides", "settings"]'
)


@pytest.mark.parametrize("key", KEYS)
def test_missing_keys_and_wrong_types_are_named(tmp_path, key):
    spec = write_run(tmp_path, Spec())
    edit(spec, **{key: True})
    assert f"`{key}`" in only(tmp_path).reason
    edit(spec, **{key: None})
    assert f"`{key}` is missing" in only(tmp_path).reason


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), "0.5", 10**400])
def test_accuracies_outside_their_range(tmp_path, value):
    spec = write_run(tmp_path, Spec())
    evaluations = json.loads((spec.folder / "result.json").read_text())["evaluations"]
    evaluations[1]["accuracies"]["val/b"] = value
    edit(spec, evaluations=evaluations)
    assert only(tmp_path).kind == "left out"


@pytest.mark.parametrize("rule", ["training_domain_validation", "oracle", "last"])
@pytest.mark.parametrize("name", ["step", "test_acc"])
def test_selections_that_disagree_with_the_evaluations(tmp_path, rule, name):
    spec = write_run(tmp_path, Spec())
    selections = json.loads((spec.folder / "result.json").read_text())["selections"]
    selections[rule][name] = 49 if name == "step" else (selections[rule][name] + 0.5) % 1
    edit(spec, selections=selections)
    assert only(tmp_path).reason.endswith(f"`selections.{rule}` disagrees with `evaluations`")


def test_selections_that_single_precision_rounded(tmp_path):
    spec = write_run(tmp_path, Spec())
    selections = json.loads((spec.folder / "result.json").read_text())["selections"]
    for chosen in selections.values():
        chosen["val_acc"] -= 3e-8 if chosen["val_acc"] else 0
    edit(spec, selections=selections)
    assert len(read_runs([tmp_path]).runs) == 1


def test_without_evaluations_selections_are_taken(tmp_path):
    spec = write_run(tmp_path, Spec())
    before = read_runs([tmp_path]).runs[0].selections
    edit(spec, evaluations=[])
    after = read_runs([tmp_path]).runs[0].selections
    assert after["oracle"].test_acc == pytest.approx(before["oracle"].test_acc)


def test_ties_go_to_the_earliest():
    assert earliest_best([0.25, 0.5, 0.5 + 5e-8, 0.5]) == 1


def test_failed_and_unfinished_runs_are_named(tmp_path):
    failed, odd, unfinished = (write_run(tmp_path, Spec((name,))) for name in "abc")
    for spec in (failed, odd, unfinished):
        (spec.folder / "result.json").unlink()
    failure = {"error": "RuntimeError: out of memory", "traceback": "...\n"}
    (failed.folder / "failure.json").write_text(json.dumps(failure))
    (odd.folder / "failure.json").write_text("[]")
    findings = {finding.folder: finding for finding in read_runs([tmp_path]).findings}
    assert findings[failed.folder].kind == "failed"
    assert findings[failed.folder].reason == "RuntimeError: out of memory"
    assert findings[odd.folder].kind == "failed"
    assert findings[unfinished.folder].kind == "unfinished"


def test_a_finished_run_may_have_failed_before(tmp_path):
    spec = write_run(tmp_path, Spec())
    (spec.folder / "failure.json").write_text('{"error": "x", "traceback": ""}')
    assert not read_runs([tmp_path]).findings


def test_the_same_job_counts_once(tmp_path):
    first, second = write_run(tmp_path / "1", Spec()), write_run(tmp_path / "2", Spec())
    reading = read_runs([tmp_path])
    assert [run.folder for run in reading.runs] == [first.folder]
    assert [(f.kind, f.folder) for f in reading.findings] == [("duplicate", second.folder)]


def test_the_same_job_with_other_results_is_a_conflict(tmp_path):
    first, second = write_run(tmp_path / "1", Spec()), write_run(tmp_path / "2", Spec())
    other = write_run(tmp_path / "3", Spec(seed=1))
    for name in ("result.json",):
        text = (other.folder / name).read_text().replace(other.identity, first.identity)
        (second.folder / name).write_text(text)
    reading = read_runs([tmp_path / "2", tmp_path / "1"])
    assert [run.folder for run in reading.runs] == [first.folder]
    [finding] = reading.findings
    assert (finding.kind, finding.folder) == ("conflict", second.folder)
    assert str(first.folder) in finding.reason


def test_a_folder_given_twice_is_read_once(tmp_path):
    spec = write_run(tmp_path, Spec())
    reading = read_runs([tmp_path, spec.folder, tmp_path / "."])
    assert (len(reading.runs), reading.findings) == (1, [])


def test_inner_folders_of_runs_are_not_entered(tmp_path, monkeypatch):
    spec = write_run(tmp_path, Spec())
    entered = []
    walk = os.walk

    def watch(root):
        for place, folders, files in walk(root):
            entered.append(os.path.basename(place))
            yield place, folders, files

    monkeypatch.setattr(os, "walk", watch)
    write_run(spec.folder / "again", Spec(seed=1))
    assert len(read_runs([tmp_path]).runs) == 2
    assert "again" in entered
    assert not {"checkpoints", ".hydra"} & set(entered)


def test_no_such_folder(tmp_path):
    with pytest.raises(ValueError, match="RUNS must be folders, but there is no folder"):
        read_runs([tmp_path / "nothing"])
