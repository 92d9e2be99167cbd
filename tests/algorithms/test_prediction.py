import math
import os
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from gga_lightning.algorithms import ARM, ERM, MTL
from gga_lightning.algorithms.prediction import image_files
from gga_lightning.backbones import MLP, MNISTCNN
from gga_lightning.tasks import Prediction


def brightness(image):
    """A stand-in for a run's preprocessing: a path or bytes says how bright the image is."""
    if isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.ndim == 3:
        return image[:, :2, :2].float() / 255
    if isinstance(image, str | os.PathLike):
        with open(image) as file:
            return torch.full((3, 2, 2), float(file.read()))
    if isinstance(image, bytes):
        return torch.full((3, 2, 2), float(image))
    raise ValueError(f"not an image: {type(image).__name__}")


@pytest.fixture
def model():
    """Says "light" for bright inputs."""
    model = ERM(MLP((3, 2, 2), (4,)), 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.featurizer[1].weight.fill_(1.0)
        model.classifier.weight[1] = 1.0
        model.classifier.bias[0] = 24.0
    model.classes = ["dark", "light"]
    model.input_shape = (3, 2, 2)
    model.preprocess = brightness
    return model


@pytest.fixture
def folder(tmp_path):
    for name, text in {"b/2.JPG": "0.9", "a.png": "0.1", "b/1.jpeg": "0.8", "c.txt": "x"}.items():
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / name).write_text(text)
    return tmp_path / "new"


def labels(found):
    assert isinstance(found, list)
    assert all(isinstance(entry, Prediction) for entry in found)
    return [entry.label for entry in found]


class TestOneImage:
    def test_a_file(self, model, folder):
        found = model.predict(folder / "a.png")
        assert (found.label, found.source) == ("dark", str(folder / "a.png"))
        logits = model(torch.full((1, 3, 2, 2), 0.1))[0]
        expected = logits.double().softmax(0).tolist()
        assert list(found.probabilities) == ["dark", "light"]
        assert list(found.probabilities.values()) == pytest.approx(expected)
        assert found.probability == found.probabilities["dark"]

    @pytest.mark.parametrize(
        "image",
        [
            b"0.9",
            torch.full((3, 5, 4), 250, dtype=torch.uint8),
            torch.full((3, 2, 2), 0.9),
            torch.full((3, 2, 2), 0.9, dtype=torch.float64),
            torch.full((3, 2, 2), 0.9, dtype=torch.bfloat16),
        ],
        ids=lambda image: str(getattr(image, "dtype", "bytes")),
    )
    def test_other_kinds(self, model, image):
        assert model.predict(image)[0] == "light"
        assert model.predict(image).source is None

    def test_a_model_of_which_nothing_is_known_takes_inputs(self):
        model = ERM(MLP((4,)), 3)
        assert list(model.predict(torch.zeros(4)).probabilities) == ["0", "1", "2"]
        assert len(model.predict([torch.zeros(4), torch.ones(4)])) == 2

    def test_in_the_type_of_the_weights(self, model):
        assert model.double().predict(torch.full((3, 2, 2), 0.9)).label == "light"

    @pytest.mark.parametrize("kind", [ARM, MTL])
    def test_what_predicts_from_a_batch_predicts_one(self, kind):
        shape = (3, 8, 8)
        own = {"input_shape": shape} if kind is ARM else {}
        model = kind(MNISTCNN(kind.featurizer_shape(shape)), 2, **own)
        model.input_shape = shape
        images = torch.randn(5, *shape)
        alone = model.predict(images[0]).probability
        assert alone == pytest.approx(model.predict(images[:1])[0].probability)
        with torch.no_grad():
            expected = model.eval()(images[:3]).softmax(1).amax(1).tolist()
        found = [entry.probability for entry in model.predict(images[:3], batch_size=3)]
        assert found == pytest.approx(expected, abs=1e-5)


class TestCollections:
    def test_a_folder(self, model, folder):
        found = model.predict(str(folder))
        assert labels(found) == ["dark", "light", "light"]
        assert [entry.source for entry in found] == image_files(folder)

    def test_a_batch(self, model):
        assert labels(model.predict(torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(2, 3, 2, 2)))
        images = torch.tensor([10, 250], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)
        assert labels(model.predict(images)) == ["dark", "light"]

    @pytest.mark.parametrize("kind", [list, tuple, iter, lambda items: (x for x in items)])
    def test_iterables(self, model, folder, kind):
        images = kind([folder / "a.png", b"0.9", torch.zeros(3, 2, 2), [folder / "b"], []])
        assert labels(model.predict(images, batch_size=2)) == [
            "dark",
            "light",
            "dark",
            "light",
            "light",
        ]

    def test_none_and_one_are_lists(self, model):
        assert model.predict([]) == []
        assert labels(model.predict([b"0.9"])) == ["light"]
        assert labels(model.predict(torch.zeros(1, 3, 2, 2))) == ["dark"]

    def test_only_a_batch_is_in_memory(self, model):
        alive, most = weakref.WeakSet(), 0

        def images():
            nonlocal most
            for _ in range(40):
                image = torch.zeros(3, 2, 2)
                alive.add(image)
                most = max(most, len(alive))
                yield image

        assert len(model.predict(images(), batch_size=4)) == 40
        assert most <= 9  # this batch, the one before, and the one that is being made

    @pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
    def test_the_batch_size_does_not_matter(self, model, batch_size):
        images = torch.rand(7, 3, 2, 2)
        expected = [entry.probability for entry in model.predict(images)]
        found = [entry.probability for entry in model.predict(images, batch_size=batch_size)]
        assert found == pytest.approx(expected)


