import hashlib
import random
from itertools import chain

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import TensorDataset

from gga_lightning.data import Digits, DomainDataModule
from gga_lightning.data.splits import split_indices
from tests.helpers import Classifier, trainer


class Numbered:
    """Domains whose samples are numbers, so that each can be told apart."""

    name, num_classes, input_shape = "numbered", 3, (1,)

    def __init__(self, sizes=(50, 40, 30), names="abc"):
        self.domains = {
            name: TensorDataset(
                torch.arange(size).float()[:, None] + 1000 * index, torch.arange(size) % 3
            )
            for index, (name, size) in enumerate(zip(names, sizes, strict=True))
        }


def numbers(loader):
    return [int(x) for inputs, _ in loader for x in inputs]


class TestSplits:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_are_the_reference_suites(self, seed):
        """From the protocol's description: MD5 of the text of (trial seed, domain index)."""
        data = DomainDataModule(Numbered(), "b", split_seed=seed, seed=7)
        loaders = data.val_dataloader()
        for index, (name, size) in enumerate(zip("abc", (50, 40, 30), strict=True)):
            text = f"({seed}, {index})"
            state = np.random.RandomState(int(hashlib.md5(text.encode()).hexdigest(), 16) % 2**31)
            keys = list(range(size))
            state.shuffle(keys)
            out = [key + 1000 * index for key in keys[: int(0.2 * size)]]
            rest = [key + 1000 * index for key in keys[int(0.2 * size) :]]
            if name == "b":
                assert numbers(loaders["oracle/b"]) == out
                assert numbers(loaders["test/b"]) == rest
            else:
                assert numbers(loaders[f"val/{name}"]) == out

    def test_cover_each_domain_once(self):
        large, small = split_indices(103, 0.2, 5, 1)
        assert sorted(large + small) == list(range(103))
        assert len(small) == 20

    def test_follow_the_seed_where_there_is_no_other(self):
        own, given = (
            numbers(DomainDataModule(Numbered(), seed=s, split_seed=p).val_dataloader()["val/a"])
            for s, p in ((3, None), (0, 3))
        )
        assert own == given


class TestTestDomain:
    @pytest.mark.parametrize(
        ("chosen", "found"), [("b", ["b"]), (0, ["a"]), (-1, ["c"]), (["a", -1], ["a", "c"])]
    )
    def test_by_name_or_index(self, chosen, found):
        data = DomainDataModule(Numbered(), chosen)
        assert data.test_domains == found
        assert data.source_domains == [name for name in "abc" if name not in found]

    def test_a_name_of_digits_goes_before_an_index(self):
        assert DomainDataModule(Digits("rotation"), 15).test_domains == ["15"]
        assert DomainDataModule(Digits("rotation"), "0").test_domains == ["0"]
        assert DomainDataModule(Digits("rotation"), 1).test_domains == ["15"]

    @pytest.mark.parametrize(
        ("names", "chosen", "found"),
        [
            (("007", "1_1", "7"), "007", "007"),
            (("007", "1_1", "x"), "1", "1_1"),  # an index
            (("1e3", "true", "null"), "null", "null"),
            (("all", "1.0", "~"), "1.0", "1.0"),
            (("2020-01-01", "0x10", "on"), "-1", "on"),
            (("2", "1", "0"), "0", "0"),
            (("caf\u00e9", "b", "c"), "cafe\u0301", "caf\u00e9"),  # looks the same
            (("b", "a ", "c"), "a", "a "),
        ],
    )
    def test_is_compared_as_text(self, names, chosen, found):
        assert DomainDataModule(Numbered(names=names), chosen).test_domains == [found]

    @pytest.mark.parametrize("chosen", ["d", 3, -4, "03", "+1", "1.0", "", True, None, 1.5, b"a"])
    def test_unknown(self, chosen):
        with pytest.raises(ValueError, match=r"`test_domain` must be one of \['a', 'b', 'c'\] or"):
            DomainDataModule(Numbered(), chosen)


