import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from hypothesis import given
from hypothesis import strategies as st
from omegaconf.errors import InterpolationResolutionError

from gga_lightning.experiments.sweeps import domain_names
from gga_lightning.experiments.train import config_directory
from hydra_plugins.gga_lightning_sweeper import names_as_text, quoted
from tests.experiments.killed import killed_in_a_search
from tests.helpers import on_digits


def composed(*overrides):
    with initialize_config_dir(config_directory(), version_base="1.3"):
        return compose("train", on_digits(overrides))


def suite_seed(*values):
    return int(hashlib.md5(str(values).encode(), usedforsecurity=False).hexdigest(), 16) % 2**31


@pytest.fixture
def jobs():
    """What a sweep expands to: the overrides of each job, batch by batch."""

    def jobs(*typed, max_batch_size=None, **settings):
        loader = ConfigLoaderImpl(create_config_search_path(config_directory()))
        name = "hydra_plugins.gga_lightning_sweeper.DomainSweeper"
        found = Plugins.instance().class_name_to_class[name]
        sweeper = found(**settings)
        sweeper.config = loader.load_configuration("train", [], RunMode.MULTIRUN)
        sweeper.hydra_context = HydraContext(loader, callbacks=None)
        overrides = OverridesParser.create().parse_overrides(list(typed))
        return sweeper.split_arguments(overrides, max_batch_size)

    return jobs


class TestSweeper:
    def test_all_and_pairs(self, jobs):
        (found,) = jobs("data=toy", "data.test_domain=all,pairs", "seed=0,1")
        held_out = ["'centre'", "'right'", "'left'"]
        pairs = [f"[{a},{b}]" for a, b in itertools.combinations(held_out, 2)]
        expected = [
            ["data=toy", f"data.test_domain={value}", f"seed={seed}"]
            for kind in (held_out, pairs)
            for seed in (0, 1)
            for value in kind
        ]
        assert sorted(found) == sorted(expected)

    def test_every_data_sets_own_domains(self, jobs):
        (found,) = jobs("data=toy,digits", "data.test_domain=all")
        assert len(found) == 3 + 6
        assert ["data=digits", "data.test_domain='75'"] in found

    def test_names_of_any_kind_survive(self, jobs, tmp_path):
        for domain, label in itertools.product(("Real World", "it's, [1]"), "ab"):
            folder = tmp_path / domain / label
            folder.mkdir(parents=True)
            (folder / "image.png").touch()
        root = f"data.root={tmp_path}"
        (found,) = jobs("data=folders", root, "data.test_domain=all", "data.dataset.cache=null")
        names = [composed(*job).data.test_domain for job in found]
        assert sorted(names) == ["Real World", "it's, [1]"]

    @given(st.text(st.characters(codec="ascii", exclude_categories=("Cc",))))
    def test_any_name_is_quoted(self, name):
        override = OverridesParser.create().parse_override(f"a={quoted(name)}")
        assert override.value() == name

    def test_all_in_quotes_is_a_domain(self, jobs):
        (found,) = jobs("data=toy", "data.test_domain='all',\"pairs\",[all]")
        values = ["'all'", '"pairs"', "[all]"]
        assert found == [["data=toy", f"data.test_domain={value}"] for value in values]

    def test_names_in_files_are_text(self, jobs):
        lists = {"arm": ["data.test_domain=007 seed=0", "data.test_domain=[1_1,on]"]}
        (found,) = jobs("data=toy", alternatives=lists)
        assert found[0][0] == "data.test_domain='007'"
        assert found[1][0] == "data.test_domain=['1_1',on]"

    def test_alternatives_belong_together_and_what_is_typed_wins(self, jobs):
        lists = {"data": ["data=toy data.batch_size=8", "data=digits"], "arm": ["seed=0 +a='b c'"]}
        (found,) = jobs("algorithm=erm,coral", alternatives=lists)
        assert len(found) == 4
        assert ["data=toy", "data.batch_size=8", "seed=0", "+a=b c", "algorithm=coral"] in found
        (found,) = jobs("data=digits", alternatives=lists)  # both alike but for the batch size
        assert found == [
            ["data=digits", "data.batch_size=8", "seed=0", "+a=b c"],
            ["data=digits", "seed=0", "+a=b c"],
        ]
        (found,) = jobs("data=digits", "data.batch_size=4", alternatives=lists)
        assert len(found) == 1

    def test_batches(self, jobs):
        assert list(map(len, jobs("seed=range(5)", max_batch_size=2))) == [2, 2, 1]


