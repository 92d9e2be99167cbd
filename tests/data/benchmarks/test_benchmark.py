import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from gga_lightning.data.benchmarks.benchmark import DatasetError, find_folder
from gga_lightning.data.benchmarks.mnist import ColoredMNIST, RotatedMNIST
from gga_lightning.data.benchmarks.pacs import PACS
from gga_lightning.data.benchmarks.terra_incognita import TerraIncognita
from gga_lightning.data.cli import DATASETS
from gga_lightning.experiments import train
from tests.data.loopback import image_tree

KINDS = {kind.facts.key: kind for kind in DATASETS}
IMAGES = {
    "pacs": 9_991,
    "vlcs": 10_729,
    "office_home": 15_588,
    "terra_incognita": 24_330,
    "domain_net": 586_575,
    "rotated_mnist": 70_000,
    "colored_mnist": 70_000,
    "sentiment": 23_320,
}
CLASSES = {
    "pacs": 7,
    "vlcs": 5,
    "office_home": 65,
    "terra_incognita": 10,
    "domain_net": 345,
    "rotated_mnist": 10,
    "colored_mnist": 2,
    "sentiment": 2,
}


@pytest.mark.parametrize("key", KINDS)
class TestFacts:
    def test_add_up_to_the_papers_numbers(self, key):
        facts = KINDS[key].facts
        assert facts.images == IMAGES[key]
        assert facts.num_classes == CLASSES[key]
        if "mnist" not in key and key != "sentiment":
            assert list(facts.domains) == sorted(facts.domains)

    def test_archives(self, key):
        archives = KINDS[key].facts.archives
        for archive in archives:
            assert archive.sources
            assert archive.md5 is None or len(archive.md5) == 32
            assert all(source.startswith(("http://", "https://")) for source in archive.sources)
        known = sum(archive.size or 0 for archive in archives)
        assert KINDS[key].facts.download_size >= known

    def test_configuration_agrees(self, key):
        facts = KINDS[key].facts
        file = Path(train.config_directory()) / "data" / f"{key}.yaml"
        settings = yaml.safe_load(file.read_text())
        kind = KINDS[key]
        assert settings["dataset"]["_target_"] == f"{kind.__module__}.{kind.__name__}"
        assert settings["batch_size"] == facts.batch_size
        assert settings["steps_per_epoch"] == facts.checkpoint_interval
        assert (settings["root"], settings["test_domain"]) == ("???", -1)

    def test_a_missing_folder_names_the_command(self, key, tmp_path):
        command = f"gga-data download {key} --root {tmp_path}"
        with pytest.raises(DatasetError, match=rf"`root` must hold .* lacks .* Get it: {command}"):
            KINDS[key](tmp_path)


def test_protocols():
    steps = {key: (kind.facts.steps, kind.facts.checkpoint_interval) for key, kind in KINDS.items()}
    assert steps.pop("domain_net") == (15_001, 1000)
    assert steps.pop("rotated_mnist") == steps.pop("colored_mnist") == (5001, 100)
    assert set(steps.values()) == {(5001, 200)}
    batches = {kind: kind.facts.batch_size for kind in DATASETS}
    assert batches.pop(RotatedMNIST) == batches.pop(ColoredMNIST) == 64
    assert set(batches.values()) == {32}


def test_find_folder(tmp_path):
    for name in ("a/b/art", "a/b/photo", "a/art", "z/y/x/art", "z/y/x/photo"):
        (tmp_path / name).mkdir(parents=True)
    assert find_folder(tmp_path, ("art", "photo")) == tmp_path / "a/b"
    with pytest.raises(DatasetError, match=r"No folder with art, sketch .*\['a', 'z'\]"):
        find_folder(tmp_path, ("art", "sketch"))


