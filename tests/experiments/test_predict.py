import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gga_lightning.data import cli
from gga_lightning.experiments import evaluate, predict
from gga_lightning.experiments.models import load_model
from tests.experiments.test_evaluate import run

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/predict.md"
CLASSES = ("cat", "dog", "owl")
QUICK = ("trainer.max_steps=60", "data.steps_per_epoch=60", "annealing=none")
QUICK += (
    "callbacks=checkpoint",
    "data.num_workers=0",
    "data.batch_size=8",
    "algorithm.optimizer.lr=0.01",
)
BRIEF = ("trainer.max_steps=5", "data.steps_per_epoch=5")


def save_odd(pixels, path, kind):
    """An image file of one of the kinds that people have."""
    image = Image.fromarray(pixels)
    if kind == 0:
        image.convert("RGBA").save(path.with_suffix(".png"))
    elif kind == 1:
        image.convert("L").save(path.with_suffix(".jpg"))
    elif kind == 2:  # a GIF by another name
        image.convert("P").save(path.with_suffix(".PNG"), "gif")
    else:
        image.save(path.with_suffix(".JPEG"), "jpeg")


def make_images(root, domains=("photo", "sketch", "web"), classes=CLASSES, *, names=CLASSES, n=8):
    """Noisy images whose brightness tells the class, in folders of these names."""
    random = np.random.default_rng(len(domains) + n)
    for domain in domains:
        for label in classes:
            folder = root / domain / names[CLASSES.index(label)]
            folder.mkdir(parents=True)
            for index in range(n):
                noise = random.normal(30 + 90 * CLASSES.index(label), 20, (9 + index, 12, 3))
                save_odd(noise.clip(0, 255).astype(np.uint8), folder / str(index), index % 4)
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images, and a small run on them."""
    place = tmp_path_factory.mktemp("place")
    make_images(place / "pets")
    own = ("data=folders", f"data.root={place / 'pets'}", "data.dataset.image_size=6")
    run(place / "run", *QUICK, *own, "backbone=mlp")
    return place


@pytest.fixture(autouse=True)
def _short_errors(monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def printed(capsys, *words, status=0):
    capsys.readouterr()
    assert predict.main(list(map(str, words))) == status
    return capsys.readouterr()


class TestFormats:
    def test_table(self, place, capsys, monkeypatch):
        monkeypatch.chdir(place)
        output = printed(capsys, "run", "pets/web/owl/0.png").out
        row = output.splitlines()[-2]
        found = load_model(place / "run").predict(place / "pets/web/owl/0.png")
        assert row.endswith(f"│ owl   │{f'{found.probability:.1%}':>12} │")
        assert all(len(line) <= 80 for line in output.splitlines())

    def test_names_are_whole_and_literal(self, place, capsys, tmp_path):
        path = tmp_path / "[red]x" / ("long" * 40) / ":cat:.png"
        path.parent.mkdir(parents=True)
        path.write_bytes((place / "pets/web/owl/0.png").read_bytes())
        output = printed(capsys, place / "run", path).out
        assert all(len(line) <= 80 for line in output.splitlines())
        cells = [line.split("│")[1].strip() for line in output.splitlines() if "│" in line]
        assert "".join(cells) == str(path)

    def test_csv(self, place, capsys):
        output = printed(capsys, place / "run", place / "pets/web", "--format=csv").out
        rows = list(csv.DictReader(output.splitlines()))
        expected = load_model(place / "run").predict(place / "pets/web")
        assert list(rows[0]) == ["file", "label", "probability", "p_cat", "p_dog", "p_owl"]
        assert [(row["file"], row["label"]) for row in rows] == [
            (entry.source, entry.label) for entry in expected
        ]
        for row, entry in zip(rows, expected, strict=True):
            assert float(row["p_owl"]) == pytest.approx(entry.probabilities["owl"], rel=1e-4)

    def test_json(self, place, capsys):
        words = [place / "pets/web", "--format", "json", place / "pets/photo/cat"]
        rows = list(map(json.loads, printed(capsys, place / "run", *words).out.splitlines()))
        assert len(rows) == 32
        model = load_model(place / "run")
        for row in rows:
            entry = model.predict(row["file"])
            assert row["label"] == entry.label
            assert row["probabilities"] == pytest.approx(entry.probabilities, abs=1e-6)
            assert set(row) == {"file", "label", "probability", "probabilities"}

    def test_classes_called_like_columns(self, place, tmp_path, capsys):
        names = ("file", "label", 'p,"robability')
        make_images(tmp_path / "pets", names=names, n=4)
        own = ("data=folders", f"data.root={tmp_path / 'pets'}", "data.dataset.image_size=6")
        folder = run(tmp_path / "run", *QUICK, *own, "backbone=mlp", *BRIEF)
        output = printed(capsys, folder, tmp_path / "pets", "--format=csv").out
        rows = list(csv.reader(output.splitlines(keepends=True)))
        assert rows[0] == ["file", "label", "probability", *(f"p_{name}" for name in names)]
        assert {len(row) for row in rows} == {6}

    def test_batches_of_any_size(self, place, capsys):
        words = (place / "run", place / "pets", place / "pets", "--format=csv")
        tables = [
            list(csv.DictReader(printed(capsys, *words, "--batch-size", size).out.splitlines()))
            for size in (1, 7, 500)
        ]
        for rows in zip(*tables, strict=True):
            assert len({(row["file"], row["label"]) for row in rows}) == 1
            assert float(rows[0]["p_cat"]) == pytest.approx(float(rows[2]["p_cat"]), abs=1e-5)
        assert len(tables[0]) == 2 * 72


class TestErrors:
    def test_bad_files_do_not_stop_the_others(self, place, capsys, tmp_path):
        (tmp_path / "bad.png").write_text("bad")
        (tmp_path / "empty").mkdir()
        words = ["nowhere.png", place / "pets/web/owl/0.png", tmp_path / "bad.png"]
        words += [tmp_path / "empty", place / "pets/web/cat", "--format=csv"]
        found = printed(capsys, place / "run", *words, status=1)
        assert len(found.out.splitlines()) == 10
        errors = found.err.splitlines()
        assert len(errors) == 3
        assert all(line.startswith("gga-predict: ") for line in errors)
        assert all(any(word in line for line in errors) for word in ("nowhere", "bad.png", "empty"))

    @pytest.mark.parametrize("form", ["table", "csv", "json"])
    def test_nothing_is_printed_without_predictions(self, place, capsys, tmp_path, form):
        (tmp_path / "bad.png").write_text("bad")
        assert printed(capsys, place / "run", "bad.png", "--format", form, status=1).out == ""

    def test_runs(self, place, capsys, tmp_path):
        assert ".hydra/config.yaml" in printed(capsys, tmp_path, "a.png", status=1).err
        words = (place / "run", "a.png", "--selection=swad")
        assert "validation, oracle, last, got 'swad'" in printed(capsys, *words, status=1).err

    @pytest.mark.parametrize("data", ["toy", "digits"])
    def test_runs_on_other_data(self, tmp_path, capsys, data):
        folder = run(tmp_path / "run", *QUICK[2:], *BRIEF, f"data={data}")
        found = printed(capsys, folder, "a.png", status=1)
        assert "RUN must be a run on images, rows of a table or texts" in found.err
        model = load_model(folder)
        assert model.preprocess is None
        assert model.predict(torch.zeros(model.input_shape)).label in model.classes
        assert len(model.predict(torch.zeros(3, *model.input_shape))) == 3

    @pytest.mark.parametrize("words", [[], ["run"], ["run", "a.png", "--batch-size=0"]])
    def test_words(self, words):
        with pytest.raises(SystemExit) as error:
            predict.main(words)
        assert error.value.code == 2

    @pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
    def test_no_gpu(self, place, capsys):
        found = printed(capsys, place / "run", "a.png", "--device=gpu", status=1)
        assert "`--device gpu` needs a GPU" in found.err

    def test_whole_on_request(self, place, monkeypatch):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        with pytest.raises(FileNotFoundError):
            predict.main([str(place / "run"), "nowhere.png"])

    @pytest.mark.slow
    @pytest.mark.parametrize("form", ["table", "csv", "json"])
    def test_a_closed_pipe(self, place, form):
        """As of `| head`, which may end before anything is written."""
        command = [sys.executable, "-m", "gga_lightning.experiments.predict", str(place / "run")]
        command += [str(place / "pets"), "--format", form]
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
        os.close(write)
        assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.slow
def test_the_document(place, tmp_path, monkeypatch, capsys):
    """Every block of docs/predict.md but the training runs, and runs on rows and texts."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/pets").symlink_to(place / "run")
    (tmp_path / "new").mkdir()
    for index in range(1, 4):
        Image.new("L", (16, 16), 80 * index).save(tmp_path / f"new/00{index}.jpg")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    names, commands = {"__name__": "document"}, 0
    module = type(sys)("document")
    monkeypatch.setitem(sys.modules, "document", module)
    names = vars(module)
    for language, block in blocks:
        if language == "python":
            exec(block, names)
            assert capsys.readouterr().out
            continue
        for line in block.replace("\\\n", "").splitlines():
            words = shlex.split(re.split(r" [|>] ", line)[0])
            if words[:2] == ["gga-predict", "runs/pets"]:
                printed(capsys, *words[1:])
                commands += 1
    assert commands == 4
    assert sum(language == "python" for language, _ in blocks) == 3


