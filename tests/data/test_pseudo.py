"""Pseudo-domains: recovered styles, their batches, trainings on one source, resuming."""

import json

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import TensorDataset

from gga_lightning import GradientAgreementVoting, GradientGuidedAnnealing, Guided, RandomState
from gga_lightning.algorithms import ERM
from gga_lightning.backbones import MLP
from gga_lightning.data import Digits, DomainDataModule, Toy
from gga_lightning.data.pseudo import style_clusters, style_of
from gga_lightning.experiments.models import load_model
from tests.experiments.test_evaluate import SHORT, run
from tests.helpers import same, trainer

OTHERS = ["inverted", "blurred", "noisy", "striped"]
ONE_SOURCE = ("data=digits", "data.dataset.shift=style", f"data.test_domain=[{','.join(OTHERS)}]")


class Mixed:
    """A source with two styles, 60 dark and 30 bright images, of which a sample knows nothing."""

    name, num_classes, input_shape = "mixed", 3, (3, 4, 4)

    def __init__(self):
        images = torch.rand(90, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        self.bright = torch.arange(90) % 3 == 1
        images[self.bright] += 1.0
        targets = torch.arange(90) % 3 // 2  # 60 of class 0, 30 of class 1
        self.domains = {
            "source": TensorDataset(images, targets),
            "target": TensorDataset(images[:20], targets[:20]),
        }


class Pictures(Mixed):
    """The same as integer images."""

    as_uint8 = True

    def __init__(self):
        super().__init__()
        for name, domain in self.domains.items():
            images, targets = domain.tensors
            self.domains[name] = TensorDataset((images * 127).to(torch.uint8), targets)


def data(dataset=None, held_out=OTHERS, **settings):
    settings = {"batch_size": 8, "steps_per_epoch": 4, "pseudo_domains": 3, **settings}
    return DomainDataModule(dataset or Digits("style"), held_out, **settings)


def batches(module):
    return list(module.train_dataloader())


class TestStyles:
    def test_two_styles_in_one_domain_are_separated(self):
        module = data(Mixed(), "target", pseudo_domains=2)
        assert module.training_domains == ["cluster-0", "cluster-1"]
        assert module.source_domains == ["source"]
        for batch in batches(module):
            assert list(batch) == module.training_domains
            assert (batch["cluster-0"][0].mean((1, 2, 3)) < 1).all()  # the larger one comes first
            assert (batch["cluster-1"][0].mean((1, 2, 3)) > 1).all()

    def test_styles_of_several_sources_are_found_without_their_names(self):
        """Inverted digits are bright; blurred ones have less contrast than plain ones."""
        module = data(held_out=["noisy", "striped"], batch_size=64)
        images = {name: x for name, (x, _) in batches(module)[0].items()}
        means = sorted(float(x.mean()) for x in images.values())
        assert means[0] < 0.4
        assert means[2] > 0.6
        plain, blurred = sorted(images.values(), key=lambda x: float(x.mean()))[:2]
        assert abs(float(plain.std() - blurred.std())) > 0.03

    def test_statistics_of_a_batch_by_hand(self):
        images = torch.tensor([[[[1, 3]], [[0, 0]]], [[[2, 2]], [[5, 7]]]], dtype=torch.uint8)
        assert style_of(images).tolist() == [[2, 0, 1, 0], [2, 6, 0, 1]]

    def test_channels_of_any_scale_count_alike(self):
        styles = torch.rand(40, 2, generator=torch.Generator().manual_seed(1)).double()
        styles[:15, 1] += 3
        small = style_clusters(styles * torch.tensor([1000.0, 1e-3]), 2, 0)
        assert small.tolist() == [1] * 15 + [0] * 25


class TestBatches:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"shuffle_domains": True},
            {"balance_classes": True},
            pytest.param({"num_workers": 2}, marks=pytest.mark.slow),
        ],
    )
    def test_are_a_function_of_the_seed(self, settings):
        torch.manual_seed(5)
        first = batches(data(Mixed(), "target", pseudo_domains=2, **settings))
        drawn = torch.rand(())
        torch.manual_seed(6)
        second = batches(data(Mixed(), "target", pseudo_domains=2, **settings))
        assert same(first, second)
        other = {**settings, "seed": 1}
        assert not same(first, batches(data(Mixed(), "target", pseudo_domains=2, **other)))
        torch.manual_seed(5)
        batches(data(Mixed(), "target", pseudo_domains=None, **settings))
        assert drawn == torch.rand(())  # no random numbers of others are used up

    def test_the_order_of_samples_has_no_part_in_the_clusters(self):
        """`seed` draws the batches, and `split_seed` makes the domains."""
        one, other = (
            data(Mixed(), "target", seed=s, split_seed=4, pseudo_domains=2) for s in (1, 2)
        )
        for name in one.training_domains:
            rows = [module._training_parts[name].indices for module in (one, other)]
            assert rows[0].tolist() == rows[1].tolist()

    def test_shuffled_domains_mix_the_clusters(self):
        module = data(Mixed(), "target", pseudo_domains=2, shuffle_domains=True, batch_size=16)
        bright = torch.cat([x.mean((1, 2, 3)) > 1 for x, _ in batches(module)[0].values()])
        assert int(bright.sum()) == 16
        assert 0 < int(bright[:16].sum()) < 16

    def test_views_are_made_of_the_clusters(self):
        module = data(Pictures(), "target", pseudo_domains=2, views=["edges"])
        names = ["cluster-0", "cluster-0/edges", "cluster-1", "cluster-1/edges"]
        assert module.training_domains == names
        assert [(n, len(y)) for n, (_, y) in batches(module)[0].items()] == [(n, 4) for n in names]

    def test_classes_are_balanced_within_each_cluster(self):
        module = data(Mixed(), "target", batch_size=16, steps_per_epoch=30, pseudo_domains=2)
        even = data(
            Mixed(),
            "target",
            batch_size=16,
            steps_per_epoch=30,
            pseudo_domains=2,
            balance_classes=True,
        )

        def share(found, name):
            return float(torch.cat([b[name][1] for b in batches(found)]).double().mean())

        assert 0.4 < share(even, "cluster-0") < 0.6
        assert share(module, "cluster-1") == share(even, "cluster-1") == 0  # it has class 0 alone

    def test_evaluation_keeps_the_true_domains(self):
        plain, clustered = (data(pseudo_domains=count).val_dataloader() for count in (0, 3))
        assert list(clustered) == [
            "val/plain",
            *(f"{k}/{n}" for k in ("test", "oracle") for n in OTHERS),
        ]
        assert list(plain) == list(clustered)
        assert all(same(list(plain[name]), list(clustered[name])) for name in plain)

    def test_an_epoch_is_as_long_as_the_largest_cluster(self):
        module = data(Mixed(), "target", steps_per_epoch=None, pseudo_domains=2)
        largest = max(len(part) for part in module._training_parts.values())
        assert len(module.train_dataloader()) == largest // 8 > 30 // 8