# what is typed, and what it is then
TYPED = [
    *((name, name) for name in ("007", "1_1", "1e3", "0x10", "1.0", "+5", ".5", "NaN", "-inf")),
    *((name, name) for name in ("true", "FALSE", "null", "on", "~", "None", "12:30", "2020-01-01")),
    *(
        (name, name)
        for name in ("Real World", "it's", "a=b", "Straße", "写真", "art (old)", "x[1]")
    ),
    *((name, name) for name in ("*", "@x", "100%", "$5", "a:b", "left", "-", "all", "pairs")),
    ("75", 75),
    ("-1", -1),
    ("'75'", "75"),
    ('"all"', "all"),
    (r"a\,b", "a,b"),
    ("[007,1_1,left]", ["007", "1_1", "left"]),
    ("[all,'x,]',0]", ["all", "x,]", 0]),
    ("007,[1_1,true],all", ["'007'", "['1_1','true']", "all"]),
    ("choice(007, all, '1')", ["'007'", "all", "'1'"]),
    ("range(0,3)", ["0", "1", "2"]),
    ("shuffle(a,b)", None),
    ("${seed}", "${seed}"),
]


class TestNamesAsText:
    @pytest.mark.parametrize(("typed", "expected"), TYPED)
    def test_what_is_typed_is_what_it_is(self, typed, expected):
        (written,) = names_as_text([f"data.test_domain={typed}"])
        override = OverridesParser.create().parse_override(written)
        if expected is None:
            assert written == f"data.test_domain={typed}"
        elif override.is_sweep_override():
            values = [str(value).strip("'") for value in override.sweep_string_iterator()]
            assert values == [str(value).strip("'") for value in expected]
        else:
            assert override.value() == expected
        assert names_as_text([written]) == [written]

    @given(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"))))
    def test_any_name_without_grammar(self, name):
        if not set(name) & set("'\"[](){},\\$") and name not in ("all", "pairs"):
            (written,) = names_as_text([f"++data.test_domain={name}"])
            assert str(OverridesParser.create().parse_override(written).value()) == name

    def test_names_of_folders_and_nothing_else(self):
        typed = ["seed=007", "data.dataset.domains=[45,007,a]", "data.dataset.domains=null", "-m"]
        expected = typed.copy()
        expected[1] = "data.dataset.domains=['45','007',a]"
        assert names_as_text(typed) == expected


class TestDomainNames:
    def test_of_benchmarks_that_are_not_there(self):
        config = composed("data=pacs", "data.root=/nowhere")
        assert domain_names(config) == ["art_painting", "cartoon", "photo", "sketch"]

    def test_of_a_shift(self):
        config = composed("data.dataset.shift=colour")
        assert domain_names(config) == ["flip_10", "flip_20", "flip_90"]


class TestSearchSpaces:
    @pytest.mark.parametrize("trial", [0, 2])
    def test_draws_are_the_reference_suites(self, trial):
        more = "+algorithm.chosen='${draw:chosen,0,choice,1,2,3}'"
        config = composed("hparams=domainbed_small", "hparams_seed=5", f"seed={trial}", more)
        seed = suite_seed(5, trial)
        uniform = np.random.RandomState(suite_seed(seed, "lr")).uniform(-4.5, -2.5)
        assert config.algorithm.optimizer.lr == pytest.approx(10**uniform, rel=1e-12)
        uniform = np.random.RandomState(suite_seed(seed, "batch_size")).uniform(3, 9)
        assert config.data.batch_size == int(2**uniform)
        chosen = np.random.RandomState(suite_seed(seed, "chosen")).choice([1, 2, 3])
        assert config.algorithm.chosen == chosen

    def test_the_split_seed_is_the_trial(self):
        space = ("hparams=domainbed_small", "hparams_seed=5", "algorithm=coral")
        drawn = [composed(*space, *own).algorithm.gamma for own in (("seed=2",), ("seed=7",))]
        fixed = composed(*space, "seed=7", "data.split_seed=2").algorithm.gamma
        assert fixed == drawn[0] != drawn[1]

    def test_number_0_and_no_space_are_the_defaults(self):
        for overrides in ((), ("hparams_seed=3",), ("hparams=swad", "hparams_seed=3")):
            assert composed("algorithm=irm", *overrides).algorithm.anneal_steps == 500
        assert composed("hparams=domainbed", "backbone=resnet18").algorithm.optimizer.lr == 5e-5

    def test_the_grid_has_every_point_once(self):
        points = set()
        for number in range(18):
            config = composed("hparams=swad", "backbone=resnet18", f"hparams_seed={number}")
            optimizer = config.algorithm.optimizer
            points.add((optimizer.lr, optimizer.weight_decay, config.backbone.dropout))
        lists = ((1e-5, 3e-5, 5e-5), (1e-4, 1e-6), (0.0, 0.1, 0.5))
        assert points == set(itertools.product(*lists))

    def test_an_unknown_kind(self):
        wrong = "+algorithm.gamma='${draw:gamma,1,normal,0,1}'"
        config = composed("hparams=domainbed_small", "hparams_seed=1", wrong)
        with pytest.raises(
            InterpolationResolutionError, match="`kind` must be one of .*'choice'\\], got 'normal'"
        ):
            _ = config.algorithm.gamma


SWEEP = (
    "sweep=leave_one_domain_out",
    "data=toy",
    "algorithm=erm,mixup",
    "seed=0,1",
    "trainer.max_steps=60",
    "data.steps_per_epoch=20",
    "~callbacks.progress",
)


def start(folder, *overrides):
    command = [sys.executable, "-m", "gga_lightning.experiments.train", *on_digits(overrides)]
    command += [f"hydra.sweep.dir={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # several share the cores of the machine
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **quiet)


def finished(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


def wait(condition, process):
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_sweep_killed_twice_ends_as_one_left_alone(tmp_path):
    """Two algorithms, four annealings, two seeds, three held-out domains."""
    alternatives = [
        "annealing=none",
        "annealing=gga_climb annealing.start_step=21 annealing.end_step=40",
        "annealing=gga_l",
        "annealing=voting annealing.end_step=30",
    ]
    lists = "+hydra.sweeper.alternatives.arm=[" + ",".join(f'"{a}"' for a in alternatives) + "]"
    sweep = [*SWEEP, lists]
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    undisturbed = start(alone, *sweep)
    _, errors = undisturbed.communicate()
    assert undisturbed.returncode == 0, errors
    expected = finished(alone)
    assert len(expected) == 2 * 4 * 2 * 3

    searching = next(name for name in sorted(expected) if "mixup-gga_climb-seed1" in name)
    checkpoint = killed / searching / "checkpoints/last.ckpt"
    killed_in_a_search(checkpoint, *sweep, f"hydra.sweep.dir={killed}")
    assert not (killed / searching / "result.json").exists()
    before = {name: result["starts"] for name, result in finished(killed).items()}
    assert 0 < len(before) < len(expected)

    second = start(killed, *sweep)
    wait(lambda: len(finished(killed)) > len(before) + 5, second)
    second.terminate()
    second.communicate()
    third = start(killed, *sweep)
    _, errors = third.communicate()
    assert third.returncode == 0, errors

    found = finished(killed)
    assert {n: r["starts"] for n, r in found.items() if n in before} == before  # not run again
    assert len(found[searching]["starts"]) == 2
    assert found[searching]["starts"][1] > 0
    assert found.keys() == expected.keys()
    for name, result in expected.items():
        for part in ("selections", "evaluations", "steps", "config_hash"):
            assert found[name][part] == result[part], name
        assert rows(killed / name) == rows(alone / name)


def rows(folder: Path):
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    timed = [index for index, name in enumerate(lines[0]) if name.endswith("seconds")]
    return [[value for i, value in enumerate(line) if i not in timed] for line in lines]
