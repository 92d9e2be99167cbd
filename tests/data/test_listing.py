import os
import socket
import unicodedata

import pytest
import torch
from PIL import Image

from gga_lightning.data import ImageFolders, listing
from gga_lightning.data.decoding import decode
from gga_lightning.data.listing import examine, list_folders

NAMES = ("left/cat/0", "left/dog/1", "right/cat/2", "right/dog/3")


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        add(tmp_path / "pets" / f"{name}.png")
    return tmp_path / "pets"


def add(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3)).save(path, "PNG")


def only(root, domains=None):
    """The one problem."""
    listed, problems = list_folders(root, domains)
    assert sum(map(len, listed.values())) == len(NAMES)
    (problem,) = problems
    return problem


class TestLinks:
    @pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "../../../.."])
    def test_to_a_folder_above(self, root, target):
        (root / "left/cat/loop").symlink_to(target)
        assert only(root) == f"left/cat/loop{os.sep}: a link to a folder above it"

    def test_two_that_lead_to_each_other(self, root, tmp_path):
        (tmp_path / "other").mkdir()
        (tmp_path / "other/back").symlink_to(root / "left/cat")
        (root / "left/cat/on").symlink_to(tmp_path / "other")
        assert only(root) == f"left/cat/on/back{os.sep}: a link to a folder above it"

    @pytest.mark.parametrize("place", ["left/all", "all"])
    def test_in_the_place_of_a_class_or_domain(self, root, place):
        (root / place).symlink_to(root)
        _, problems = list_folders(root)
        assert f"{place}{os.sep}: a link to a folder above it" in problems

    def test_to_a_folder_beside_is_followed(self, root, tmp_path):
        add(tmp_path / "more/9.png")
        (root / "left/cat/more").symlink_to(tmp_path / "more")
        listed, problems = list_folders(root)
        assert problems == []
        assert (str(root / "left/cat/more/9.png"), "cat") in listed["left"]

    @pytest.mark.parametrize("name", ["left/cat/x.jpg", "left/x", "x"])
    def test_to_nothing(self, root, name):
        (root / name).symlink_to("nowhere")
        assert only(root) == f"{name}: a link to nothing"

    def test_to_itself(self, root):
        (root / "left/cat/x.jpg").symlink_to("x.jpg")
        assert only(root).startswith("left/cat/x.jpg: cannot be read (Too many levels")


