"""Views of training images, as domains and as augmentation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import seed_everything
from scipy import ndimage

from gga_lightning import (
    GradientAgreementVoting,
    GradientConflictMonitor,
    GradientGuidedAnnealing,
    GradientGuidedNoise,
    Guided,
)
from gga_lightning.data import Digits, DomainDataModule, Emoji
from gga_lightning.data.views import VIEWS, edges, gradient_map, gray
from gga_lightning.experiments.models import load_model
from gga_lightning.experiments.train import config_directory, make_algorithm
from tests.experiments.test_evaluate import SHORT, run
from tests.helpers import mostly_slow, same, trainer

ALGORITHMS = sorted(path.stem for path in (Path(config_directory()) / "algorithm").glob("*.yaml"))
STYLES = ("noto", "openmoji", "emojione-mono")
CALLBACKS = {
    "search": lambda: GradientGuidedAnnealing(0, 2, proposal=Guided(1e-3)),
    "voting": lambda: GradientAgreementVoting(end_step=2),
    "noise": lambda: GradientGuidedNoise(),
    "monitor": lambda: GradientConflictMonitor(every_n_steps=1),
}


@pytest.fixture(scope="module")
def emoji():
    return Emoji(domains=STYLES, image_size=28)


def data(emoji, **settings):
    settings = {"batch_size": 6, "steps_per_epoch": 3, "holdout_fraction": 0.4, **settings}
    return DomainDataModule(emoji, "emojione-mono", **settings)


def batches(module):
    return list(module.train_dataloader())


class TestViews:
    def test_edges_of_a_disc_are_a_ring(self):
        rows, columns = torch.meshgrid(torch.arange(41), torch.arange(41), indexing="ij")
        distance = ((rows - 20.0) ** 2 + (columns - 20.0) ** 2).sqrt()
        image = torch.where(distance < 12, 40, 220).to(torch.uint8).expand(3, -1, -1)
        drawn = edges(image)[0]
        assert (drawn[(distance < 9) | (distance > 15)] == 255).all()
        assert (drawn[(distance > 11.5) & (distance < 12.5)] < 200).all()

    def test_light_on_dark_has_the_same_edges_as_dark_on_light(self):
        image = torch.randint(0, 256, (3, 9, 7), dtype=torch.uint8)
        difference = edges(image).int() - edges(255 - image).int()
        assert difference.abs().max() <= 1

    def test_gray_is_the_brightness(self):
        image = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
        assert gray(image[:, :, None])[:, :, 0].tolist() == [[76, 150, 29]] * 3

    @pytest.mark.parametrize("partly_flat", [True, False])
    def test_a_gradient_map_by_the_published_steps(self, partly_flat):
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (3, 14, 17), dtype=torch.uint8, generator=generator)
        if partly_flat:
            image[:, :, 10:] = torch.tensor([30, 200, 90])[:, None, None]
        else:  # steep, everywhere
            image = image // 20 + 14 * torch.arange(17, dtype=torch.uint8)
        bright = np.einsum("chw,c->hw", image.double().numpy(), [0.299, 0.587, 0.114])
        smooth = ndimage.gaussian_filter(bright, sigma=0.5, mode="nearest", truncate=4)
        across = ndimage.correlate(smooth, np.array([[-1, 0, 1]]), mode="reflect")
        down = ndimage.correlate(smooth, np.array([[-1], [0], [1]]), mode="reflect")
        magnitude = np.sqrt(across**2 + down**2)
        steep = magnitude > 1e-6
        counts, borders = np.histogram(magnitude[steep], bins=256)
        middles = (borders[1:] + borders[:-1]) / 2
        shares = np.interp(magnitude, middles, counts.cumsum() / counts.sum())
        expected = np.where(steep, 255 * shares, 0)
        assert 0.3 < steep.mean() < 0.8 if partly_flat else magnitude[:, 1:-1].min() > 5
        for channel in gradient_map(image):
            assert np.abs(channel.numpy() - expected).max() < 0.501

    @pytest.mark.parametrize("colour", [0, 77, 255])
    def test_the_gradient_map_of_a_flat_picture_is_black(self, colour):
        image = torch.full((3, 9, 7), colour, dtype=torch.uint8)
        image[0] = 13
        assert (gradient_map(image) == 0).all()

    @pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
    def test_of_a_batch_are_those_of_its_images(self, view):
        images = torch.randint(0, 256, (4, 3, 8, 5), dtype=torch.uint8)
        assert torch.equal(view(images), torch.stack([view(image) for image in images]))
        assert view(images).dtype == torch.uint8


class TestAsDomains:
    def test_deal_out_the_samples_of_a_batch(self, emoji):
        plain, viewed = data(emoji), data(emoji, views=["edges", "gray"])
        assert viewed.training_domains == [
            *("noto", "noto/edges", "noto/gray"),
            *("openmoji", "openmoji/edges", "openmoji/gray"),
        ]
        for before, after in zip(batches(plain), batches(viewed), strict=True):
            assert list(after) == viewed.training_domains
            for name in before:
                images, targets = before[name]
                for place, (full, maker) in enumerate(
                    {name: None, f"{name}/edges": edges, f"{name}/gray": gray}.items()
                ):
                    own = images[place::3]
                    assert torch.equal(after[full][0], own if maker is None else maker(own))
                    assert torch.equal(after[full][1], targets[place::3])

    def test_evaluation_has_none(self, emoji):
        plain, viewed = (data(emoji, views=views).val_dataloader() for views in ([], ["edges"]))
        assert list(plain) == list(viewed)
        for name in plain:
            assert same(list(plain[name]), list(viewed[name]))


class TestAsAugmentation:
    def test_each_image_is_itself_or_a_view(self, emoji):
        settings = {"views": ["edges"], "views_as": "augmentation", "batch_size": 60}
        mixed = data(emoji, **settings)
        assert mixed.training_domains == mixed.source_domains
        plain = data(emoji, batch_size=60)
        changed = []
        for before, after in zip(batches(plain), batches(mixed), strict=True):
            for name in before:
                for one, other in zip(before[name][0], after[name][0], strict=True):
                    changed.append(not torch.equal(one, other))
                    assert torch.equal(other, edges(one) if changed[-1] else one)
        assert 0.4 < sum(changed) / len(changed) < 0.6


@pytest.mark.parametrize("views_as", ["domains", "augmentation"])
def test_a_function_of_seed_and_step(emoji, views_as):
    settings = {"views": ["edges"], "views_as": views_as}
    first = batches(data(emoji, **settings))
    assert same(first, batches(data(emoji, **settings)))
    assert same(first, batches(data(emoji, num_workers=2, **settings)))
    assert not same(first, batches(data(emoji, seed=1, split_seed=0, **settings)))


@pytest.mark.parametrize("name", mostly_slow(ALGORITHMS, "dann", "erm", "fish", "mtl"))
def test_every_algorithm(emoji, name):
    overrides = [f"algorithm={name}", "data=emoji", "backbone=mnist_cnn"]
    with initialize_config_dir(config_directory(), version_base="1.3"):
        config = compose("train", overrides)
    module_data = data(emoji, views=["edges"], eval_batch_size=8)
    seed_everything(0, verbose=False)
    module = make_algorithm(config, module_data)
    fit = trainer(max_steps=3, check_val_every_n_epoch=1, limit_val_batches=1)
    fit.fit(module, datamodule=module_data)
    assert all(param.isfinite().all() for param in module.parameters())
    assert "val/acc" in fit.callback_metrics


@pytest.mark.parametrize("name", CALLBACKS)
def test_every_callback_sees_views_as_domains(emoji, name):
    with initialize_config_dir(config_directory(), version_base="1.3"):
        config = compose("train", ["data=emoji", "backbone=mnist_cnn"])
    module_data = data(emoji, views=["edges"])
    callback = CALLBACKS[name]()
    trainer(callback, max_steps=3, limit_val_batches=0).fit(
        make_algorithm(config, module_data), datamodule=module_data
    )
    if name == "monitor":
        assert list(callback.records[0].domains) == module_data.training_domains
    elif name == "search":
        assert len(callback.records) == 2


@pytest.mark.parametrize("algorithm", ["erm", "dann"])
def test_a_run_with_views_loads(tmp_path, algorithm):
    """Its discriminator tells twice as many domains apart as there are source domains."""
    views = ("data=emoji", "backbone=mnist_cnn", "data.views=[edges]", "data.dataset.image_size=16")
    views += ("+trainer.limit_val_batches=1", "data.eval_batch_size=8", f"algorithm={algorithm}")
    folder = run(tmp_path / "run", *SHORT, *views)
    module = load_model(folder)
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert same(saved, dict(load_model(folder, "last").state_dict()))
    assert module.domains == ["noto", "twemoji", "fluent-3d", "openmoji", "emojione-mono"]


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"views": ["sketch"]},
                r"`views` must be different ones of \['edges', 'gray', 'gradient_map'\], got",
            ),
            ({"views": ["gray", "gray"]}, "`views` must be different ones of"),
            ({"views_as": "both"}, "`views_as` must be 'domains' or 'augmentation', got 'both'"),
            ({"views": ["edges"], "batch_size": 1}, "`batch_size` must be at least 2, a sample"),
        ],
    )
    def test_settings(self, emoji, settings, message):
        with pytest.raises(ValueError, match=message):
            data(emoji, **settings)

    def test_other_inputs(self):
        with pytest.raises(ValueError, match=r"`views` need integer images .* \(1, 8, 8\), floats"):
            DomainDataModule(Digits(), views=["edges"])
