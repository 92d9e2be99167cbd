import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch.nn import functional

from gga_lightning.data import decoding
from gga_lightning.data.decoding import decode


def photo(height=90, width=120, seed=0):
    """Smooth colours with some grain, uint8 of shape (3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    image = 8 * torch.randn(3, height, width, generator=generator)
    for cells in (3, 9, 27):
        coarse = torch.rand(1, 3, cells, cells, generator=generator)
        image += 250 / cells**0.5 * functional.interpolate(coarse, (height, width))[0]
    return image.clamp(0, 255).byte()


def pil(image):
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def suite(image):
    """As the reference suite reads a file."""
    return tensor(Image.open(io.BytesIO(image)).convert("RGB"))


def turned_exif():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by a quarter
    return exif


PHOTO = pil(photo())
INKS = Image.merge("CMYK", [*PHOTO.split(), pil(photo(seed=1)).convert("L")])
FILES = {
    "jpeg": encoded(PHOTO, "JPEG", quality=90),
    "progressive": encoded(PHOTO, "JPEG", progressive=True),
    "every pixel's colour": encoded(PHOTO, "JPEG", subsampling=0),
    "grey jpeg": encoded(PHOTO.convert("L"), "JPEG"),
    "cmyk jpeg": encoded(INKS, "JPEG"),
    "turned jpeg": encoded(PHOTO, "JPEG", exif=turned_exif()),
    "png": encoded(PHOTO, "PNG"),
    "palette png": encoded(PHOTO.quantize(64), "PNG"),
    "grey png": encoded(PHOTO.convert("L"), "PNG"),
    "black and white png": encoded(PHOTO.convert("1"), "PNG"),
    "transparent png": encoded(PHOTO.convert("RGBA"), "PNG"),
    "gif": encoded(PHOTO, "GIF"),
    "bmp": encoded(PHOTO, "BMP"),
    "webp": encoded(PHOTO, "WEBP"),
}


class TestDecode:
    @pytest.mark.parametrize("name", FILES)
    def test_equals_pil(self, name, tmp_path):
        file = tmp_path / "image"
        file.write_bytes(FILES[name])
        image = decode(file)
        assert image.dtype is torch.uint8
        assert image.shape == (3, 90, 120)
        assert torch.equal(image, suite(FILES[name]))
        assert torch.equal(decode(str(file)), image)
        assert torch.equal(decode(FILES[name]), image)

    @pytest.mark.parametrize("name", FILES)
    def test_can_be_written_to(self, name):
        decode(FILES[name]).zero_()

    def test_without_torchvisions_decoder(self, monkeypatch):
        monkeypatch.setattr(decoding.torch, "ops", torch.nn.Module())
        torch.ops.image = None
        assert torch.equal(decode(FILES["jpeg"]), suite(FILES["jpeg"]))

    @pytest.mark.parametrize("name", ["jpeg", "grey jpeg", "png", "bmp"])
    def test_of_a_file_that_breaks_off(self, name, monkeypatch):
        content = FILES[name][: len(FILES[name]) // 2]
        image = decode(content)
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        assert torch.equal(image, suite(content))
        assert torch.equal(image[:, :20], suite(FILES[name])[:, :20]) or name == "bmp"

    @pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
    def test_names_what_it_cannot_read(self, content, tmp_path):
        file = tmp_path / "broken.jpg"
        file.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"broken.jpg' \({len(content)} bytes\) cannot be decoded"
        ):
            decode(file)
        with pytest.raises(ValueError, match=r"The content \(.* cannot be decoded"):
            decode(content)

    def test_names_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="missing.jpg"):
            decode(tmp_path / "missing.jpg")