class TestWhatIsNoImage:
    @pytest.mark.parametrize("place", ["left/cat/x.jpg", "left/x.PNG", "x.tif"])
    def test_a_folder_with_the_name_of_one(self, root, place):
        add(root / place / "5.png")
        assert only(root) == f"{place}{os.sep}: a folder with the name of an image"

    @pytest.mark.parametrize("name", ["left/cat/x.jpg", "left/x.jpg", "x.jpg"])
    def test_a_pipe(self, root, name):
        os.mkfifo(root / name)
        assert only(root) == f"{name}: neither a file nor a folder"

    def test_a_socket(self, root, monkeypatch):
        monkeypatch.chdir(root / "left/cat")  # its path must be short
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("x.jpg")
            assert only(root) == "left/cat/x.jpg: neither a file nor a folder"

    @pytest.mark.parametrize(
        ("name", "ending"), [("web.gif", ".gif"), ("A.HEIC", ".heic"), ("LICENSE", "no extension")]
    )
    def test_other_extensions(self, root, name, ending):
        (root / "left/cat" / name).write_text("x")
        assert only(root) == (
            f"left/cat/{name}: {ending} is not among the extensions that count: "
            ".jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff, .webp"
        )

    @pytest.mark.parametrize("place", ["left/cat/.thumbs", "left/.cache", ".git"])
    def test_hidden_folders(self, root, place):
        add(root / place / "5.png")
        assert only(root) == f"{place}{os.sep}: a hidden folder"

    @pytest.mark.parametrize("place", ["left/cat/closed", "left/closed", "closed"])
    def test_folders_without_permission(self, root, place, monkeypatch):
        add(root / place / "5.png")
        scandir = os.scandir

        def refuse(path):
            if str(path) == str(root / place):
                raise PermissionError(13, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(listing.os, "scandir", refuse)
        _, problems = list_folders(root)
        assert problems[0] == f"{place}{os.sep}: cannot be read (Permission denied)"

    def test_other_domains_are_not_looked_at(self, root):
        for name in ("x", "other/cat/y"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to("nowhere")
        assert list_folders(root, ["left", "right"])[1] == []


class TestNames:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")),
            ("polar bear", "polar  bear "),
            ("emu", "em\u200bu"),
        ],
    )
    def test_that_look_the_same(self, root, one, other):
        add(root / "left" / one / "7.png")
        add(root / "left" / other / "8.png")
        add(root / "right" / other / "9.png")
        data = ImageFolders(root)
        assert one in data.classes
        assert len(data.classes) == 3
        assert [len(images) for images in data.domains.values()] == [4, 3]
        (root / one).mkdir()
        for name in (one, other):
            add(root / name / "cat/0.png")
        assert sum("the same name as" in problem for problem in list_folders(root)[1]) == 1
        assert list(list_folders(root, [other])[0]) == [one]
        (root / "left").rename(root / "unlike")
        assert [*ImageFolders(root, domains=["right", " unlike"]).domains] == ["right", "unlike"]

    def test_that_differ_in_case(self, root):
        add(root / "right/Cat/4.png")
        problem = (
            "class 'Cat' differs only in upper and lower case from class 'cat' (1 and 2 images)"
        )
        assert only(root) == problem
        with pytest.raises(ValueError, match="'Cat' differs only in upper and lower case"):
            ImageFolders(root)
        with pytest.warns(UserWarning, match="differs only in upper and lower case"):
            assert ImageFolders(root, faulty="leave_out").classes == ["cat", "dog"]

    def test_domains_that_differ_in_case(self, root):
        add(root / "LEFT/cat/4.png")
        assert only(root).startswith("domain 'LEFT' differs only in upper and")

    @pytest.mark.parametrize("name", [" ", "\u200b", b"caf\xe9"])
    def test_that_cannot_be_read(self, root, name):
        add(root / "left" / os.fsdecode(name) / "4.png")
        assert only(root).endswith(": a name that cannot be read as text")


def test_order_is_torchvisions(root):
    """Folders in the order of their whole paths, in each the files by name."""
    for name in ("a/2", "a/b/1", "a-b/1", "a/10", "A/1", "a/b.c/1", "1", "0z"):
        add(root / f"left/cat/{name}.png")
    found = [path for path, label in list_folders(root)[0]["left"] if label == "cat"]
    expected = [
        os.path.join(place, name)
        for place, _, names in sorted(os.walk(root / "left/cat"))
        for name in sorted(names)
    ]
    assert found == expected
    assert len(found) == 9


class TestExamine:
    def test_digests_are_of_pixels(self, tmp_path, monkeypatch):
        monkeypatch.setattr(listing, "_BATCH", 2)
        image = Image.effect_noise((8, 6), 90).convert("RGB")
        for name, options in {"a.png": {}, "b.bmp": {}, "c.png": {"compress_level": 1}}.items():
            image.save(tmp_path / name, **options)
        image.resize((6, 8)).save(tmp_path / "d.png")
        paths = [str(path) for path in sorted(tmp_path.iterdir())]
        found = list(examine(paths))
        assert [problem for _, problem in found] == [None] * 4
        a, b, c, d = (digest for digest, _ in found)
        assert a == b == c != d
        assert len(a) == 16

    def test_shapes_count(self, tmp_path):
        for name, size in {"a.png": (8, 6), "b.png": (6, 8)}.items():
            Image.new("RGB", size).save(tmp_path / name)
        (a, _), (b, _) = examine([str(tmp_path / "a.png"), str(tmp_path / "b.png")])
        assert a != b

    def test_problems(self, tmp_path):
        Image.effect_noise((50, 50), 90).save(tmp_path / "a.jpg")
        whole = (tmp_path / "a.jpg").read_bytes()
        (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "b.jpg").write_bytes(b"x")
        paths = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")]
        for domainbed in (True, False):
            truncated, unknown, missing = examine(paths, domainbed=domainbed)
            assert truncated[0] is not None
            assert "a.jpg' " in truncated[1]
            assert "is truncated or damaged" in truncated[1]
            assert unknown == (None, unknown[1])
            assert "of no known format" in unknown[1]
            assert "c.jpg' cannot be read" in missing[1]
        assert torch.equal(decode(paths[0], domainbed=True)[:, :8], decode(whole)[:, :8])
