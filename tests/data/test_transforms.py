import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision import transforms as v1
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as v2_functional

from gga_lightning.data import transforms
from gga_lightning.data.decoding import decode
from gga_lightning.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ColourTransform,
    CropTransform,
    EvalTransform,
    TrainTransform,
    to_float,
)
from tests.data.test_decoding import FILES, photo, pil, tensor


def torchvision_train(library, size=64):
    more = {"antialias": True} if library is v2 else {}
    return library.Compose(
        [
            library.RandomResizedCrop(size, scale=(0.7, 1.0), **more),
            library.RandomHorizontalFlip(),
            library.ColorJitter(0.3, 0.3, 0.3, 0.3),
            library.RandomGrayscale(),
        ]
    )


class TestTrainTransform:
    """Same draws as torchvision's from the same random state, and so the same image."""

    def test_equals_torchvision_on_tensors(self):
        ours, theirs = TrainTransform(64), torchvision_train(v2)
        for seed in range(40):
            image = photo(seed=seed)
            torch.manual_seed(seed)
            expected, after = theirs(image), torch.rand(1)
            torch.manual_seed(seed)
            found = ours(image)
            assert torch.rand(1) == after
            error = (found.float() - expected.float()).abs()  # theirs is cut to bytes four times
            assert error.mean() < 2.5
            assert error.max() <= 8

    def test_equals_the_suites_on_pil(self):
        ours, theirs = TrainTransform(64), torchvision_train(v1)
        for seed in range(40):
            image = photo(seed=seed)
            torch.manual_seed(seed)
            expected, after = tensor(theirs(pil(image))), torch.rand(1)
            torch.manual_seed(seed)
            found = ours(image)
            assert torch.rand(1) == after
            error = (found.float() - expected.float()).abs()  # and its hue has 256 steps
            assert error.mean() < 2.5
            assert error.max() <= 16

    @pytest.mark.parametrize("image", [photo(), decode(FILES["jpeg"]), photo(7, 300), photo(1, 1)])
    def test_form(self, image):
        before = image.clone()
        found = TrainTransform(48)(image)
        assert found.shape == (3, 48, 48)
        assert found.dtype is torch.uint8
        assert found.is_contiguous()
        assert torch.equal(image, before)

    def test_is_224_pixels_wide(self):
        assert TrainTransform()(photo()).shape == (3, 224, 224)

    def test_can_be_pickled(self):
        pickle.loads(pickle.dumps(TrainTransform(32)))(photo())


class TestCropTransform:
    @pytest.mark.parametrize("shape", [(227, 227), (90, 400), (400, 90), (1, 1), (2, 3)])
    def test_draws_torchvisions_boxes(self, shape):
        image = torch.empty(3, *shape)
        for seed in range(50):
            torch.manual_seed(seed)
            expected = v1.RandomResizedCrop.get_params(image, [0.7, 1.0], [3 / 4, 4 / 3])
            torch.manual_seed(seed)
            assert transforms._draw_box(*shape) == expected

    def test_areas_and_ratios(self):
        boxes = torch.tensor([transforms._draw_box(227, 227) for _ in range(2000)]).double()
        areas, ratios = boxes[:, 2] * boxes[:, 3] / 227**2, boxes[:, 3] / boxes[:, 2]
        assert 0.69 < areas.min() < 0.71
        assert 0.97 < areas.max() <= 1
        assert 0.74 < ratios.min() < 0.76
        assert 1.32 < ratios.max() < 1.34
        assert ratios.log().mean().item() == pytest.approx(0, abs=0.02)

    def test_flips_half(self):
        ramp = torch.arange(0, 250, 5, dtype=torch.uint8).expand(3, 50, 50)
        crop = CropTransform(8)
        flips = [float(crop(ramp)[0, 0, 0] > 125) for _ in range(1000)]
        assert np.mean(flips) == pytest.approx(0.5, abs=0.05)

    def test_is_the_first_half_of_the_whole(self):
        torch.manual_seed(3)
        expected = TrainTransform(32)(photo())
        torch.manual_seed(3)
        assert torch.equal(ColourTransform()(CropTransform(32)(photo())), expected)


STEPS = {
    "brighten": v2_functional.adjust_brightness,
    "contrast": v2_functional.adjust_contrast,
    "saturate": v2_functional.adjust_saturation,
    "turn_hue": v2_functional.adjust_hue,
}


