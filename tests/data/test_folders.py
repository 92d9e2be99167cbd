import hashlib
import os
import pickle
import re
import shutil
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from gga_lightning.data import DomainDataModule, ImageFolders, ImageTable

LAYOUTS = {  # domains in the order of DomainBed
    "PACS": ["art_painting", "cartoon", "photo", "sketch"],
    "VLCS": ["Caltech101", "LabelMe", "SUN09", "VOC2007"],
    "office_home": ["Art", "Clipart", "Product", "Real World"],
    "terra_incognita": ["location_100", "location_38", "location_43", "location_46"],
    "domain_net": ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"],
}


def colour(name):
    """A colour of its own for each file, so that it is known again once decoded."""
    return tuple(hashlib.md5(name.encode()).digest()[:3])


def make(root, files):
    """Tiny images, each of one colour."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5), colour(name)).save(path.with_suffix(".png"))


def tree(domains, classes=("cat", "dog"), count=3):
    return [f"{d}/{c}/{i}" for d in domains for c in classes for i in range(count)]


@pytest.fixture
def root(tmp_path):
    make(tmp_path / "pets", tree(["left", "right"]))
    return tmp_path / "pets"


class TestFolders:
    def test_what_it_says_of_itself(self, root):
        data = ImageFolders(root, image_size=10)
        assert data.name == "pets"
        assert list(data.domains) == ["left", "right"]
        assert data.classes == ["cat", "dog"]
        assert (data.num_classes, data.input_shape) == (2, (3, 10, 10))
        assert data.domains["left"].targets.tolist() == [0, 0, 0, 1, 1, 1]
        assert data.domains["left"].paths == sorted((root / "left").rglob("*.png"))

    def test_samples(self, root):
        image, target = ImageFolders(root).domains["right"][4]
        assert target == 1
        assert image.dtype is torch.uint8
        assert image.shape == (3, 5, 6)
        assert tuple(image[:, 2, 2].tolist()) == colour("right/dog/1")

    def test_a_domain_without_a_class_keeps_the_others_indices(self, root):
        make(root, ["odd/dog/0", "odd/emu/0"])
        data = ImageFolders(root)
        assert data.classes == ["cat", "dog", "emu"]
        assert data.domains["odd"].targets.tolist() == [1, 2]
        assert data.domains["left"].targets.tolist() == [0, 0, 0, 1, 1, 1]

    def test_chosen_domains_in_their_order(self, root):
        make(root, tree(["extra"], classes=("zebra",)))
        data = ImageFolders(root, domains=["right", "left"], name="two")
        assert list(data.domains) == ["right", "left"]
        assert data.name == "two"
        assert data.classes == ["cat", "dog"]

    def test_images_in_folders_of_classes_folders(self, root):
        make(root, ["left/dog/more/7"])
        assert root / "left/dog/more/7.png" in ImageFolders(root).domains["left"].paths

    def test_pickles_for_worker_processes(self, root):
        data = pickle.loads(pickle.dumps(ImageFolders(root)))
        assert torch.equal(data.domains["left"][0][0], ImageFolders(root).domains["left"][0][0])
        assert data.eval_transform(data.domains["left"][0][0]).shape == (3, 224, 224)


class TestGroups:
    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("(.+)_", ["dog1", "dog1", "dog2_x"]),
            (r"\w+?\d", ["dog1", "dog1", "dog2"]),
            (r"dog(\d)", ["1", "1", "2"]),
        ],
    )
    def test_are_found_in_names(self, tmp_path, pattern, found):
        names = ["dog1_left", "dog1_right", "dog2_x_left"]
        make(tmp_path, [f"{domain}/dog/{name}" for domain in "ab" for name in names])
        data = ImageFolders(tmp_path, group=pattern)
        assert data.domains["a"].groups.tolist() == data.domains["b"].groups.tolist() == found

    def test_make_the_splits(self, tmp_path):
        make(tmp_path, [f"{d}/c/{g}_{i}" for d in "ab" for g in range(5) for i in range(3)])
        data = DomainDataModule(ImageFolders(tmp_path, group="(.+)_"), holdout_fraction=0.4)
        sizes = {name: len(loader.dataset) for name, loader in data.val_dataloader().items()}
        assert sizes == {"val/a": 6, "test/b": 6, "seen/b": 9}

    def test_there_are_none_by_default(self, root):
        assert ImageFolders(root).domains["left"].groups is None


class TestWhatDoesNotBelong:
    MESSAGES: ClassVar = {
        "left/empty/": "no images",
        "left/.ipynb_checkpoints/": "a hidden folder",
        "left/readme.txt": "not in a folder of a class",
        "left/cat/notes.txt": ".txt is not among the extensions that count: .jpg, .jpeg, .png, ",
        "__MACOSX/": "a hidden folder",
        "stray/": "no images in folders of classes",
    }

    @pytest.fixture
    def messy(self, root):
        for name in self.MESSAGES:
            path = root / name
            if name.endswith("/"):
                path.mkdir()
            else:
                path.write_text("x")
        (root / "left" / ".DS_Store").write_text("x")  # hidden files are no news
        return root

    def test_stops_and_names_all_of_it(self, messy):
        with pytest.raises(
            ValueError, match=r"^6 problems in '.*pets' \(fix what is wrong"
        ) as caught:
            ImageFolders(messy)
        for name, reason in self.MESSAGES.items():
            assert f" {name.replace('/', os.sep)}: {reason}" in str(caught.value)
        assert "`faulty='leave_out'`" in str(caught.value)

    def test_leaves_it_out(self, messy):
        with pytest.warns(UserWarning, match="Left out because of 6 problems in") as caught:
            data = ImageFolders(messy, faulty="leave_out")
        assert all(name.replace("/", os.sep) in str(caught[0].message) for name in self.MESSAGES)
        assert list(data.domains) == ["left", "right"]
        assert data.classes == ["cat", "dog"]
        assert len(data.domains["left"]) == 6

    def test_many_are_counted(self, root):
        for number in range(30):
            (root / "left" / "cat" / f"{number}.txt").write_text("x")
        with pytest.raises(ValueError, match=r"^30 problems .*; and 18 more\.$") as caught:
            ImageFolders(root)
        assert str(caught.value).count(";") == 12

    def test_broken_images(self, root):
        (root / "left" / "cat" / "1.png").write_bytes(b"broken")
        data = ImageFolders(root)  # files are not opened
        with pytest.raises(ValueError, match="left/cat/1.png"):
            data.domains["left"][1]
        with pytest.warns(UserWarning, match="left/cat/1.png"):
            data = ImageFolders(root, faulty="leave_out")
        assert [path.name for path in data.domains["left"].paths][:3] == ["0.png", "2.png", "0.png"]


class TestReading:
    """Of images, by the classes for users' own data."""

    def save(self, path, **options):
        picture = Image.new("RGB", (6, 5), colour(path.name))
        picture.save(path, **options)

    def test_orientations_are_applied(self, root, tmp_path):
        data = Image.Exif()
        data[0x0112] = 6
        self.save(root / "left/cat/0.png", exif=data)
        images = ImageFolders(root).domains["left"]
        assert images[0][0].shape == (3, 6, 5)
        assert pickle.loads(pickle.dumps(images))[0][0].shape == (3, 6, 5)
        cached = ImageFolders(root, cache=tmp_path / "cache").domains["left"]
        assert torch.equal(cached[0][0], images[0][0])

    @pytest.mark.parametrize("ending", ["png", "jpg", "bmp"])
    def test_truncated_files(self, root, ending, tmp_path):
        file = root / f"left/cat/1.{ending}"
        self.save(file)
        file.write_bytes(file.read_bytes()[:-30])
        data = ImageFolders(root)
        row = data.domains["left"].paths.index(file)
        with pytest.raises(ValueError, match=rf"left/cat/1\.{ending}' \(.* damaged|decoded"):
            data.domains["left"][row]
        with pytest.raises(ValueError, match=rf"left/cat/1\.{ending}"):
            ImageFolders(root, cache=tmp_path / "cache")
        with pytest.warns(UserWarning, match=rf"1 problem in .*left/cat/1\.{ending}"):
            left_out = ImageFolders(root, faulty="leave_out")
        assert file not in left_out.domains["left"].paths