@pytest.fixture
def pacs(tmp_path, monkeypatch):
    """A small PACS: 2 images of each class in each domain."""
    facts = replace(PACS.facts, domains=dict.fromkeys(PACS.facts.domains, 6), num_classes=3)
    monkeypatch.setattr(PACS, "facts", facts)
    for name, content in image_tree("PACS/", facts.domains, ("cat", "dog", "horse")).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


class TestBenchmarkFolders:
    def test_as_it_should_be(self, pacs):
        data = PACS(pacs, image_size=8, as_uint8=True)
        assert list(data.domains) == ["art_painting", "cartoon", "photo", "sketch"]
        assert [len(domain.targets) for domain in data.domains.values()] == [6] * 4
        assert (data.name, data.num_classes, data.input_shape) == ("pacs", 3, (3, 8, 8))
        survey = PACS.survey(pacs)
        assert survey.totals == dict.fromkeys(data.domains, 6)
        assert survey.counts["photo"] == {"cat": 2, "dog": 2, "horse": 2}
        assert survey.faults == []
        assert [len(pairs) for pairs in survey.files.values()] == [6] * 4

    def test_files_are_read_as_domainbed_reads_them(self, pacs, tmp_path):
        data = Image.Exif()
        data[0x0112] = 6
        Image.new("RGB", (6, 5)).save(pacs / "PACS/photo/cat/0.jpg", exif=data)
        truncated = pacs / "PACS/photo/cat/1.jpg"
        truncated.write_bytes(truncated.read_bytes()[:-20])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kept = PACS(pacs, faulty="leave_out", cache=tmp_path / "cache").domains["photo"]
        assert len(kept) == 6
        plain = pickle.loads(pickle.dumps(PACS(pacs).domains["photo"]))
        assert plain[0][0].shape == (3, 5, 6)
        assert plain[1][0].shape == (3, 8, 8)
        assert all(torch.equal(kept[i][0], plain[i][0]) for i in range(2))

    def test_what_is_no_domain_is_not_looked_at(self, pacs):
        (pacs / "PACS/__MACOSX/cat").mkdir(parents=True)
        (pacs / "PACS/Readme.txt").write_text("read me")
        assert len(PACS(pacs).domains) == 4
        assert PACS.survey(pacs).faults == []

    def test_differences_are_warned_of(self, pacs):
        (pacs / "PACS/photo/cat/0.jpg").unlink()
        match = r"not the PACS .* photo has 5 images, expected 6\. Look closer: gga-data check pacs"
        with pytest.warns(UserWarning, match=match):
            PACS(pacs)

    def test_faults(self, pacs):
        folder = pacs / "PACS/photo"
        for name in ("0.jpg", "1.jpg"):
            (folder / "cat" / name).rename(folder / name)
        (folder / "dog/notes.txt").write_text("x")
        (folder / "dog/.hidden").write_text("x")
        survey = PACS.survey(pacs)
        assert survey.faults == [
            "photo/0.jpg: not in a folder of a class",
            "photo/1.jpg: not in a folder of a class",
            "photo/cat/: no images",
            "photo/dog/notes.txt: .txt is not among the extensions that count: "
            ".jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff, .webp",
            "photo has 4 images, expected 6.",
            "photo has no images of class cat.",
        ]

    def test_an_empty_domain_is_incomplete(self, pacs):
        for path in sorted((pacs / "PACS/sketch").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        with pytest.raises(DatasetError, match="which lacks sketch"):
            PACS(pacs)


def test_an_earlier_release_is_known():
    facts = TerraIncognita.facts
    earlier = dict(zip(facts.domains, facts.earlier_counts, strict=True))
    assert sum(earlier.values()) == 24_788
    assert facts.differences(earlier, 10) == []
    assert facts.differences(dict(facts.domains), 10) == []
    assert facts.differences(dict(facts.domains), 9) == ["There are 9 classes, expected 10."]
    mixed = {**facts.domains, "location_46": facts.earlier_counts[-1]}
    assert facts.differences(mixed, 10) == ["location_46 has 6,122 images, expected 5,883."]