class TestTheModelIsTheSame:
    class Twofold(nn.Sequential):
        out_features = 4

    @pytest.fixture
    def mixed(self):
        """Some modules in training mode, some not; BatchNorm and dropout show which."""
        layers = nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 4)
        model = ERM(self.Twofold(*layers), 2).train()
        model.featurizer[1].eval()
        model.input_shape = (3, 2, 2)
        return model

    def modes(self, model):
        return [module.training for module in model.modules()]

    def test_modes_buffers_and_gradients(self, mixed):
        modes, state = self.modes(mixed), {k: v.clone() for k, v in mixed.state_dict().items()}
        first, second = (mixed.predict(torch.ones(3, 2, 2)) for _ in range(2))
        assert first == second  # no dropout
        assert self.modes(mixed) == modes
        assert all(torch.equal(value, state[name]) for name, value in mixed.state_dict().items())
        mixed(torch.ones(2, 3, 2, 2)).sum().backward()
        assert torch.is_grad_enabled()

    def test_after_an_error(self, mixed):
        modes = self.modes(mixed)
        with pytest.raises(RuntimeError):
            mixed.input_shape = None
            mixed.predict(torch.ones(5))
        assert self.modes(mixed) == modes


class TestErrors:
    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (torch.zeros(3, 4, 4), r"of the shape \(3, 2, 2\), got \(3, 4, 4\)"),
            (torch.zeros(2, 2), r"got \(2, 2\)"),
            (np.zeros((2, 2, 3), np.uint8), "not an image: ndarray"),
            ({"cat": b"1"}, "not an image: dict"),
            ([b"1", None], "not an image: NoneType"),
            (3, "not an image: int"),
            (torch.zeros(3, 2, 2, dtype=torch.int64), "not an image: Tensor"),
        ],
    )
    def test_what_is_no_image(self, model, images, message):
        with pytest.raises(ValueError, match=message):
            model.predict(images)

    def test_an_open_file_is_not_its_lines(self, model, folder):
        with (folder / "a.png").open("rb") as file, pytest.raises(ValueError, match="not an image"):
            model.predict(file)

    @pytest.mark.parametrize("images", ["cat.jpg", b"1", torch.zeros(3, 2, 2, dtype=torch.uint8)])
    def test_images_for_a_model_of_something_else(self, model, images):
        model.preprocess = None
        with pytest.raises(ValueError, match="no `preprocess`: its data are not images, .* Got"):
            model.predict(images)
        assert model.predict(torch.zeros(3, 2, 2)).label == "dark"

    def test_settings(self, model):
        with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
            model.predict([], batch_size=0)
        model.classes = ["dark"]
        with pytest.raises(ValueError, match=r"the model's 2 classes, got \['dark'\]"):
            model.predict([])

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_model_that_diverged(self, model, value):
        with torch.no_grad():
            model.classifier.bias[0] = value
        with pytest.raises(ValueError, match="outputs must be finite"):
            model.predict(torch.zeros(3, 2, 2))

    def test_missing_files(self, model, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            model.predict(tmp_path / "nowhere.jpg")
        with pytest.raises(ValueError, match=r"has no images: no files that end with one of \.jpg"):
            model.predict(tmp_path)


class TestImageFiles:
    def test_sorted_by_path(self, folder):
        names = [os.path.relpath(path, folder) for path in image_files(folder)]
        assert names == ["a.png", os.path.join("b", "1.jpeg"), os.path.join("b", "2.JPG")]

    def test_hidden_ones_are_left_out(self, folder):
        for name in (".cache/1.png", "__MACOSX/2.png", "b/._1.jpeg", ".3.png"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("0")
        assert len(image_files(folder)) == 3

    def test_links(self, folder, tmp_path):
        (tmp_path / "far").mkdir()
        (tmp_path / "far" / "5.bmp").write_text("0")
        (folder / "linked").symlink_to(tmp_path / "far")
        (folder / "also").symlink_to(tmp_path / "far")
        (folder / "b" / "round").symlink_to(folder)
        assert [os.path.basename(path) for path in image_files(folder)] == [
            "a.png",
            "5.bmp",
            "1.jpeg",
            "2.JPG",
        ]
