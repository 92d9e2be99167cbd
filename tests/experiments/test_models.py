import json
import shutil

import pytest
import torch

from gga_lightning.experiments import models
from gga_lightning.experiments.models import load_model
from gga_lightning.experiments.preprocess import Preprocess
from tests.experiments.test_evaluate import run
from tests.experiments.test_predict import CLASSES, QUICK, make_images


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images, and a small run on them."""
    place = tmp_path_factory.mktemp("place")
    make_images(place / "pets", n=4)
    own = ("data=folders", f"data.root={place / 'pets'}", "data.dataset.image_size=6")
    run(
        place / "run",
        *QUICK,
        *own,
        "backbone=mlp",
        "trainer.max_steps=20",
        "data.steps_per_epoch=20",
    )
    return place


def facts(model):
    return model.classes, model.domains, model.input_shape, model.preprocess


def test_a_finished_run_needs_no_data(place, monkeypatch):
    def no_data(config):
        raise AssertionError

    monkeypatch.setattr(models, "make_data", no_data)
    model = load_model(place / "run")
    assert model.classes == list(CLASSES)
    assert model.domains == ["photo", "sketch", "web"]
    assert model.input_shape == (3, 6, 6)
    assert isinstance(model.preprocess, Preprocess)
    assert (model.preprocess.size, model.preprocess.domainbed) == (6, False)
    assert not model.training


def test_an_unfinished_run_is_described_by_its_data(place, tmp_path):
    folder = shutil.copytree(place / "run", tmp_path / "run")
    (folder / "result.json").unlink()
    found, expected = load_model(folder), load_model(place / "run")
    assert facts(found) == facts(expected)
    image = torch.full((3, 9, 9), 100, dtype=torch.uint8)
    assert found.predict(image) == expected.predict(image)


def test_so_is_one_of_an_earlier_version(place, tmp_path):
    folder = shutil.copytree(place / "run", tmp_path / "run")
    result = json.loads((folder / "result.json").read_text())
    for name in ("classes", "domains", "preprocess"):
        del result[name]
    (folder / "result.json").write_text(json.dumps(result))
    assert facts(load_model(folder)) == facts(load_model(place / "run"))


@pytest.mark.parametrize("selection", ["training_domain_validation", "oracle", "last"])
def test_every_selection_knows_its_classes(place, selection):
    assert load_model(place / "run", selection).classes == list(CLASSES)