class TestTraining:
    def batches(self, epoch=0, **settings):
        settings = {"batch_size": 4, "steps_per_epoch": 5, **settings}
        loader = DomainDataModule(Numbered(), "c", **settings).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [{name: x[:, 0].int().tolist() for name, (x, _) in b.items()} for b in loader]

    def test_batches_by_domain(self):
        batches = self.batches()
        assert len(batches) == 5
        large = set(numbers(DomainDataModule(Numbered(), "a").val_dataloader()["test/a"]))
        for batch in batches:
            assert list(batch) == ["a", "b"]
            assert set(batch["a"]) <= large
            assert len(batch["b"]) == 4

    def test_stream_depends_on_seed_and_epoch(self):
        assert self.batches() == self.batches()
        assert self.batches() != self.batches(epoch=1)
        assert self.batches() != self.batches(seed=1, split_seed=0)

    def test_draws_with_replacement_reach_everything(self):
        batches = self.batches(steps_per_epoch=200)
        assert {x for batch in batches for x in batch["a"]} == set(
            numbers(DomainDataModule(Numbered(), "a").val_dataloader()["test/a"])
        )

    def test_length_of_an_epoch_without_being_told(self):
        assert len(self.batches(steps_per_epoch=None)) == 40 // 4

    def test_processes_share_the_batch(self, monkeypatch):
        def of(rank, ranks, batch_size):
            data = DomainDataModule(Numbered(), "c", batch_size=batch_size, steps_per_epoch=3)
            monkeypatch.setattr(data, "_ranks", lambda: (rank, ranks))
            train = [
                {k: x[:, 0].tolist() for k, (x, _) in b.items()} for b in data.train_dataloader()
            ]
            return train, numbers(data.val_dataloader()["val/a"])

        whole, first, second = of(0, 1, 8), of(0, 2, 4), of(1, 2, 4)
        for one, mine, other in zip(whole[0], first[0], second[0], strict=True):
            assert all(one[name] == mine[name] + other[name] for name in one)
        assert sorted(whole[1]) == sorted(first[1] + second[1])

    def seen(self, **settings):
        """The rows of each training batch by domain, as a module sees them, and of validation."""
        batches, validated = [], []

        class Sees(LightningModule):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(1))

            def training_step(self, batch, batch_idx):
                batches.append({name: x[:, 0].int().tolist() for name, (x, _) in batch.items()})
                assert all(torch.equal(x[:, 0].long() % 1000 % 3, y) for x, y in batch.values())
                return (self.weight * 0).sum()

            def validation_step(self, batch, batch_idx, dataloader_idx=0):
                validated.append(batch[0][:, 0].int().tolist())

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        data = DomainDataModule(Numbered(), "c", batch_size=8, steps_per_epoch=3, **settings)
        trainer(max_steps=6, num_sanity_val_steps=0).fit(Sees(), datamodule=data)
        return batches, validated

    def test_shuffled_domains(self):
        plain, validated = self.seen()
        shuffled, same_validated = self.seen(shuffle_domains=True)
        for one, other in zip(plain, shuffled, strict=True):
            assert list(one) == list(other)
            assert [len(rows) for rows in other.values()] == [8, 8]
            assert sorted(chain(*one.values())) == sorted(chain(*other.values()))
            assert one != other
        assert validated == same_validated
        assert self.seen(shuffle_domains=True)[0] == shuffled
        dealt = [[row >= 1000 for row in batch["a"]] for batch in shuffled]
        assert dealt[0] != dealt[1]  # anew in every batch

    @pytest.mark.filterwarnings("ignore:You have overridden `on_before_batch_transfer`")
    def test_a_modules_own_transfer_hooks_are_left_in_place(self):
        class Negates(Classifier):
            def __init__(self):
                super().__init__(features=1)
                self.largest = 0.0

            def validation_step(self, batch, batch_idx, dataloader_idx=0):
                pass

            def on_before_batch_transfer(self, batch, dataloader_idx):
                return {name: (-x, y) for name, (x, y) in batch.items()} if self.training else batch

            def on_train_batch_start(self, batch, batch_idx):
                self.largest = max(self.largest, *(x.max().item() for x, _ in batch.values()))

        for shuffle in (False, True):
            module = Negates()
            data = DomainDataModule(Numbered(), "c", batch_size=8, shuffle_domains=shuffle)
            fit = trainer(max_steps=2, limit_val_batches=0)
            fit.fit(module, datamodule=data)
            assert module.largest == 0.0  # every number had its sign turned

    def test_lightning_sets_the_epoch_and_keeps_the_sampler(self):
        class Sees(Classifier):
            def __init__(self):
                super().__init__(features=1)
                self.seen = []

            def on_train_batch_start(self, batch, batch_idx):
                self.seen.append(batch["a"][0][:, 0].int().tolist())

        module = Sees()
        data = DomainDataModule(Numbered(), "c", batch_size=4, steps_per_epoch=3)
        trainer(max_steps=6).fit(module, data.train_dataloader())
        expected = [
            batch["a"] for epoch in (0, 1) for batch in self.batches(epoch, steps_per_epoch=3)
        ]
        assert module.seen == expected