@pytest.mark.slow
def test_the_whole_path_of_a_newcomer(tmp_path, capsys):
    """From folders of odd images to predictions for new ones."""
    pets = make_images(tmp_path / "pets")
    assert cli.main(["check", "folders", "--root", str(pets)]) == 0
    own = ("data=folders", f"data.root={pets}", "data.dataset.image_size=16", "backbone=mlp")
    folder = run(tmp_path / "run", *QUICK, *own)
    result = json.loads((folder / "result.json").read_text())
    assert result["classes"] == list(CLASSES)
    assert result["domains"] == ["photo", "sketch", "web"]
    assert result["preprocess"]["size"] == 16
    pets.rename(tmp_path / "gone")  # nothing below needs the training data
    model = load_model(folder)
    assert (model.classes, model.domains) == (list(CLASSES), ["photo", "sketch", "web"])

    def accuracies(root, *more):
        overrides = ["data=folders", f"data.root={root}", "data.num_workers=0", *more]
        return {row.domain: row for row in evaluate.evaluate(folder, overrides=overrides)}

    # a zero-width space puts cats last, and looks like nothing
    reordered = make_images(tmp_path / "b", ("snow",), names=("\u200bcat", "dog", " owl"), n=4)
    assert accuracies(reordered)["snow"].accuracy > 0.9
    lacking = make_images(tmp_path / "c", ("snow",), ("dog", "owl"), n=4)
    assert accuracies(lacking)["snow"].accuracy > 0.9
    one = make_images(tmp_path / "d", ("snow",), ("owl",), n=1)
    assert accuracies(one)["snow"][2:] == (1, 1.0)
    renamed = make_images(tmp_path / "e", ("snow",), names=("000", "090", "Owl"), n=2)
    extra = make_images(tmp_path / "f", ("snow",), n=2)
    (extra / "snow" / "owl").rename(extra / "snow" / "owls")
    for root, name in ((renamed, "'Owl' (did you mean 'owl'?)"), (extra, "'owls' (did you mean")):
        with pytest.raises(ValueError, match=re.escape(name)):
            accuracies(root)

    for row in map(json.loads, printed(capsys, folder, lacking, "--format=json").out.splitlines()):
        assert Path(row["file"]).parent.name == row["label"]
    rows = list(csv.DictReader(printed(capsys, folder, one, "--format=csv").out.splitlines()))
    assert [row["label"] for row in rows] == ["owl"]
    assert "owl" in printed(capsys, folder, one / "snow/owl/0.png").out
