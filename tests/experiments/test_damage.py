"""Damaged run folders: the commands and load_model end well, or with a line about the file."""

import contextlib
import copy
import itertools
import json
import random
import shutil

import pytest

from gga_lightning.experiments import evaluate
from gga_lightning.report import cli as report
from tests.experiments.test_evaluate import SHORT, run
from tests.helpers import mostly_slow

SELECTIONS = ("training_domain_validation", "last")
FILES = (
    ".hydra/config.yaml",
    "result.json",
    "job.json",
    "metrics.csv",
    "checkpoints/last.ckpt",
    "checkpoints/training_domain_validation-*.ckpt",
)
CONTENTS = {
    "empty": lambda old: b"",
    "half": lambda old: old[: len(old) // 2],
    "all but the end": lambda old: old[:-7],
    "zeros, as after a power cut": lambda old: bytes(len(old)),
    "noise": lambda old: random.Random(len(old)).randbytes(300),
    "a few bytes changed": lambda old: scattered(old),
    "not UTF-8": lambda old: b"\xff\xfe caf\xe9 " + old[4:],
    "text": lambda old: b"<!doctype html><title>404</title>",
    "a list": lambda old: b"[1, 2, {}]",
    "a number": lambda old: b"3",
    "null": lambda old: b"null",
    "deep": lambda old: b"[" * 3_000,
    "an empty object": lambda old: b"{}",
    "an alias of itself": lambda old: b"&a {data: *a, algorithm: *a}",
    "other keys": lambda old: b'{"data": {"dataset": 3}, "algorithm": [], "seed": "x"}',
}
VALUES = (None, [], {}, "text", -1, 1e400, float("nan"), True, [[["deep"]]], {"a": {"b": None}})


def scattered(old):
    changed, draw = bytearray(old), random.Random(1)
    for _ in range(20):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A finished run."""
    return run(tmp_path_factory.mktemp("runs") / "toy", *SHORT, "data=toy", "callbacks=checkpoint")


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "damaged")


def find(folder, name):
    (path,) = folder.glob(name)
    return path


COMMANDS = (
    (evaluate.main, ["--selection=last", "--json"]),
    (evaluate.main, []),
    (report.main, []),
)


def assert_ends_well(folder, capsys, *more):
    """Status 0, or one line that names the folder or a file of it."""
    for main, options in (*COMMANDS, *more):
        arguments = [str(folder), *options]
        status = main(arguments)
        errors = capsys.readouterr().err
        assert status in (0, 1)
        if status:
            (line,) = errors.splitlines()
            assert folder.name in line, line
    for selection in SELECTIONS:
        with contextlib.suppress(ValueError):
            evaluate.load_model(folder, selection)


@pytest.mark.parametrize(
    ("name", "content"),
    mostly_slow(
        list(itertools.product(FILES, CONTENTS)),
        *((name, "half") for name in FILES),
        *itertools.product(FILES[:3], ["not UTF-8", "other keys"]),
    ),
)
def test_a_file_with_other_content(folder, capsys, name, content):
    path = find(folder, name)
    path.write_bytes(CONTENTS[content](path.read_bytes()))
    assert_ends_well(folder, capsys, (evaluate.main, ["data=toy"]))


@pytest.mark.parametrize("name", [*FILES, ".hydra", "checkpoints"])
@pytest.mark.parametrize(
    "kind",
    mostly_slow(["missing", "a folder", "a link to nothing", "a link to itself"], "missing"),
)
def test_no_file_in_its_place(folder, capsys, name, kind):
    path = find(folder, name)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind != "missing":
        path.symlink_to(path if kind == "a link to itself" else folder / "nothing")
    assert_ends_well(folder, capsys)


def places(content, inside=()):
    yield inside
    items = content.items() if isinstance(content, dict) else ()
    for name, value in items:
        yield from places(value, (*inside, name))


def set_at(content, place, value):
    for name in place[:-1]:
        content = content[name]
    if value is KeyError:
        del content[place[-1]]
    else:
        content[place[-1]] = value


ENTRIES = ("data", "classes", "domains", "source_domains", "num_classes", "input_shape")
ENTRIES += ("preprocess", "selections", "evaluations", "test_domains", "config_hash", "seed")


@pytest.mark.parametrize("entry", mostly_slow(ENTRIES, "classes", "selections"))
def test_a_result_with_an_entry_missing_or_of_another_kind(folder, capsys, entry):
    path = folder / "result.json"
    good = json.loads(path.read_text())
    chosen = [place for place in places(good) if place[:1] == (entry,)]
    draw = random.Random(entry)
    for place in draw.sample(chosen, min(2, len(chosen))):
        for value in (KeyError, *draw.sample(VALUES, 3)):
            damaged = copy.deepcopy(good)
            set_at(damaged, place, value)
            path.write_text(json.dumps(damaged))
            assert_ends_well(folder, capsys)
