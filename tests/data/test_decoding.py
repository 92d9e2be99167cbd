import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps
from torch.nn import functional

from gga_lightning.data import decoding
from gga_lightning.data.decoding import MAX_PIXELS, decode, image_size, inspect


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


def pils(image):
    """As PIL reads a file, and DomainBed."""
    return tensor(Image.open(io.BytesIO(image)).convert("RGB"))


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


PHOTO = pil(photo())
INKS = Image.merge("CMYK", [*PHOTO.split(), pil(photo(seed=1)).convert("L")])
FILES = {
    "jpeg": encoded(PHOTO, "JPEG", quality=90),
    "progressive": encoded(PHOTO, "JPEG", progressive=True),
    "every pixel's colour": encoded(PHOTO, "JPEG", subsampling=0),
    "grey jpeg": encoded(PHOTO.convert("L"), "JPEG"),
    "cmyk jpeg": encoded(INKS, "JPEG"),
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
        assert torch.equal(image, pils(FILES[name]))
        assert torch.equal(decode(str(file)), image)
        assert torch.equal(decode(FILES[name]), image)

    @pytest.mark.parametrize("name", FILES)
    def test_can_be_written_to(self, name):
        decode(FILES[name]).zero_()

    def test_without_torchvisions_decoder(self, monkeypatch):
        monkeypatch.setattr(decoding.torch, "ops", torch.nn.Module())
        torch.ops.image = None
        assert torch.equal(decode(FILES["jpeg"]), pils(FILES["jpeg"]))

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


ORIENTED = {
    "jpeg": ("JPEG", {}),
    "cmyk jpeg": ("JPEG", {"mode": "CMYK"}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
}


def oriented(name, data):
    kind, options = ORIENTED[name]
    options = dict(options)
    return encoded(PHOTO.convert(options.pop("mode", "RGB")), kind, exif=data, **options)


class TestOrientation:
    @pytest.mark.parametrize("name", ORIENTED)
    @pytest.mark.parametrize("orientation", range(10))
    def test_is_applied(self, name, orientation, tmp_path):
        content = oriented(name, exif(orientation))
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
        image = decode(content)
        assert torch.equal(image, tensor(upright))
        assert image.stride()[0] == 1
        (tmp_path / "image").write_bytes(content)
        assert image_size(tmp_path / "image") == image.shape[1:]

    @pytest.mark.parametrize("name", ORIENTED)
    def test_is_ignored_by_domainbed(self, name, tmp_path):
        content = oriented(name, exif(6))
        image = decode(content, domainbed=True)
        assert torch.equal(image, pils(content))
        (tmp_path / "image").write_bytes(content)
        assert image_size(tmp_path / "image", domainbed=True) == image.shape[1:]

    def test_behind_the_pixels_of_a_png(self, tmp_path):
        content = oriented("png", exif(6))
        place = content.index(b"eXIf") - 4
        length = 12 + int.from_bytes(content[place : place + 4], "big")
        chunk = content[place : place + length]
        end = content.index(b"IEND") - 4
        content = content[:place] + content[place + length : end] + chunk + content[end:]
        assert decode(content).shape == (3, 120, 90)
        (tmp_path / "image").write_bytes(content)
        assert image_size(tmp_path / "image") == (120, 90)

    @pytest.mark.parametrize("name", [name for name in ORIENTED if name != "tiff"])
    def test_broken_exif_ends_nothing(self, name):
        data = exif(6).tobytes()
        random = np.random.default_rng(0)
        for length in range(6, len(data)):
            assert decode(oriented(name, data[:length])).shape[0] == 3
        for _ in range(20):
            broken = bytearray(data)
            for place in random.integers(6, len(data), 3):
                broken[place] = random.integers(256)
            assert decode(oriented(name, bytes(broken))).numel() == 3 * 90 * 120


DEEP = np.linspace(0, 65535, 64 * 64).reshape(64, 64)


def deep(kind, values, **options):
    return encoded(Image.fromarray(values), kind, **options)


class TestDepth:
    FILES = {  # noqa: RUF012
        "png": deep("PNG", DEEP.astype(np.uint16)),
        "tiff": deep("TIFF", DEEP.astype(np.uint16)),
        "compressed tiff": deep("TIFF", DEEP.astype(np.uint16), compression="tiff_lzw"),
        "big-endian tiff": deep("TIFF", DEEP.astype(">u2")),
        "32 bits": deep("TIFF", (DEEP * 32768).astype(np.int32)),
        "floats": deep("TIFF", (DEEP / 65535).astype(np.float32)),
        "pgm": deep("PPM", DEEP.astype(np.uint16)),
        "jpeg2000": deep("JPEG2000", DEEP.astype(np.uint16)),
    }

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("domainbed", [True, False])
    def test_all_grey_levels(self, name, domainbed):
        image = decode(self.FILES[name], domainbed=domainbed)
        assert image.shape == (3, 64, 64)
        expected = torch.from_numpy(DEEP / 257).expand(3, -1, -1)
        assert (image - expected).abs().max() < 0.51
        assert len(image.unique()) == 256
        image.zero_()

    def test_pgm_of_ten_bits(self):
        image = decode(b"P5 3 1 1023 " + bytes([0, 0, 1, 255, 3, 255]))
        assert image[1].tolist() == [[0, 127, 255]]

    def test_unsigned_32_bits(self):
        content = deep("TIFF", (DEEP * 65537).astype(np.uint32).view(np.int32))
        place = content.index(bytes.fromhex("53010300"))  # the sample format
        content = content[: place + 8] + b"\1" + content[place + 9 :]
        assert (decode(content) - torch.from_numpy(DEEP / 257)).abs().max() < 0.51

    @pytest.mark.parametrize(
        ("values", "text"),
        [
            (DEEP.astype(np.int32), r"values from 0 to 65535, which are a single grey level in"),
            ((DEEP / 700).astype(np.uint16), r"values from 0 to 93, which are a single grey level"),
            ((DEEP - 9).astype(np.int32), r"from -9 to 65526, they must be in \[0, 2147483647\]"),
            ((DEEP / 257).astype(np.float32), r"from 0.0 to 255.0, they must be in \[0, 1\]"),
            (np.float32([[0.5, np.nan]]), "from nan to nan, they must be in"),
            (np.float32([[0.5, np.inf]]), "from 0.5 to inf, they must be in"),
            (np.float32([[0.5, -0.1]]), "from -0.1.* to 0.5, they must be in"),
        ],
    )
    def test_what_would_be_black_or_white_is_refused(self, values, text, tmp_path):
        (tmp_path / "deep.tif").write_bytes(deep("TIFF", values))
        with pytest.raises(ValueError, match=rf"deep\.tif' \(.* bytes\) has .*{text}") as caught:
            decode(tmp_path / "deep.tif")
        assert "Scale its values and save it again" in str(caught.value)

    @pytest.mark.parametrize("value", [0, 5, 65535])
    def test_a_single_value_is_fine(self, value):
        image = decode(deep("PNG", np.full((4, 5), value, np.uint16)))
        assert image.unique().tolist() == [round(value / 257)]


WHOLE = {
    "jpeg": FILES["jpeg"],
    "progressive": FILES["progressive"],
    "grey jpeg": FILES["grey jpeg"],
    "cmyk jpeg": FILES["cmyk jpeg"],
    "restarts": encoded(PHOTO, "JPEG", restart_marker_rows=1),
    "png": FILES["png"],
    "gif": FILES["gif"],
    "bmp": FILES["bmp"],
    "webp": FILES["webp"],
    "tiff": encoded(PHOTO, "TIFF"),
    "lzw tiff": encoded(PHOTO, "TIFF", compression="tiff_lzw"),
    "deflated tiff": encoded(PHOTO, "TIFF", compression="tiff_adobe_deflate"),
    "ppm": encoded(PHOTO, "PPM"),
}


class TestDamage:
    @pytest.mark.parametrize("name", WHOLE)
    def test_cut_anywhere(self, name):
        content = WHOLE[name]
        for place in np.linspace(0, len(content) - 30, 40).astype(int):
            with pytest.raises(ValueError, match=rf"The content \({place} bytes\)"):
                decode(content[:place])

    @pytest.mark.parametrize("name", WHOLE)
    def test_cut_that_loses_no_pixel(self, name):
        try:
            image = decode(WHOLE[name][:-1])
        except ValueError:
            return
        assert torch.equal(image, decode(WHOLE[name]))

    @pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
    @pytest.mark.parametrize("name", ["jpeg", "grey jpeg", "cmyk jpeg"])
    def test_a_jpeg_whose_rest_was_never_written(self, name, share):
        """As by a download that reserves the file's size and breaks off."""
        content = WHOLE[name]
        start = int(share * len(content))
        with pytest.raises(ValueError, match="is truncated or damaged|cannot be decoded"):
            decode(content[:start] + bytes(len(content) - start))

    @pytest.mark.parametrize("name", ["png", "gif", "lzw tiff"])
    def test_others_damaged_in_the_middle(self, name):
        content = WHOLE[name]
        middle = len(content) // 2
        with pytest.raises(ValueError, match="damaged|cannot be decoded"):
            decode(content[:middle] + b"\xff" * 100 + content[middle + 100 :])

    @pytest.mark.parametrize("name", ["jpeg", "grey jpeg", "cmyk jpeg", "png", "bmp", "ppm"])
    def test_domainbed_reads_what_there_is(self, name, monkeypatch):
        content = WHOLE[name][: len(WHOLE[name]) // 2]
        image, damage = inspect(content, domainbed=True)
        assert torch.equal(image, decode(content, domainbed=True))
        assert "is truncated or damaged" in damage
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        assert torch.equal(image, pils(content))

    def test_in_many_threads(self):
        bad = {"jpeg": FILES["jpeg"][:2000], "png": FILES["png"][:9000]}
        jobs = [(name, index % 7 == 0) for index in range(150) for name in bad]

        def found(job):
            name, broken = job
            if broken:
                decode(bad[name], domainbed=True)
            return inspect(bad[name] if broken else FILES[name])[1] is not None

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(found, jobs)) == [broken for _, broken in jobs]

    def test_intact_ones_have_none(self):
        for content in (*FILES.values(), *WHOLE.values()):
            assert inspect(content)[1] is None


class TestLimit:
    def test_is_that_of_pils_error(self):
        assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "PPM"])
    def test_for_all_formats(self, kind, monkeypatch, tmp_path):
        file = tmp_path / "large.img"
        file.write_bytes(encoded(PHOTO, kind))
        monkeypatch.setattr(decoding, "MAX_PIXELS", 120 * 90)
        assert decode(file).shape == (3, 90, 120)
        monkeypatch.setattr(decoding, "MAX_PIXELS", 120 * 90 - 1)
        text = r"large\.img' .* has 90 x 120 pixels; .* at most 10,799 in all\. Resize it"
        for read in (decode, image_size):
            with pytest.raises(ValueError, match=text):
                read(file)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF"])
    def test_pils_warning_does_not_leak(self, kind, monkeypatch):
        content = encoded(PHOTO, kind)
        monkeypatch.setattr(decoding, "MAX_PIXELS", 120 * 90)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 120 * 90 - 1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            decode(content)
        assert not caught
        assert Image.MAX_IMAGE_PIXELS == 120 * 90 - 1

    def test_a_small_file_of_a_large_image(self, tmp_path):
        content = bytearray(encoded(PHOTO, "JPEG"))
        place = content.index(b"\xff\xc0") + 5
        content[place : place + 4] = bytes.fromhex("3e80 3e80")
        (tmp_path / "bomb.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=r"bomb\.jpg' .* has 16,000 x 16,000 pixels"):
            decode(tmp_path / "bomb.jpg")
