import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from gga_lightning.data import DomainDataModule, ImageFolders
from gga_lightning.data.decoding import decode
from gga_lightning.data.transforms import EvalTransform, to_float
from gga_lightning.experiments.preprocess import Preprocess

MEAN, STD = (0.5, 0.25, 0.4), (0.5, 0.5, 0.125)
PREPARE = Preprocess(6, MEAN, STD)
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
MODES += ("LAB", "I", "F", "I;16")


def picture(mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), np.uint8)
    if mode in ("La", "RGBa"):
        return Image.fromarray(pixels).convert({"La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
    if mode in ("HSV", "LAB", "I", "F", "I;16"):
        return Image.new(mode, (12, 9), 77 if mode in ("I", "F", "I;16") else (77, 66, 55))
    return Image.fromarray(pixels).convert("RGB").convert(mode)


def expected(pixels):
    return to_float(EvalTransform(6)(pixels), MEAN, STD)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp"])
def test_paths_and_bytes(tmp_path, ending):
    path = tmp_path / f"picture.{ending}"
    picture().save(path)
    found = PREPARE(path)
    assert (found.shape, found.dtype) == ((3, 6, 6), torch.float32)
    for image in (str(path), path.read_bytes(), bytearray(path.read_bytes())):
        torch.testing.assert_close(PREPARE(image), found, rtol=0, atol=0)
    torch.testing.assert_close(found, expected(decode(path)), rtol=0, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_pil_images_of_any_mode(mode):
    found = PREPARE(picture(mode))
    assert (found.shape, found.dtype) == ((3, 6, 6), torch.float32)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_pil_image_is_as_its_file(mode):
    file = io.BytesIO()
    picture(mode).save(file, "png")
    opened = Image.open(file)
    assert opened.mode == mode
    torch.testing.assert_close(PREPARE(opened), PREPARE(file.getvalue()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("mode", "scale"), [("I", 1), ("I", 257), ("I", 2**31 // 256), ("F", 1), ("F", 1 / 255)]
)
def test_deep_images_that_are_not_from_a_file_are_scaled_by_their_values(mode, scale):
    grey = picture("L")
    kind = {"I": np.int32, "F": np.float32}[mode]
    deep = Image.fromarray((np.asarray(grey).astype(np.float64) * scale).astype(kind))
    assert deep.mode == mode
    torch.testing.assert_close(PREPARE(deep), PREPARE(grey), rtol=0, atol=0.04)


def test_a_palette_with_transparency():
    """PIL warns of it, and warnings are errors here."""
    file = io.BytesIO()
    palette = picture("P")
    palette.save(file, "png", transparency=bytes(range(256)))
    found = PREPARE(Image.open(file))
    torch.testing.assert_close(found, PREPARE(palette.convert("RGB")), rtol=0, atol=0)


def test_tensors():
    pixels = torch.from_numpy(np.array(picture())).permute(2, 0, 1)
    torch.testing.assert_close(PREPARE(pixels), PREPARE(picture()), rtol=0, atol=0)
    torch.testing.assert_close(PREPARE(pixels.contiguous()), PREPARE(pixels))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_orientation(orientation):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture().save(file, "png", exif=exif)
    turn = {1: 0, 3: 180, 6: 270}[orientation]
    upright = PREPARE(picture().rotate(turn, expand=True))
    as_domainbed = Preprocess(6, MEAN, STD, domainbed=True)
    for image in (Image.open(file), file.getvalue()):
        torch.testing.assert_close(PREPARE(image), upright, rtol=0, atol=0)
        torch.testing.assert_close(as_domainbed(image), PREPARE(picture()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 4, 4), r"got a tensor of type torch.float32 and shape \(3, 4, 4\)"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"shape \(4, 4, 3\)"),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), r"shape \(1, 4, 4\)"),
        (torch.zeros(3, 0, 4, dtype=torch.uint8), r"shape \(3, 0, 4\)"),
        (np.zeros((4, 4, 3), np.uint8), r"got an object of type numpy.ndarray.*Image.fromarray"),
        (io.BytesIO(b"1"), "got an object of type _io.BytesIO"),
        (None, "got an object of type builtins.NoneType"),
        (b"nothing", r"The content \(7 bytes\) cannot be decoded as an image: of no known format"),
        (Image.new("RGB", (0, 3)), r"size \(0, 3\) has 3 x 0 pixels"),
    ],
)
def test_what_is_no_image(image, message):
    with pytest.raises(ValueError, match=message):
        PREPARE(image)


def test_a_pil_image_that_breaks_off():
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(file, "png")
    with pytest.raises(
        ValueError, match="of mode 'L' and size .64, 64. cannot be decoded .*truncated"
    ):
        PREPARE(Image.open(io.BytesIO(file.getvalue()[:1000])))


def test_in_worker_processes(tmp_path):
    paths = [str(tmp_path / f"{index}.png") for index in range(4)]
    for path in paths:
        picture().save(path)
    assert pickle.loads(pickle.dumps(PREPARE)) == PREPARE
    prepared = torch.cat(list(DataLoader(paths, 2, collate_fn=_prepared, num_workers=2)))
    torch.testing.assert_close(prepared[3], PREPARE(paths[3]))


def _prepared(paths):
    return torch.stack([PREPARE(path) for path in paths])


@pytest.mark.parametrize("as_uint8", [False, True])
def test_it_is_what_evaluation_does(tmp_path, as_uint8):
    for domain in ("art", "ink"):
        for label in ("cat", "dog"):
            folder = tmp_path / "pets" / domain / label
            folder.mkdir(parents=True)
            picture().rotate(len(label)).save(folder / "1.png")
            picture().save(folder / "2.jpg")
    dataset = ImageFolders(tmp_path / "pets", image_size=5, as_uint8=as_uint8)
    data = DomainDataModule(dataset, holdout_fraction=0.5)
    prepare = Preprocess(**data.preprocessing(None))
    batch = next(iter(data.test_dataloader()["test/ink"]))
    if as_uint8:
        batch = data.on_after_batch_transfer(batch, 0)
    paths = dataset.domains["ink"].paths
    every = torch.stack([prepare(path) for path in paths])
    for image in batch[0]:
        assert any(torch.equal(image, one) for one in every)
