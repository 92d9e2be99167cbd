"""The embedded emoji: what they are, and whose."""

import csv
import io
import re
import subprocess
import sys
import zipfile
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from gga_lightning.data import Emoji

EMBEDDED = files("gga_lightning.data").joinpath("embedded")
COUNTS = {  # face, hand, mammal, bird, plant, produce, meal, building, vehicle, clothing
    "noto": [111, 43, 65, 22, 29, 39, 65, 33, 60, 47],
    "twemoji": [111, 43, 65, 22, 29, 39, 65, 33, 60, 47],
    "fluent-3d": [107, 43, 65, 21, 28, 36, 65, 33, 60, 47],
    "openmoji": [111, 43, 65, 22, 29, 39, 65, 33, 60, 47],
    "emojione-mono": [78, 30, 44, 12, 23, 24, 46, 28, 51, 28],
}


@pytest.fixture(scope="module")
def emoji():
    return Emoji()


def test_counts(emoji):
    found = {
        name: [Counter(style.targets.tolist())[c] for c in range(10)]
        for name, style in emoji.domains.items()
    }
    assert found == COUNTS
    assert len({group for style in emoji.domains.values() for group in style.groups}) == 514


def test_an_object_has_one_class_and_label_and_each_style_has_it_once(emoji):
    facts = {}
    for style in emoji.domains.values():
        assert len(set(style.groups)) == len(style)
        for group, target, label in zip(
            style.groups, style.targets.tolist(), style.labels, strict=True
        ):
            assert facts.setdefault(group, (target, label)) == (target, label)
    assert facts["1F415"] == (emoji.classes.index("mammal"), "dog")


def test_pictures(emoji):
    noto, mono = emoji.domains["noto"], emoji.domains["emojione-mono"]
    image, target = noto[3]
    assert image.shape == (3, 64, 64)
    assert target == noto.targets[3]
    assert (image == noto.images[3]).all()
    corners = noto.images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).float().mean() > 0.95  # on white
    assert (mono.images[:, 0] == mono.images[:, 2]).all()  # no colours
    assert not (noto.images[:, 0] == noto.images[:, 2]).all()


def test_no_two_pictures_of_a_style_are_equal(emoji):
    for style in emoji.domains.values():
        assert len(style.images.flatten(1).unique(dim=0)) == len(style)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"domains": ["noto", "apple"]}, "`domains` must be different ones of .*'apple'"),
        ({"domains": ["noto", "noto"]}, "`domains` must be different ones of"),
        ({"domains": []}, "`domains` must be different ones of"),
        ({"image_size": 0}, "`size` must be at least 1, got 0"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Emoji(**settings)


def test_some_styles_at_another_size():
    emoji = Emoji(domains=["openmoji", "noto"], image_size=32)
    assert list(emoji.domains) == ["openmoji", "noto"]
    image, _ = emoji.domains["noto"][0]
    for transform in (emoji.eval_transform, emoji.train_transform):
        assert transform(image).shape == emoji.input_shape == (3, 32, 32)


def test_the_notice_names_every_style_with_its_licence():
    notice = EMBEDDED.joinpath("NOTICE.md").read_text()
    rows = {row.split(" | ")[0].strip("| "): row for row in re.findall(r"^\| .*$", notice, re.M)}
    licences = ("Apache-2.0", "CC-BY-4.0", "MIT", "CC-BY-SA-4.0", "CC-BY-4.0")
    for style, licence in zip(COUNTS, licences, strict=True):
        assert licence in rows[style]
    assert "Apache License" in EMBEDDED.joinpath("APACHE-2.0.txt").read_text()
    assert "The above copyright notice and this permission notice" in notice


def test_the_archive_has_nothing_else():
    with zipfile.ZipFile(io.BytesIO(EMBEDDED.joinpath("emoji.zip").read_bytes())) as archive:
        names = archive.namelist()
        rows = list(csv.reader(io.TextIOWrapper(archive.open("objects.csv"), "utf-8")))
    assert len(names) == 1 + sum(map(sum, COUNTS.values()))
    assert rows[0] == ["code_point", "class", "label"]
    assert len(rows) == 515


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_is_rebuilt_byte_for_byte(tmp_path):
    """Needs the registries of Python and npm packages, and Linux on an x86-64 processor."""
    script = Path(__file__).parents[2] / "tools" / "build_emoji.py"
    if not script.exists():
        pytest.skip("tools/build_emoji.py is in the repository only")
    (packages,) = re.findall(r"pip install (resvg\S+ pillow\S+)", script.read_text())
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "v"], check=True)
    python = tmp_path / "v" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "-q", *packages.split()]
    if subprocess.run(pip, check=False).returncode:
        pytest.skip(f"{packages} cannot be installed: no registry of Python packages?")
    done = subprocess.run(
        [python, script, tmp_path / "emoji.zip"], capture_output=True, text=True, check=False
    )
    if "urllib.error." in done.stderr or "TimeoutError" in done.stderr:
        pytest.skip("the registry of npm packages cannot be reached")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "emoji.zip").read_bytes() == EMBEDDED.joinpath("emoji.zip").read_bytes()