class TestColourTransform:
    @pytest.mark.parametrize("name", STEPS)
    @pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
    def test_steps_equal_torchvisions_on_floats(self, name, share):
        value = 0.6 * share - 0.3 + (name != "turn_hue")
        image = photo().float()
        image[:, :4] = image[:1, :4]  # grey
        image[:, 4:8] = torch.tensor([0, 255]).repeat(60)  # black and white
        image[1:, 8:12] = 0  # pure red
        image[:2, 12:16] = image[2, 12:16]  # and all equal
        expected = 255 * STEPS[name](image / 255, value)
        getattr(transforms, f"_{name}")(image, value)
        torch.testing.assert_close(image, expected, rtol=0, atol=0.05)

    def test_hue_keeps_the_largest_and_the_smallest_channel(self):
        image = torch.randint(256, (3, 100, 100)).float()
        turned = image.clone()
        transforms._turn_hue(turned, 0.3)
        assert torch.equal(turned.amax(0), image.amax(0))
        assert torch.equal(turned.amin(0), image.amin(0))
        transforms._turn_hue(turned, -0.3)
        torch.testing.assert_close(turned, image, rtol=0, atol=1e-3)

    def test_draws(self):
        draws = [transforms._draw_colours() for _ in range(3000)]
        factors = torch.tensor([draw.factors for draw in draws])
        low, high = torch.tensor([0.7, 0.7, 0.7, -0.3]), torch.tensor([1.3, 1.3, 1.3, 0.3])
        torch.testing.assert_close(factors.amin(0), low, rtol=0, atol=0.005)
        torch.testing.assert_close(factors.amax(0), high, rtol=0, atol=0.005)
        torch.testing.assert_close(factors.mean(0), (low + high) / 2, rtol=0, atol=0.02)
        assert torch.corrcoef(factors.T).triu(1).abs().max() < 0.06
        orders = torch.tensor([draw.order for draw in draws])
        shares = functional.one_hot(orders, 4).double().mean(0)
        torch.testing.assert_close(shares, torch.full_like(shares, 0.25), rtol=0, atol=0.03)
        assert np.mean([draw.grey for draw in draws]) == pytest.approx(0.1, abs=0.02)

    def test_grey(self):
        images = torch.stack([photo(seed=seed) for seed in range(300)])
        found = ColourTransform()(images)
        grey = (found == found[:, :1]).all(-1).all(-1).all(-1)
        assert grey.double().mean().item() == pytest.approx(0.1, abs=0.05)

    def test_of_a_batch_is_that_of_its_images(self):
        images = torch.stack([photo(seed=seed) for seed in range(6)])
        torch.manual_seed(1)
        expected = torch.stack([ColourTransform()(image) for image in images])
        torch.manual_seed(1)
        assert torch.equal(ColourTransform()(images), expected)

    def test_on_a_device_is_that_on_the_processor(self):
        images = torch.stack([photo(seed=seed) for seed in range(60)])
        draws = [transforms._draw_colours() for _ in images]
        assert any(draw.grey for draw in draws)
        found = transforms._colour_batch(images, draws)
        expected = torch.stack(list(map(transforms._colour_one, images, draws)))
        assert found.is_contiguous()
        assert found.dtype is torch.uint8
        assert (found.int() - expected.int()).abs().max() <= 1  # sums in another order, cut off

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_on_a_gpu(self):
        images = torch.stack([photo(seed=seed) for seed in range(60)])
        torch.manual_seed(1)
        expected = ColourTransform()(images)
        torch.manual_seed(1)
        found = ColourTransform()(images.cuda())
        assert found.is_cuda
        assert (found.cpu().int() - expected.int()).abs().max() <= 1


class TestEvalTransform:
    @pytest.mark.parametrize("shape", [(227, 227), (90, 300), (64, 64), (1, 5)])
    def test_equals_pil(self, shape):
        image = photo(*shape)
        expected = tensor(v1.Resize((64, 64))(pil(image)))
        for given in (image, image.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
            found = EvalTransform(64)(given)
            assert found.dtype is torch.uint8
            assert found.is_contiguous()
            assert (found.int() - expected.int()).abs().max() <= 1

    def test_of_an_image_of_that_size_is_a_copy(self):
        image = photo(32, 32)
        found = EvalTransform(32)(image)
        assert torch.equal(found, image)
        assert found.data_ptr() != image.data_ptr()

    def test_draws_nothing(self):
        before = torch.get_rng_state()
        EvalTransform(16)(photo())
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("transform", [TrainTransform, CropTransform, EvalTransform])
def test_size_must_be_positive(transform):
    with pytest.raises(ValueError, match="`size` must be at least 1, got 0"):
        transform(0)


class TestToFloat:
    def test_equals_the_suites(self):
        image = photo()
        suites = v1.Compose([v1.ToTensor(), v1.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
        torch.testing.assert_close(to_float(image), suites(pil(image)))
        batch = torch.stack([image, 255 - image])
        before = batch.clone()
        torch.testing.assert_close(to_float(batch)[1], to_float(255 - image))
        assert torch.equal(batch, before)

    def test_other_means(self):
        image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1)
        found = to_float(image, (0.0, 0.1, 0.5), (1.0, 0.1, 0.25))
        torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 1.0, 2.0]))
