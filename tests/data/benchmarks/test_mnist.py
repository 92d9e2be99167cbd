import gzip
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gga_lightning.data.benchmarks.benchmark import DatasetError
from gga_lightning.data.benchmarks.mnist import ColoredMNIST, RotatedMNIST
from tests.data.loopback import make_idx

TRAIN, TEST = 5000, 1003
COUNT = TRAIN + TEST


def mnist_files(train=TRAIN, test=TEST):
    """MNIST's four files, of smooth blobs; the digit is written into the first pixel."""
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        digits = random.integers(0, 10, count, dtype=np.uint8)
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 8:20, 10:14] = random.integers(100, 256, (count, 12, 4))
        images[:, 14, 14] = 10 * digits + 100
        yield f"{part}-images-idx3-ubyte.gz", images
        yield f"{part}-labels-idx1-ubyte.gz", digits


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    (root / "MNIST/raw").mkdir(parents=True)
    for name, array in mnist_files():
        (root / "MNIST/raw" / name[:-3]).write_bytes(gzip.decompress(make_idx(array)))
    return root


@pytest.fixture(scope="module")
def original():
    arrays = [array for _, array in mnist_files()]
    images = torch.from_numpy(np.concatenate(arrays[::2]))[:, None].float() / 255
    return images, torch.from_numpy(np.concatenate(arrays[1::2])).long()


def tensors(kind, root, seed=0):
    return {name: data.tensors for name, data in kind(root, seed=seed).domains.items()}


@pytest.mark.parametrize("kind", [RotatedMNIST, ColoredMNIST])
class TestBoth:
    def test_shapes(self, kind, root):
        data = kind(root)
        assert list(data.domains) == list(kind.facts.domains)
        sizes = [len(domain) for domain in data.domains.values()]
        assert sum(sizes) == COUNT
        assert sizes == [len(range(start, COUNT, len(sizes))) for start in range(len(sizes))]
        for domain in data.domains.values():
            images, targets = domain.tensors
            assert images.dtype is torch.float32
            assert images.shape[1:] == data.input_shape
            assert 0 <= images.min() <= images.max() <= 1
            assert targets.unique().tolist() == list(range(data.num_classes))
        assert (data.name, data.num_classes) == (kind.facts.key, kind.facts.num_classes)

    def test_one_name_for_each_class(self, kind, root):
        names = list("0123456789") if kind is RotatedMNIST else ["5 to 9", "0 to 4"]
        assert kind(root).classes == names
        assert kind(root).num_classes == len(names)

    def test_depends_on_its_seed_alone(self, kind, root):
        torch.manual_seed(1)
        first = tensors(kind, root)
        torch.manual_seed(2)
        state, randomness = torch.get_rng_state(), np.random.get_state()[1].tolist()
        again, other = tensors(kind, root), tensors(kind, root, seed=1)
        assert torch.equal(torch.get_rng_state(), state)
        assert np.random.get_state()[1].tolist() == randomness
        for name in first:
            assert all(map(torch.equal, first[name], again[name]))
            assert not torch.equal(first[name][0], other[name][0])

    def test_survey(self, kind, root, monkeypatch):
        domains = {name: len(domain) for name, domain in kind(root).domains.items()}
        monkeypatch.setattr(kind, "facts", replace(kind.facts, domains=domains))
        survey = kind.survey(root)
        assert survey.totals == domains
        assert survey.faults == []
        monkeypatch.setattr(kind, "facts", replace(kind.facts, domains=dict.fromkeys(domains, 7)))
        assert len(kind.survey(root).faults) == len(domains)

    def test_damaged_files(self, kind, tmp_path):
        (tmp_path / "MNIST/raw").mkdir(parents=True)
        for name, array in mnist_files(20, 5):
            content = gzip.decompress(make_idx(array))
            (tmp_path / "MNIST/raw" / name[:-3]).write_bytes(content[: len(content) // 2])
        said = "cannot be read .*Delete them and download them again"
        with pytest.raises(DatasetError, match=said):
            kind(tmp_path)


def test_training_and_test_images_are_joined_and_dealt_out_in_turn(root, original):
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    for start, (images, digits) in enumerate(tensors(RotatedMNIST, root).values()):
        assert torch.equal(digits, original[1][order[start::6]])
        if start == 0:
            assert torch.equal(images, original[0][order[::6]])


def test_rotation_is_the_suites(root, original):
    """As one image at a time, by PIL, bilinear, counter-clockwise."""
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    for start, (degrees, (images, _)) in enumerate(tensors(RotatedMNIST, root).items()):
        plain = (original[0][order[start]][0] * 255).round().byte().numpy()
        turned = Image.fromarray(plain).rotate(int(degrees), Image.Resampling.BILINEAR)
        error = images[0, 0] - torch.from_numpy(np.array(turned)).float() / 255
        assert error.abs().max() < 0.02


def test_colours(root, original):
    domains = tensors(ColoredMNIST, root)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    for start, (name, flip) in enumerate({"+90%": 0.1, "+80%": 0.2, "-90%": 0.9}.items()):
        images, labels = domains[name]
        chosen = order[start::3]
        assert torch.equal(images.sum(1), original[0][chosen][:, 0])
        filled = images.flatten(2).sum(2)
        assert (filled.min(1).values == 0).all()
        flips = (labels != (original[1][chosen] < 5)).float().mean().item()
        assert flips == pytest.approx(0.25, abs=0.04)
        colours = (filled.argmax(1) != labels).float().mean().item()
        assert colours == pytest.approx(flip, abs=0.04)