class TestTransforms:
    def test_floats_are_normalized(self, root):
        data = ImageFolders(root, image_size=4)
        image, _ = data.domains["left"][0]
        found = data.eval_transform(image)
        assert found.dtype is torch.float32
        value = torch.tensor(colour("left/cat/0")) / 255
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        torch.testing.assert_close(found[:, 1, 1], (value - mean) / deviation, rtol=0, atol=1e-4)

    def test_integers(self, root):
        data = ImageFolders(root, image_size=4, as_uint8=True)
        for transform in (data.train_transform, data.eval_transform):
            found = transform(data.domains["left"][0][0])
            assert found.dtype is torch.uint8
            assert found.shape == (3, 4, 4)

    def test_colours_on_the_device(self, root):
        data = ImageFolders(root, image_size=6, as_uint8=True, device_colours=True)
        crop = data.train_transform(data.domains["left"][0][0])
        assert len(crop.flatten(1).unique(dim=1).T) == 1  # of one colour, and still that
        assert tuple(crop[:, 0, 0].tolist()) == colour("left/cat/0")
        batch = {"left": (crop.repeat(20, 1, 1, 1), torch.zeros(20))}
        module = DomainDataModule(data, "right")
        plain = module.on_after_batch_transfer(batch, 0)["left"][0]
        assert len(plain.unique(dim=0)) == 1  # not in evaluation
        module.trainer = SimpleNamespace(training=True, lightning_module=None)
        assert len(module.on_after_batch_transfer(batch, 0)["left"][0].unique(dim=0)) > 10
        with pytest.raises(ValueError, match="`device_colours` needs `as_uint8=True`"):
            ImageFolders(root, device_colours=True)

    def test_augmentation_on_request(self, root):
        image = torch.arange(3 * 40 * 40).view(3, 40, 40).to(torch.uint8)
        plain = ImageFolders(root, augment=False)
        assert torch.equal(plain.train_transform(image), plain.eval_transform(image))
        data = ImageFolders(root)
        assert not torch.equal(data.train_transform(image), data.train_transform(image))