class Skewed(Numbered):
    """One sample in eight is of class 1."""

    def __init__(self):
        self.domains = {
            name: TensorDataset(torch.zeros(80, 1), (torch.arange(80) % 8 == 0).long())
            for name in "abc"
        }


class Marked(Numbered):
    """Says which transform an input has gone through."""

    def train_transform(self, inputs):
        return torch.full_like(inputs, 1.0)

    def eval_transform(self, inputs):
        return torch.full_like(inputs, 2.0)


class TestIntegerImages:
    class Images(Numbered):
        as_uint8 = True

        def __init__(self):
            generator = torch.Generator().manual_seed(0)
            self.domains = {
                name: TensorDataset(
                    torch.randint(256, (20, 3, 2, 2), dtype=torch.uint8, generator=generator),
                    torch.arange(20) % 3,
                )
                for name in "abc"
            }

    class Sees(Classifier):
        def __init__(self, normalization):
            super().__init__(features=12)
            self.featurizer.insert(0, torch.nn.Flatten())
            self.featurizer.normalization = normalization
            self.batches = []

        def on_train_batch_start(self, batch, batch_idx):
            self.batches.append(batch)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            assert batch[0].dtype is torch.float32

    @pytest.mark.parametrize("normalization", [None, ((0.5, 0.4, 0.3), (0.2, 0.1, 0.3))])
    def test_are_normalized_on_the_device(self, normalization):
        module = self.Sees(normalization)
        data = DomainDataModule(self.Images(), "c", batch_size=4, steps_per_epoch=1)
        (raw,) = data.train_dataloader()
        trainer(max_steps=1).fit(module, datamodule=data)
        imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        mean, deviation = (
            torch.tensor(values).view(3, 1, 1) for values in normalization or imagenet
        )
        for name, (images, _) in module.batches[0].items():
            expected = (raw[name][0].float() / 255 - mean) / deviation
            torch.testing.assert_close(images, expected)


class TestLoading:
    def test_balanced_classes(self):
        def share(**settings):
            data = DomainDataModule(Skewed(), "c", batch_size=1000, steps_per_epoch=1, **settings)
            (batch,) = data.train_dataloader()
            return batch["a"][1].double().mean().item()

        assert share() == pytest.approx(0.125, abs=0.05)
        assert share(balance_classes=True) == pytest.approx(0.5, abs=0.06)

    def test_balanced_classes_need_targets(self):
        class Bare(Numbered):
            def __init__(self):
                self.domains = {name: list(zip(range(9), range(9))) for name in "abc"}  # noqa: B905

        with pytest.raises(ValueError, match="`balance_classes` needs .* `targets`, got list"):
            DomainDataModule(Bare(), "c", balance_classes=True).train_dataloader()

    def test_transforms(self):
        data = DomainDataModule(Marked(), "c", batch_size=2, steps_per_epoch=1)
        (batch,) = data.train_dataloader()
        assert all((x == 1).all() for x, _ in batch.values())
        loaders = {**data.val_dataloader(), **data.test_dataloader()}
        assert all((x == 2).all() for loader in loaders.values() for x, _ in loader)

    def test_validation_augmented_as_in_the_suite(self):
        data = DomainDataModule(Marked(), "c", augment_validation=True)
        for name, loader in data.val_dataloader().items():
            expected = 1 if name.startswith("val/") else 2
            assert all((x == expected).all() for x, _ in loader)

    def test_worker_processes_change_nothing_and_are_shared(self):
        def train(workers):
            settings = {"batch_size": 4, "steps_per_epoch": 6, "shuffle_domains": True}
            loader = DomainDataModule(Marked(), "c", num_workers=workers, **settings)
            loader = loader.train_dataloader()
            loader.sampler.set_epoch(2)
            batches = [{n: y.tolist() for n, (_, y) in batch.items()} for batch in loader]
            return batches, len(getattr(loader._iterator, "_workers", ()))

        plain, _ = train(0)
        shared, started = train(2)
        assert plain == shared
        assert started == 2


