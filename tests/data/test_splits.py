"""Splits by group, on data of many shapes."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from gga_lightning.data import DomainDataModule, Emoji
from gga_lightning.data.splits import find_groups, split_groups


class Grouped:
    """Domains whose samples are (group number, class)."""

    name, num_classes, input_shape = "grouped", 3, (1,)

    def __init__(self, **groups):
        self.domains = {}
        for domain, members in groups.items():
            inputs = torch.tensor(members).float()[:, None]
            self.domains[domain] = TensorDataset(inputs, torch.tensor(members) % 3)
            self.domains[domain].groups = [f"g{number}" for number in members]


members = st.lists(st.integers(0, 20), min_size=1, max_size=40)
domains = st.dictionaries(st.sampled_from("abcd"), members, min_size=2)


def split(numbers, sources, fraction=0.4, seed=0):
    groups = {name: [str(n) for n in found] for name, found in numbers.items()}
    targets = {name: [n % 3 for n in found] for name, found in numbers.items()}
    rows = split_groups(groups, targets, sources, fraction, seed)
    return rows, groups


def groups_in(rows, groups, kind):
    return {
        groups[part.partition("/")[2]][row]
        for part, chosen in rows.items()
        if part.startswith(f"{kind}/")
        for row in chosen
    }


class TestSplit:
    @given(domains, st.floats(0.05, 0.95), st.integers(0, 100))
    def test_no_group_is_trained_on_and_held_out(self, numbers, fraction, seed):
        sources = list(numbers)[:-1]
        rows, groups = split(numbers, sources, fraction, seed)
        trained = groups_in(rows, groups, "train")
        assert not trained & groups_in(rows, groups, "val")
        assert not trained & groups_in(rows, groups, "test")
        assert groups_in(rows, groups, "seen") <= trained

    @given(domains, st.integers(0, 100))
    def test_every_sample_is_in_one_part(self, numbers, seed):
        rows, _ = split(numbers, list(numbers)[:-1], seed=seed)
        for name, found in numbers.items():
            mine = [row for part, chosen in rows.items() if part.endswith(name) for row in chosen]
            assert sorted(mine) == list(range(len(found)))

    @given(domains, st.integers(0, 100))
    def test_which_domain_is_held_out_does_not_change_the_draw(self, numbers, seed):
        drawn = []
        for held_out in numbers:
            rows, groups = split(numbers, [n for n in numbers if n != held_out], seed=seed)
            drawn.append(groups_in(rows, groups, "val"))
        for one, other in itertools.combinations(drawn, 2):
            everywhere = set.intersection(*(set(map(str, found)) for found in numbers.values()))
            assert one & everywhere == other & everywhere

    def test_share_of_each_class(self):
        numbers = {"a": list(range(30)), "b": list(range(30))}
        rows, groups = split(numbers, ["a"], 0.4)
        classes = [int(group) % 3 for group in groups_in(rows, groups, "val")]
        assert [classes.count(c) for c in range(3)] == [4, 4, 4]

    def test_seeds_differ(self):
        numbers = {"a": list(range(30)), "b": list(range(30))}
        assert len({tuple(split(numbers, ["a"], seed=seed)[0]["val/a"]) for seed in range(5)}) == 5

    def test_groups_of_one_domain_alone(self):
        """Patients of one hospital each: the held-out one is split in two, like the others."""
        rows, _ = split({"a": [1, 1, 2, 2, 4], "b": [11, 12, 14, 15, 17, 18]}, ["a"], 0.3)
        assert {part.partition("/")[0] for part in rows} == {"train", "val", "test", "oracle"}
        assert len(rows["test/b"]) > len(rows["oracle/b"])


class TestModule:
    def test_parts_of_the_emoji(self):
        emoji = Emoji()
        data = DomainDataModule(emoji, "openmoji", holdout_fraction=0.4)
        batches = {name: next(iter(loader)) for name, loader in data.val_dataloader().items()}
        assert list(batches) == [
            *("val/noto", "val/twemoji", "val/fluent-3d", "val/emojione-mono"),
            *("test/openmoji", "seen/openmoji"),
        ]
        assert list(data.test_dataloader()) == ["test/openmoji", "seen/openmoji"]
        sizes = [len(loader.dataset) for loader in data.val_dataloader().values()]
        assert sizes[-2:] == [206, 308]  # two of five objects are new

    def test_no_leak_into_training_batches(self):
        numbers = list(range(60)) * 3
        data = DomainDataModule(Grouped(a=numbers, b=numbers, c=numbers), holdout_fraction=0.4)
        trained = {
            int(number)
            for batch in data.train_dataloader()
            for inputs, _ in batch.values()
            for number in inputs
        }
        kept = {
            name: {int(n) for inputs, _ in loader for n in inputs}
            for name, loader in data.val_dataloader().items()
        }
        assert kept["val/a"] == kept["val/b"] == kept["test/c"]
        assert not trained & kept["test/c"]
        assert kept["seen/c"] >= trained


class TestErrors:
    def test_some_domains_without(self):
        data = Grouped(a=[1, 2, 3, 4], b=[1, 2, 3, 4])
        del data.domains["b"].groups
        with pytest.raises(ValueError, match=r"all domains must have `groups`, .*\['b'\] have"):
            DomainDataModule(data)

    def test_too_few(self):
        data = Grouped(a=[1, 2, 3, 4], b=[1, 2, 3, 4])
        data.domains["b"].groups = ["1", "2"]
        with pytest.raises(ValueError, match="of each of its 4 samples, got 2"):
            find_groups(data.domains)

    def test_nothing_to_hold_out(self):
        with pytest.raises(ValueError, match="'a' has 3 samples, too few .* of their groups"):
            DomainDataModule(Grouped(a=[3, 3, 3], b=[3, 6, 9]))
