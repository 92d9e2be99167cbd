import itertools
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from gga_lightning.report.methods import group_methods
from gga_lightning.report.missing import MissingJob, _quoted, commands, missing_jobs
from gga_lightning.report.rules import Trial
from gga_lightning.report.runs import read_runs
from tests.report.folders import Spec, leave_one_out_specs, write_run

PARSER = OverridesParser.create()


def method(root, specs):
    for spec in specs:
        write_run(root, spec)
    [found] = group_methods(read_runs([Path(root)]).runs)[0]
    return found


def expand(command):
    """The jobs that a command runs, read as the shell and Hydra read it."""
    program, multirun, *overrides = shlex.split(command)
    assert (program, multirun) == ("gga-train", "-m")
    swept = {}
    for text in overrides:
        override = PARSER.parse_override(text)
        assert override.key_or_group not in swept
        swept[override.key_or_group] = (
            list(override.sweep_string_iterator())
            if override.is_sweep_override()
            else [text.partition("=")[2]]
        )
    for values in itertools.product(*swept.values()):
        job = {
            name: PARSER.parse_override(f"{name}={value}").value()
            for name, value in zip(swept, values, strict=True)
        }
        held_out = job["data.test_domain"]
        names = held_out if isinstance(held_out, list) else [held_out]
        trial = Trial(job.get("data.split_seed", job["seed"]), job["seed"])
        yield MissingJob(
            tuple(str(name).strip("'") for name in names), trial, job.get("hparams_seed", 0)
        )


def expanded(found, jobs):
    listed = [job for command in commands(found, jobs) for job in expand(command)]
    assert len(listed) == len(set(listed))
    return set(listed)


def test_one_compact_command(tmp_path):
    domains = ("0", "30", "45", "60")
    specs = [
        Spec((domain,), seed=seed, annealing="gga", domains=domains)
        for domain in domains
        for seed in (0, 1, 2)
        if not (domain in {"45", "60"} and seed < 2)
    ]
    found = method(tmp_path, specs)
    assert commands(found, missing_jobs(found, domains)) == [
        f"gga-train -m algorithm=erm annealing=gga hydra.sweep.dir={tmp_path} "
        """"data.test_domain='45','60'" seed=0,1"""
    ]


def test_the_folder_of_the_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, told in (
        ("multirun", ""),
        ("new", "hydra.sweep.dir=new "),
        ("o'neil & co", "hydra.sweep.dir="),
    ):
        for spec in (Spec(("a",)), Spec(("b",)), Spec(("a",), seed=1)):
            write_run(Path(folder), spec)
        [found] = group_methods(read_runs([Path(folder)]).runs)[0]
        (command,) = commands(found, missing_jobs(found, "ab"))
        assert told in command
        assert ("sweep.dir" in command) == bool(told)


def test_trials_of_the_baseline(tmp_path):
    found = method(tmp_path, [Spec(("a",)), Spec(("b",))])
    trials = [Trial(0, 0), Trial(1, 1)]
    lacking = {MissingJob((name,), Trial(1, 1), 0) for name in "ab"}
    assert set(missing_jobs(found, "ab", trials=trials)) == lacking


def test_compact_either_way(tmp_path):
    """Few seeds lack many domains, or few domains many seeds."""
    lacking = {("a", 0), ("b", 0), ("b", 1), ("c", 0), ("c", 1), ("d", 1)}
    cells = [(domain, seed) for domain in "abcd" for seed in (0, 1, 2)]
    found = method(tmp_path / "1", [Spec((d,), seed=s) for d, s in cells if (d, s) not in lacking])
    jobs = missing_jobs(found, "abcd")
    assert [command.split()[-2:] for command in commands(found, jobs)] == [
        ["data.test_domain=a,b,c", "seed=0"],
        ["data.test_domain=b,c,d", "seed=1"],
    ]
    cells = [("a", 0), ("b", 0), ("b", 1), ("b", 2), ("c", 0), ("c", 1), ("c", 2)]
    found = method(tmp_path / "2", [Spec((domain,), seed=seed) for domain, seed in cells])
    assert [c.split()[-2:] for c in commands(found, missing_jobs(found, "abc"))] == [
        ["data.test_domain=a", "seed=1,2"]
    ]


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 11), min_size=1, max_size=11), st.booleans())
def test_commands_expand_to_the_missing_jobs(missing, apart):
    domains = ("Art", "Real World", "0", "it's, a")
    every = [
        Spec((d,), seed=s, domains=domains, split_seed=7 if apart and s else None)
        for d in domains
        for s in (0, 1, 2)
    ]
    present = [spec for index, spec in enumerate(every) if index not in missing]
    with tempfile.TemporaryDirectory() as root:
        found = method(root, present)
    trials = {Trial(*spec.trial) for spec in present}
    wanted = {
        MissingJob(spec.held_out, Trial(*spec.trial), 0)
        for index, spec in enumerate(every)
        if index in missing and Trial(*spec.trial) in trials
    }
    jobs = missing_jobs(found, domains)
    assert set(jobs) == wanted
    assert expanded(found, jobs) == wanted