class TestCache:
    def test_reads_from_it(self, root, tmp_path):
        plain = ImageFolders(root)
        cached = ImageFolders(root, cache=tmp_path / "cache")
        left, right = sorted(path.name for path in (tmp_path / "cache").iterdir())
        assert re.fullmatch(r"pets-left-[0-9a-f]{8}\.images", left)
        assert re.fullmatch(r"pets-right-[0-9a-f]{8}\.images", right)
        (root / "left" / "cat" / "0.png").write_bytes(b"gone by now")
        for domain, images in plain.domains.items():
            for index in range(1, len(images)):
                mine, theirs = cached.domains[domain][index], images[index]
                assert torch.equal(mine[0], theirs[0])
                assert mine[1] == theirs[1]
        assert tuple(cached.domains["left"][0][0][:, 0, 0].tolist()) == colour("left/cat/0")

    def test_roots_with_the_same_name_do_not_share(self, root, tmp_path):
        other = shutil.copytree(root, tmp_path / "other" / root.name)
        table = "path,label,domain\nleft/cat/0.png,cat,left\n"
        cache = tmp_path / "cache"
        for place in (root, other):
            (place.parent / f"{root.name}.csv").write_text(table)
        for _ in range(2):  # the second time, all of them are found
            ImageFolders(root, cache=cache)
            ImageFolders(other, cache=cache)
            ImageFolders(other, cache=cache, name="mine")
            ImageTable(root.parent / f"{root.name}.csv", root=root, cache=cache)
            ImageTable(other.parent / f"{root.name}.csv", root=other, cache=cache)
            made = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
            assert len(made) == 8
        ImageFolders(root, cache=cache)
        assert made == {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}

    @pytest.mark.parametrize("domain", ["ü" * 120, "a:b *?", "Ünï-cödé"])
    def test_any_domain_has_a_file(self, root, tmp_path, domain):
        (root / "left").rename(root / domain)
        data = ImageFolders(root, cache=tmp_path / "cache", name="n" * 300)
        assert len(list((tmp_path / "cache").iterdir())) == 2
        assert data.domains[domain][0][0].shape[0] == 3

    def test_names_that_are_alike_in_files(self, root, tmp_path):
        (root / "left").rename(root / "a_b")
        (root / "right").rename(root / "a b")
        ImageFolders(root, cache=tmp_path / "cache")
        assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_are_the_reference_suites(layout, seed, tmp_path):
    """Its words (FIELD 2.1): classes and files sorted; keys shuffled by RandomState(md5)."""
    domains = LAYOUTS[layout]
    classes = ["zoo", "Ant", "bee"]
    files = [
        f"{domain}/{label}/{number * 7 % 11:03d}"
        for index, domain in enumerate(domains)
        for label in classes
        for number in range(4 + index)
    ]
    make(tmp_path / layout, files)
    dataset = ImageFolders(tmp_path / layout)
    data = DomainDataModule(dataset, -1, split_seed=seed)
    loaders = data.val_dataloader()
    for index, domain in enumerate(domains):
        folder = tmp_path / layout / domain
        listed = [
            os.path.join(folder, label, name)
            for label in sorted(os.listdir(folder))
            for name in sorted(os.listdir(folder / label))
        ]
        keys = list(range(len(listed)))
        digest = hashlib.md5(str((seed, index)).encode()).hexdigest()
        np.random.RandomState(int(digest, 16) % 2**31).shuffle(keys)
        out = [listed[key] for key in keys[: int(len(listed) * 0.2)]]
        part = loaders[f"{'oracle' if index == len(domains) - 1 else 'val'}/{domain}"].dataset
        subset = part._part
        assert [str(subset.dataset.path(row)) for row in subset.indices] == out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"root": "nowhere"}, "`root` must be a folder of domains, got 'nowhere'"),
        ({"domains": ["left", "up"]}, r"has \['left', 'right'\], got \['up'\]"),
        ({"domains": ["left", " left"]}, r"different folders .*, got \['left', 'left'\]"),
        ({"faulty": "ignore"}, "`faulty` must be 'stop' or 'leave_out', got 'ignore'"),
        ({"image_size": 0}, "`image_size` must be at least 1, got 0"),
        ({"group": "("}, r"`group` must be a regular expression, got '\(': missing"),
        ({"group": "x"}, "`group` must match each file's name .* finds nothing in '0.png': .*0"),
        ({"group": "(x?)0|1|2"}, "`group` must match each file's name from its start"),
    ],
)
def test_wrong_arguments(root, settings, message):
    with pytest.raises(ValueError, match=message):
        ImageFolders(**{"root": root, **settings})


def test_no_images(tmp_path):
    with pytest.raises(ValueError, match=r"`root` must hold domain.class.image, got no images in"):
        ImageFolders(tmp_path)
