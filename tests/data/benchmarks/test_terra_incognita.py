import json
import os
import time

import pytest

from gga_lightning.data.benchmarks.benchmark import DatasetError
from gga_lightning.data.benchmarks.terra_incognita import CATEGORIES, PARTS, TerraIncognita, arrange

LOCATIONS = TerraIncognita.facts.contents


def annotations(images, pairs):
    """As LILA's: images are (id, location), pairs are (image id, category)."""
    names = ["empty", "bird", "cat", "car"]
    return {
        "info": {},
        "categories": [{"id": 30 + place, "name": name} for place, name in enumerate(names)],
        "images": [{"id": i, "location": place, "file_name": f"{i}.jpg"} for i, place in images],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 30 + names.index(name)}
            for n, (i, name) in enumerate(pairs)
        ],
    }


def unpack(folder, parts, files):
    (folder / "eccv_18_all_images_sm").mkdir(parents=True)
    (folder / "eccv_18_annotation_files").mkdir()
    for part in PARTS:
        content = json.dumps(parts.get(part, annotations([], [])))
        (folder / f"eccv_18_annotation_files/{part}_annotations.json").write_text(content)
    for name in files:
        (folder / f"eccv_18_all_images_sm/{name}.jpg").write_text(name)
    return folder


def sorted_files(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.jpg")}


def test_sorts(tmp_path):
    unpacked = unpack(
        tmp_path,
        {
            "train": annotations(
                [("a", 38), ("b", "46"), ("c", 7)], [("a", "cat"), ("b", "bird"), ("c", "cat")]
            ),
            # two animals; a car; twice the same; one that no annotation names
            "cis_val": annotations(
                [("d", 100), ("e", 43), ("f", 43), ("g", 43)],
                [("d", "cat"), ("d", "bird"), ("e", "car"), ("f", "empty"), ("f", "empty")],
            ),
            "trans_test": annotations([("a", 38)], [("a", "cat")]),
        },
        "abcdefg",
    )
    folder = arrange(unpacked, LOCATIONS)
    assert sorted_files(folder) == {
        "location_38/cat/a.jpg": "a",
        "location_46/bird/b.jpg": "b",
        "location_100/cat/d.jpg": "d",
        "location_100/bird/d.jpg": "d",
        "location_43/empty/f.jpg": "f",
    }


def test_copies_where_there_are_no_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    unpacked = unpack(tmp_path, {"train": annotations([("a", 38)], [("a", "cat")])}, "a")
    assert sorted_files(arrange(unpacked, LOCATIONS)) == {"location_38/cat/a.jpg": "a"}


def test_names_lead_nowhere_else(tmp_path):
    parts = annotations([("a", 38)], [("a", "cat")])
    parts["images"][0]["file_name"] = "../../../a.jpg"
    folder = arrange(unpack(tmp_path / "in", {"train": parts}, "a"), LOCATIONS)
    assert sorted_files(folder) == {"location_38/cat/a.jpg": "a"}
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_missing_files(tmp_path):
    parts = {"train": annotations([("a", 38), ("b", 38)], [("a", "cat"), ("b", "cat")])}
    with pytest.raises(DatasetError, match=r"1 images that the annotations name are not in"):
        arrange(unpack(tmp_path / "one", parts, "a"), LOCATIONS)
    unpacked = unpack(tmp_path / "two", parts, "ab")
    (unpacked / "eccv_18_annotation_files/trans_val_annotations.json").unlink()
    with pytest.raises(DatasetError, match=r"lack trans_val_annotations\.json"):
        arrange(unpacked, LOCATIONS)


def test_time_is_linear(tmp_path):
    """A search of all annotations for each image would take minutes."""
    ids = [str(number) for number in range(20_000)]
    parts = annotations([(i, 38) for i in ids], [(i, "car") for i in ids])
    unpacked = unpack(tmp_path, {"train": parts}, "")
    began = time.process_time()
    assert sorted_files(arrange(unpacked, LOCATIONS)) == {}
    assert time.process_time() - began < 5


def test_categories():
    assert len(CATEGORIES) == TerraIncognita.facts.num_classes