def fit(module_data, *callbacks, steps=6, checkpoint=None):
    torch.manual_seed(0)
    module = ERM(MLP((1, 8, 8), widths=(16,)), 10)
    run = trainer(
        RandomState(),
        *callbacks,
        max_steps=steps,
        limit_val_batches=0,
        enable_checkpointing=any(isinstance(found, ModelCheckpoint) for found in callbacks),
    )
    run.fit(module, datamodule=module_data, ckpt_path=checkpoint, weights_only=checkpoint and True)
    return dict(module.state_dict())


class TestTrainings:
    def test_a_guided_search_on_one_source(self):
        gga = GradientGuidedAnnealing(1, 4, proposal=Guided(0.01, relative=True))
        fit(data(), gga)
        assert [record.step for record in gga.records] == [1, 2, 3]
        assert any(record.accepted for record in gga.records)

    def test_voting_on_one_source(self):
        voting = GradientAgreementVoting(0, 4)
        fit(data(), voting)
        assert len(voting.records) == 4
        assert all(0 < record.share < 1 for record in voting.records)

    def test_views_of_one_source_are_enough(self):
        voting = GradientAgreementVoting(0, 2)
        pictures = data(Pictures(), "target", pseudo_domains=None, views=["edges"])
        trainer(voting, max_steps=2, limit_val_batches=0).fit(
            ERM(MLP((3, 4, 4), widths=(16,)), 3), datamodule=pictures
        )
        assert len(voting.records) == 2

    @pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
    def test_resumes_bit_for_bit_within_an_epoch(self, tmp_path):
        def search():
            return GradientGuidedAnnealing(1, 6, proposal=Guided(0.01, relative=True))

        def saved():
            return ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=3)

        whole = fit(data(), search())
        fit(data(), search(), saved(), steps=3)
        resumed = fit(data(), search(), saved(), checkpoint=tmp_path / "last.ckpt")
        assert same(whole, resumed)

    def test_a_run_names_its_domains_and_loads(self, tmp_path):
        """Its discriminator tells three clusters apart, and there is one source domain."""
        settings = ("algorithm=dann", "data.pseudo_domains=3", "data.batch_size=8")
        folder = run(tmp_path / "run", *SHORT, *ONE_SOURCE, *settings)
        result = json.loads((folder / "result.json").read_text())
        assert result["training_domains"] == ["cluster-0", "cluster-1", "cluster-2"]
        assert result["source_domains"] == ["plain"]
        assert result["settings"]["data.pseudo_domains"] == 3
        assert load_model(folder).domains == ["plain", *OTHERS]


class TestErrors:
    @pytest.mark.parametrize("count", [1, -2, True, 2.0, "3"])
    def test_counts(self, count):
        with pytest.raises(ValueError, match=r"`pseudo_domains` must be None, 0, or .* at least 2"):
            data(pseudo_domains=count)

    def test_other_inputs(self):
        with pytest.raises(ValueError, match=r"for images .* got 2 for inputs of shape \(2,\)"):
            DomainDataModule(Toy(), pseudo_domains=2)

    def test_clusters_smaller_than_a_batch(self):
        module = data(Mixed(), "target", batch_size=32, pseudo_domains=2)
        with pytest.raises(
            ValueError, match=r"clusters of \[\d+, \d+\] images, .* `batch_size=32`"
        ):
            module.train_dataloader()

    @pytest.mark.filterwarnings("ignore:Number of distinct clusters")
    def test_fewer_styles_than_clusters(self):
        dataset = Mixed()
        dataset.domains["source"].tensors[0][:] = dataset.bright.float()[:, None, None, None]
        with pytest.raises(ValueError, match=r"clusters of \[\d+, \d+, 0\] images"):
            data(dataset, "target").train_dataloader()