class Drawing(Numbered):
    """Samples whose transform draws from every generator there is."""

    @staticmethod
    def train_transform(x):
        return x.double() + torch.tensor([torch.rand(()), np.random.rand(), random.random()])


class TestAugmentation:
    def batches(self, workers=0, epoch=2, seed=0, **settings):
        data = DomainDataModule(Drawing(), "c", batch_size=4, num_workers=workers, seed=seed)
        data.steps_per_epoch = 5
        if settings:
            data._ranks = lambda: (settings["rank"], 2)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [batch[name][0] % 1 for batch in loader for name in batch]

    def test_does_not_depend_on_worker_processes_or_on_what_was_drawn_before(self):
        first = self.batches()
        torch.rand(7), np.random.rand(7), random.random()
        for workers in (0, 1, 2):
            assert all(map(torch.equal, first, self.batches(workers)))

    def test_differs_from_batch_to_batch_domain_epoch_seed_and_process(self):
        draws = [
            *self.batches(),
            *self.batches(epoch=3),
            *self.batches(seed=1),
            *self.batches(rank=1),
        ]
        values = torch.cat(draws).flatten()
        assert len(values.unique()) == len(values)

    def test_leaves_the_trainings_own_generators_alone(self):
        loader = DomainDataModule(Drawing(), "c", steps_per_epoch=2).train_dataloader()
        iterator = iter(loader)
        next(iterator)  # the loader draws a seed for worker processes
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        next(iterator)
        assert torch.equal(states[0], torch.get_rng_state())
        assert (states[1] == np.random.get_state()[1]).all()
        assert states[2] == random.getstate()


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"test_domain": ["a", "b", "c"]}, "`test_domain` must leave a domain to train on"),
            ({"test_domain": []}, "`test_domain` must name at least one of .*, got \\[\\]"),
            ({"test_domain": ["a", "a"]}, "must name each domain once.* names 'a' twice"),
            ({"test_domain": ["a", 0]}, "must name each domain once.* names 'a' twice"),
            ({"test_domain": (-1, 2)}, "must name each domain once.* names 'c' twice"),
            ({"test_domain": [["a"]]}, "`test_domain` must be one of .*, got \\['a'\\]"),
            ({"test_domain": [True]}, "`test_domain` must be one of .*, got True"),
            ({"seed": -1}, "`seed` must be an integer from 0 to 4294967295, got -1"),
            ({"seed": None}, "`seed` must be an integer .*, got None"),
            ({"seed": True}, "`seed` must be an integer .*, got True"),
            ({"split_seed": 2**32}, "`split_seed` must be an integer .*, got 4294967296"),
            ({"split_seed": 1.5}, "`split_seed` must be an integer .*, got 1.5"),
            ({"split_seed": "abc"}, "`split_seed` must be an integer .*, got 'abc'"),
            ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
            ({"eval_batch_size": 0}, "`eval_batch_size` must be at least 1, got 0"),
            ({"steps_per_epoch": 0}, "`steps_per_epoch` must be at least 1, got 0"),
            ({"holdout_fraction": 1.0}, r"`holdout_fraction` must be in \(0, 1\), got 1.0"),
            ({"holdout_fraction": 0.01}, "Domain 'a' has 50 samples, too few"),
        ],
    )
    def test_are_refused_at_once(self, settings, message):
        with pytest.raises(ValueError, match=message):
            DomainDataModule(Numbered(), **settings)
