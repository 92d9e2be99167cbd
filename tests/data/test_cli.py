import importlib.metadata
import json
import os
import re
import shlex
import shutil
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

from gga_lightning.data import cli
from gga_lightning.data.benchmarks.benchmark import Archive
from gga_lightning.data.benchmarks.domain_net import DUPLICATES, DomainNet
from gga_lightning.data.benchmarks.mnist import ColoredMNIST, RotatedMNIST
from gga_lightning.data.benchmarks.office_home import OfficeHome
from gga_lightning.data.benchmarks.pacs import PACS
from gga_lightning.data.benchmarks.sentiment import Sentiment
from gga_lightning.data.benchmarks.terra_incognita import CATEGORIES, TerraIncognita
from gga_lightning.data.benchmarks.vlcs import VLCS
from gga_lightning.data.cli import DATASETS, main
from gga_lightning.data.download import transfer as transfer_module
from gga_lightning.data.splits import split_indices
from gga_lightning.experiments import train
from tests.data.benchmarks.test_terra_incognita import annotations
from tests.data.loopback import (
    Server,
    image,
    image_tree,
    make_idx,
    make_tar,
    make_zip,
    plain,
    troubled,
)
from tests.helpers import mostly_slow

SMALL = ("trainer.max_steps=2", "data.steps_per_epoch=2", "data.batch_size=2", "backbone=mlp")
QUIET = ("annealing=none", "callbacks=none", "data.num_workers=0")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer_module, "_PAUSE", 0.0)
    with Server() as running:
        yield running


@pytest.fixture
def gga_train(monkeypatch, tmp_path, capsys):
    """Runs gga-train in this process and returns what is in result.json."""
    filters = list(warnings.filters)

    def run(*overrides):
        folder = tmp_path / "run"
        arguments = ["gga-train", *SMALL, *QUIET, *overrides, f"hydra.run.dir={folder}"]
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            train.main()
        finally:
            warnings.filters[:] = filters
        return json.loads((folder / "result.json").read_text())

    return run


def make_small(monkeypatch, kind, archives, per_domain, classes):
    """Replaces the facts that are another size in the test."""
    domains = dict(zip(kind.facts.domains, per_domain, strict=True))
    size = sum(archive.size or 0 for archive in archives)
    facts = replace(
        kind.facts, archives=archives, domains=domains, num_classes=classes, download_size=size
    )
    monkeypatch.setattr(kind, "facts", facts)


def one_archive(kind, file, top, make, classes):
    def prepare(monkeypatch, server):
        tree = image_tree(top, kind.facts.domains, [f"class_{n}" for n in range(classes)])
        archive = troubled(server, file, make(tree))
        make_small(monkeypatch, kind, (archive,), [2 * classes] * 4, classes)

    return prepare


def terra_incognita(monkeypatch, server):
    ids = {
        f"{place}-{category}-{n}": (place, category)
        for place in (38, 43, 46, 100, 7)
        for category in (*CATEGORIES, "car")
        for n in (0, 1)
    }
    parts = annotations([(i, place) for i, (place, _) in ids.items()], [])
    names = [*sorted(CATEGORIES), "car"]
    parts["categories"] = [{"id": n, "name": name} for n, name in enumerate(names)]
    parts["annotations"] = [
        {"image_id": i, "category_id": names.index(category)} for i, (_, category) in ids.items()
    ]
    empty = json.dumps(annotations([], [])).encode()
    files = {
        f"eccv_18_annotation_files/{part}_annotations.json": empty
        for part in ("cis_test", "cis_val", "trans_test", "trans_val")
    }
    files["eccv_18_annotation_files/train_annotations.json"] = json.dumps(parts).encode()
    images = {f"eccv_18_all_images_sm/{i}.jpg": image(n) for n, i in enumerate(ids)}
    archives = (
        troubled(server, "eccv_18_all_images_sm.tar.gz", make_tar(images)),
        troubled(server, "eccv_18_annotations.tar.gz", make_tar(files)),
    )
    make_small(monkeypatch, TerraIncognita, archives, [20] * 4, 10)