def test_pairs_of_domains(tmp_path):
    specs = leave_one_out_specs(seeds=(0, 1))
    found = method(tmp_path, [spec for spec in specs if set(spec.held_out) != {"b", "c"}])
    assert not missing_jobs(found, "abcd")
    jobs = missing_jobs(found, "abcd", pairs=True)
    assert {frozenset(job.domains) for job in jobs} == {frozenset("bc")}
    assert expanded(found, jobs) == set(jobs)


def test_draws_go_together(tmp_path):
    specs = [
        Spec(
            (domain,),
            seed=seed,
            hparams_seed=draw,
            hyperparameters={"algorithm.optimizer.lr": 0.1 * draw},
            overrides=("hparams=search", f"hparams_seed={draw}"),
        )
        for domain in "ab"
        for seed in (0, 1)
        for draw in (0, 1, 2)
        if (domain, draw) not in {("b", 2), ("b", 0)}
    ]
    found = method(tmp_path, specs)
    jobs = missing_jobs(found, "ab")
    assert expanded(found, jobs) == set(jobs)
    assert set(jobs) == {MissingJob(("b",), Trial(s, s), draw) for s in (0, 1) for draw in (0, 2)}
    assert commands(found, jobs) == [
        f"gga-train -m algorithm=erm annealing=none hparams=search hydra.sweep.dir={tmp_path} "
        "hparams_seed=0,2 data.test_domain=b seed=0,1"
    ]


def test_draws_keep_their_overrides(tmp_path):
    specs = [
        Spec(
            (domain,),
            seed=seed,
            hparams_seed=draw,
            hyperparameters={"lr": (draw, seed)},
            overrides=(f"hparams_seed={draw}", f"lr={draw}.{seed}"),
        )
        for domain in "ab"
        for seed in (0, 1)
        for draw in (1, 2)
        if (domain, draw) != ("b", 2)
    ]
    found = method(tmp_path, specs)
    jobs = missing_jobs(found, "ab")
    assert (
        expanded(found, jobs) == set(jobs) == {MissingJob(("b",), Trial(s, s), 2) for s in (0, 1)}
    )
    assert [c for c in commands(found, jobs) if "lr=2.0" in c and c.endswith("seed=0")]


def test_numbers_stay_what_they_were(tmp_path):
    """A job whose domain was a text has another identity than one whose domain was a number."""
    domains = ("0", "30", "60")
    found = method(tmp_path, [Spec(("0",), domains=domains)])
    [command] = commands(found, missing_jobs(found, domains))
    assert "annealing=none " in command
    assert command.endswith(""" "data.test_domain='30','60'" seed=0""")
    plain = tuple(o for o in found.runs[0].overrides if "test_domain" not in o)
    runs = (replace(found.runs[0], overrides=(*plain, "data.test_domain=0")),)
    [command] = commands(replace(found, runs=runs), missing_jobs(found, domains))
    assert command.endswith(" data.test_domain=30,60 seed=0")


def test_a_sweeps_alternatives_are_not_run_again(tmp_path):
    found = method(tmp_path, [Spec(("a",), overrides=("sweep=effect",))])
    [command] = commands(found, missing_jobs(found, "ab"))
    assert "sweep=effect" in command
    assert "'~hydra.sweeper.alternatives'" in command


@pytest.mark.parametrize(
    "name",
    ["Real World", "null", "010", "1e5", "+90%", "-90%", "a,b", "it's", "back\\", "\\'", "[x]"],
)
def test_names_reach_hydra_unchanged(name):
    value = PARSER.parse_override(f"data.test_domain={_quoted(name)}").value()
    assert str(value) == name or value.text == name


@settings(deadline=None)
@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), min_size=1))
def test_any_name_reaches_hydra_unchanged(name):
    if "$" in name:  # an interpolation, which no domain's name is
        return
    value = PARSER.parse_override(f"x={_quoted(name)}").value()
    assert getattr(value, "text", str(value)) == name