def domain_net(monkeypatch, server):
    domains = list(DomainNet.facts.domains)
    archives = [
        (troubled if domain == "real" else plain)(
            server, f"{domain}.zip", make_zip(image_tree("", [domain], ["ant", "bee", "cow"]))
        )
        for domain in domains
    ]
    listed = b"clipart/ant/0.jpg\nsketch/cow/1.jpg\nsketch/cow/7.jpg\n"
    archives.append(troubled(server, DUPLICATES, listed))
    make_small(monkeypatch, DomainNet, tuple(archives), [5, 6, 6, 6, 6, 5], 3)


def mnist(kind):
    def prepare(monkeypatch, server):
        random = np.random.default_rng(0)
        archives = []
        for archive, count in zip(kind.facts.archives, (100, 100, 20, 20), strict=True):
            shape = (count, 28, 28) if "images" in archive.file else (count,)
            top = 256 if "images" in archive.file else 10
            content = make_idx(random.integers(0, top, shape, dtype=np.uint8))
            archives.append(troubled(server, archive.file, content))
        parts = len(kind.facts.domains)
        make_small(
            monkeypatch, kind, tuple(archives), [120 // parts] * parts, kind.facts.num_classes
        )

    return prepare


def sentiment(monkeypatch, server):
    def lines(domain):
        for n in range(60):
            rating = (-1.5, 0.0, 2.25)[n % 3]
            yield f"{n // 2}_{n % 2}\t{rating}\tWord {'no' if rating < 0 else 'yes'}, {domain}."

    ratings = {
        f"hutto_ICWSM_2014/{file}": "\r\n".join([*lines(n), ""]).encode()
        for n, file in enumerate(Sentiment.facts.files)
    }
    [known] = Sentiment.facts.archives
    archive = troubled(server, known.file, make_tar(ratings))
    make_small(monkeypatch, Sentiment, (archive,), [40] * 4, 2)


KINDS = {kind.facts.key: kind for kind in DATASETS}
PREPARE = {
    "pacs": one_archive(PACS, "PACS.zip", "kfold/", make_zip, 7),
    "vlcs": one_archive(VLCS, "VLCS.tar.gz", "VLCS/", make_tar, 5),
    "office_home": one_archive(
        OfficeHome, "office_home.zip", "OfficeHomeDataset_10072016/", make_zip, 65
    ),
    "terra_incognita": terra_incognita,
    "domain_net": domain_net,
    "rotated_mnist": mnist(RotatedMNIST),
    "colored_mnist": mnist(ColoredMNIST),
    "sentiment": sentiment,
}


@pytest.mark.parametrize("key", mostly_slow(KINDS, "pacs", "rotated_mnist", "sentiment"))
def test_from_nothing_to_a_trained_model(key, server, tmp_path, monkeypatch, capsys, gga_train):
    PREPARE[key](monkeypatch, server)
    facts, root = KINDS[key].facts, tmp_path / "data"

    assert main(["download", key, "--root", str(root)]) == 0
    said = capsys.readouterr().out
    licence, failure = said.index("Licence:"), said.index("a web page")
    assert licence < failure
    assert facts.licence in said
    assert f"Train on it: gga-train data={key} data.root={root}" in said
    assert [path.name for path in root.iterdir()] == [facts.folder]

    assert main(["check", key, "--root", str(root)]) == 0
    assert (
        f"{facts.title}: {facts.images:,} {facts.unit}, no problems found."
        in capsys.readouterr().out
    )

    size = () if "mnist" in key else ("data.dataset.image_size=16",)
    size = ("data.dataset.inputs=tfidf",) if key == "sentiment" else size
    result = gga_train(f"data={key}", f"data.root={root}", *size)
    assert (result["data"], result["steps"]) == (key, 2)
    assert [*result["source_domains"], result["test_domain"]] == list(facts.domains)
    data = KINDS[key](root)
    assert {name: len(domain) for name, domain in data.domains.items()} == dict(facts.domains)
    assert data.num_classes == facts.num_classes


class TestList:
    def test_tells_what_one_wants_to_know(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        assert main(["list"]) == 0
        said = capsys.readouterr().out
        for kind in DATASETS:
            line = next(li for li in said.splitlines() if li.startswith(f"{kind.facts.key} "))
            for text in (", ".join(kind.facts.domains), f"{kind.facts.images:,}"):
                assert text in line
            assert f" {kind.facts.num_classes} " in line
            assert kind.facts.licence in said
        for size in ("174 MB", "3.6 GB", "1.1 GB", "6.5 GB", "17.1 GB", "12 MB"):
            assert size in said

    @pytest.mark.parametrize("columns", [60, 80, 120])
    def test_breaks_lines_between_words(self, capsys, monkeypatch, columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main(["list"]) == 0
        said = capsys.readouterr().out
        assert max(map(len, said.splitlines())) <= columns
        words = set(re.findall(r"[^\s,]+", said))
        for kind in DATASETS:
            texts = (*kind.facts.domains, f"{kind.facts.images:,}", kind.facts.licence)
            assert set(re.findall(r"[^\s,]+", " ".join(texts))) <= words


class TestHelp:
    def test_version(self, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["--version"])
        assert caught.value.code == 0
        version = importlib.metadata.version("gga-lightning")
        assert capsys.readouterr().out == f"gga-lightning {version}\n"

    @pytest.mark.parametrize("command", [[], ["list"], ["download"], ["check"]])
    def test_has_an_example_that_parses(self, command, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as caught:
            main([*command, "--help"])
        assert caught.value.code == 0
        said = capsys.readouterr().out
        assert max(map(len, said.splitlines())) <= 80
        _, examples = said.split("for example:\n")
        parser = cli._parser()
        for example in examples.splitlines():
            name, *words = shlex.split(example, comments=True)
            assert name in ("gga-data", "gga-train")
            if name == "gga-data":
                assert command in ([], words[:1])
                parser.parse_args(words)


@pytest.fixture
def pacs(server, tmp_path, monkeypatch, capsys):
    """A small PACS in a root."""
    archive = plain(server, "PACS.zip", make_zip(image_tree("kfold/", PACS.facts.domains, "ab")))
    make_small(monkeypatch, PACS, (archive,), [4] * 4, 2)
    assert main(["download", "pacs", "--root", str(tmp_path / "data")]) == 0
    capsys.readouterr()
    return tmp_path / "data"


class TestDownload:
    def test_twice(self, pacs, capsys, server):
        assert main(["download", "pacs", "--root", str(pacs)]) == 0
        assert f"PACS is already in {pacs / 'PACS'}." in capsys.readouterr().out
        assert len(server.asked("PACS.zip")) == 1

    def test_other_numbers_than_known(self, pacs, capsys):
        (pacs / "PACS/photo/a/0.jpg").unlink()
        assert main(["download", "pacs", "--root", str(pacs)]) == 1
        said = capsys.readouterr().out
        assert "differs from what it is known to be:\n- photo has 3 images, expected 4." in said

    def test_all_sources_down(self, server, tmp_path, monkeypatch, capsys):
        archive = Archive("PACS.zip", (server.url("gone"),))
        make_small(monkeypatch, PACS, (archive,), [4] * 4, 2)
        assert main(["download", "pacs", "--root", str(tmp_path / "data")]) == 1
        error = capsys.readouterr().err
        assert error.startswith("gga-data: No source serves PACS.zip at present:")
        assert f"put it at {tmp_path / 'data/PACS.zip'}" in error

    def test_a_root_that_cannot_be_written(self, tmp_path, capsys):
        (tmp_path / "file").write_text("in the way")
        assert main(["download", "pacs", "--root", str(tmp_path / "file")]) == 1
        error = capsys.readouterr().err
        assert error.startswith("gga-data: ")
        assert len(error.splitlines()) == 1

    def test_stopped(self, pacs, monkeypatch, capsys):
        def stop(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(PACS, "survey", stop)
        assert main(["download", "pacs", "--root", str(pacs)]) == 1
        assert "stopped; run the same command again to resume" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments", [["download", "imagenet", "--root", "x"], ["download", "pacs"], []]
    )
    def test_wrong_arguments(self, arguments, capsys):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "usage: gga-data" in capsys.readouterr().err


class TestCheck:
    def test_table(self, pacs, capsys):
        assert main(["check", "pacs", "--root", str(pacs)]) == 0
        lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
        assert ["a", "2", "2", "2", "2"] in lines
        assert ["all", "4", "4", "4", "4"] in lines
        assert ["expected", "4", "4", "4", "4"] in lines

    def test_unreadable_files_are_named(self, pacs, capsys):
        broken = pacs / "PACS/sketch/b/1.jpg"
        broken.write_bytes(b"\xff\xd8 no more")
        (pacs / "PACS/cartoon/a/0.jpg").write_text("<html>")
        assert main(["check", "pacs", "--root", str(pacs)]) == 1
        said = capsys.readouterr().out
        for path in (broken, pacs / "PACS/cartoon/a/0.jpg"):
            assert f"- The file '{path}' (" in said
        assert said.count("cannot be decoded") == 2

    def test_missing_class(self, pacs, capsys):
        shutil.rmtree(pacs / "PACS/photo/a")
        assert main(["check", "pacs", "--root", str(pacs)]) == 1
        said = capsys.readouterr().out
        assert "- photo has 2 images, expected 4." in said
        assert "- photo has no images of class a." in said

    def test_many_faults(self, pacs, capsys):
        for number in range(30):
            (pacs / f"PACS/photo/{number}.txt").write_text("x")
        assert main(["check", "pacs", "--root", str(pacs)]) == 1
        assert "and 10 more" in capsys.readouterr().out

    def test_your_own_folders(self, tmp_path, capsys):
        make_own(tmp_path, "art/cat/0", "art/dog/1", "ink/cat/2", "ink/cat/3")
        assert main(["check", "folders", "--root", str(tmp_path)]) == 0
        output = capsys.readouterr().out
        lines = [line.replace("│", " ").split() for line in output.splitlines()]
        assert ["dog", "1", "0"] in lines
        assert ["all", "2", "2"] in lines
        assert f"{tmp_path}: 4 images, no problems found." in output
        (tmp_path / "ink/cat/3.jpg").write_bytes(b"broken")
        (tmp_path / "ink/notes.txt").write_text("x")
        assert main(["check", "folders", "--root", str(tmp_path)]) == 1
        said = capsys.readouterr().out
        assert "3.jpg' (6 bytes) cannot be decoded as an image" in said
        assert "- ink/notes.txt: not in a folder of a class" in said

    def test_names_that_are_not_utf_8(self, tmp_path, capsys):
        make_own(tmp_path, "art/cat/0", "ink/cat/1")
        (tmp_path / "ink" / os.fsdecode(b"caf\xe9.txt")).touch()
        assert main(["check", "folders", "--root", str(tmp_path)]) == 1
        assert r"- ink/caf\udce9.txt: not in a folder of a class" in capsys.readouterr().out

    @pytest.mark.parametrize("key", ["folders", "pacs"])
    def test_truncated_files(self, pacs, key, capsys):
        root = pacs / "PACS" if key == "folders" else pacs
        cut = pacs / "PACS/photo/a/1.jpg"
        cut.write_bytes(cut.read_bytes()[:-30])
        assert main(["check", key, "--root", str(root)]) == 1
        assert f"- The file '{cut}' (" in (said := capsys.readouterr().out)
        assert ") is truncated or damaged: " in said

    def test_no_folders_of_your_own(self, tmp_path, capsys):
        assert main(["check", "folders", "--root", str(tmp_path)]) == 1
        assert "- There are no images in domain/class/ folders." in capsys.readouterr().out
        assert main(["check", "folders", "--root", str(tmp_path / "none")]) == 1
        assert "`root` must be a folder of domains" in capsys.readouterr().err

    def test_not_there(self, tmp_path, capsys):
        assert main(["check", "pacs", "--root", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert f"Get it: gga-data download pacs --root {tmp_path}" in error


def make_own(root, *names):
    """Images, whose pixels the last letter of the name says."""
    for name in names:
        path = root / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(ord(name[-1])))
    rows = [f"{name}.jpg,{name.split('/')[1]},{name.split('/')[0]}" for name in names]
    (root / "list.csv").write_text("\n".join(["path,label,domain", *rows]))


class TestDuplicates:
    """The whole command; which groups there are is tested with find_duplicates."""

    CASES = {  # noqa: RUF012
        "several domains": ["art/cat/1", "ink/cat/1"],
        "several classes": ["art/cat/1", "art/dog/1", "ink/cat/2"],
        "within a domain": ["art/cat/1", "art/cat/21", "ink/cat/2"],
    }

    @pytest.mark.parametrize("key", ["folders", "table"])
    @pytest.mark.parametrize("case", CASES)
    def test_in_your_own_data(self, case, key, tmp_path, capsys):
        make_own(tmp_path, *self.CASES[case])
        where = {"folders": ["--root", str(tmp_path)], "table": ["--file", f"{tmp_path}/list.csv"]}
        status = main(["check", key, *where[key]])
        said = capsys.readouterr().out
        assert f"1 group of identical images {'' if 'within' in case else 'in '}{case}" in said
        first, second = self.CASES[case][:2]
        assert f"- {tmp_path}/{first}.jpg, {tmp_path}/{second}.jpg\n" in said
        harmless = case == "within a domain"  # a fifth of two images is none
        assert status == (0 if harmless else 1)
        assert ("no problems found" in said) == harmless

    def test_in_both_parts_of_a_split(self, tmp_path, capsys):
        names = [f"art/cat/{letter}" for letter in "abcde"]
        make_own(tmp_path, *names, "ink/cat/x")
        statuses = []
        for seed in range(3):
            _, (alone,) = split_indices(5, 0.2, seed, 0)
            (tmp_path / f"{names[alone]}.jpg").write_bytes(image(1))
            other = names[alone - 1]
            (tmp_path / f"{other}.jpg").write_bytes(image(1))
            command = ["check", "folders", "--root", str(tmp_path), "--split-seed", str(seed)]
            statuses.append(main(command))
            assert f"in both the training and the validation part of split seed {seed}:" in (
                capsys.readouterr().out
            )
            make_own(tmp_path, *names)
        assert statuses == [1, 1, 1]

    def test_in_a_benchmark_they_are_notes(self, pacs, capsys):
        shutil.copy(pacs / "PACS/photo/a/0.jpg", pacs / "PACS/sketch/b/0.jpg")
        assert main(["check", "pacs", "--root", str(pacs)]) == 0
        said = capsys.readouterr().out
        assert "Note: 1 group of identical images in several domains" in said
        assert "PACS: 16 images, no problems found." in said

    def test_at_most_twenty_are_named(self, tmp_path, capsys):
        letters = [chr(ord("A") + index) for index in range(26)]
        make_own(
            tmp_path, *(f"{place}/cat/{letter}" for place in ("art", "ink") for letter in letters)
        )
        assert main(["check", "folders", "--root", str(tmp_path)]) == 1
        said = capsys.readouterr().out
        assert "26 groups of identical images in several domains" in said
        assert said.count("\n- ") == 20
        assert "and 6 more" in said

    def test_wrong_arguments(self, tmp_path, capsys):
        for arguments, text in {
            ("check", "table"): "check table needs --file",
            ("check", "folders"): "check folders needs --root",
            ("check", "pacs", "--root", "x", "--file", "y"): "--file goes with check table only",
        }.items():
            with pytest.raises(SystemExit):
                main(arguments)
            assert text in capsys.readouterr().err
        assert main(["check", "table", "--file", str(tmp_path / "no.csv")]) == 1
        assert "gga-data: `file` must be a CSV file" in capsys.readouterr().err

    def test_a_table_with_problems(self, tmp_path, capsys):
        make_own(tmp_path, "art/cat/1", "ink/cat/2")
        (tmp_path / "ink/cat/2.jpg").rename(tmp_path / "moved.jpg")
        file = tmp_path / "list.csv"
        assert main(["check", "table", "--file", str(file), "--root", str(tmp_path)]) == 1
        assert "- line 3: ink/cat/2.jpg: no such file" in capsys.readouterr().out


def test_both_mnists_share_their_files(server, tmp_path, monkeypatch, capsys):
    PREPARE["rotated_mnist"](monkeypatch, server)
    mnist(ColoredMNIST)(monkeypatch, server)
    for key in ("rotated_mnist", "colored_mnist"):
        assert main(["download", key, "--root", str(tmp_path)]) == 0
    assert "ColoredMNIST is already in" in capsys.readouterr().out
