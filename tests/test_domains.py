import collections
import dataclasses

import pytest
import torch

from gga_lightning.domains import batch_rows, shuffle_domains, split_batch, split_by_label

X, Y, D = torch.arange(12.0).view(6, 2), torch.arange(6), torch.tensor([2, 0, 2, 0, 1, 2])
Pair = collections.namedtuple("Pair", ["inputs", "targets"])


@dataclasses.dataclass
class Sample:
    inputs: torch.Tensor
    domain: torch.Tensor


class TestNative:
    def test_mapping_of_domains(self):
        batch = {"photo": (X, Y), "art": [X[:2], Y[:2]]}
        found = split_batch(batch)
        assert list(found.parts) == ["photo", "art"]
        assert found.parts["photo"] is batch["photo"]
        assert found.steps["art"] == {"art": batch["art"]}

    def test_domain_without_samples_is_left_out(self):
        found = split_batch({"a": (X, Y), "b": (X[:0], Y[:0]), "c": (X, Y)})
        assert list(found.parts) == ["a", "c"]

    def test_mapping_of_mappings(self):
        batch = {"a": {"x": X, "y": Y}, "b": {"x": X, "y": Y}}
        assert list(split_batch(batch).parts) == ["a", "b"]


class TestLabelled:
    def test_triple(self):
        parts = split_batch((X, Y, D)).parts
        assert list(parts) == ["0", "1", "2"]
        x, y, d = parts["2"]
        assert y.tolist() == [0, 2, 5]
        assert torch.equal(x, X[[0, 2, 5]])
        assert d.tolist() == [2, 2, 2]

    def test_parts_join_to_the_batch(self):
        parts = split_batch((X, Y, D)).parts.values()
        assert sorted(torch.cat([part[1] for part in parts]).tolist()) == Y.tolist()

    @pytest.mark.parametrize("key", ["domain", "domains"])
    def test_mapping_with_the_usual_key(self, key):
        parts = split_batch({"image": X, "label": Y, key: D}).parts
        assert parts["0"]["label"].tolist() == [1, 3]

    def test_names_as_labels(self):
        batch = {"x": X, "domain": ["b", "a", "b", "a", "b", "b"]}
        parts = split_batch(batch).parts
        assert list(parts) == ["a", "b"]
        assert parts["a"] == {"x": parts["a"]["x"], "domain": ["a", "a"]}

    @pytest.mark.parametrize(("batch", "split"), [((D, X), 0), ({"env": D, "x": X}, "env")])
    def test_where_the_user_says(self, batch, split):
        assert list(split_batch(batch, split).parts) == ["0", "1", "2"]

    def test_steps_are_parts(self):
        found = split_batch((X, Y, D))
        assert found.steps is found.parts

    def test_any_structure(self):
        batch = {
            "pair": Pair(X, Y),
            "nested": [{"x": X}, "constant", 3],
            "sample": Sample(X, D),
            "files": [f"{i}.png" for i in range(6)],
            "scale": torch.tensor(2.0),
            "table": torch.ones(4, 4),
        }
        part = split_by_label(batch, D)["0"]
        assert isinstance(part["pair"], Pair)
        assert part["pair"].targets.tolist() == [1, 3]
        assert torch.equal(part["nested"][0]["x"], X[[1, 3]])
        assert part["nested"][1:] == ["constant", 3]
        assert part["sample"].domain.tolist() == [0, 0]
        assert part["files"] == ["1.png", "3.png"]
        assert part["scale"] == 2.0
        assert part["table"].shape == (4, 4)

    def test_keeps_the_kind_of_mapping(self):
        batch = collections.OrderedDict(x=X, domain=D)
        assert type(split_batch(batch).parts["0"]) is collections.OrderedDict


class TestSplitToRemember:
    @pytest.mark.parametrize(
        ("batch", "split", "found"),
        [
            ({"a": (X, Y), "b": (X, Y)}, None, None),
            ((X, Y, D), None, 2),
            ({"x": X, "domain": D}, None, "domain"),
            ({"x": X, "env": D}, "env", "env"),
            (X, halves := lambda batch: {"a": batch[:3], "b": batch[3:]}, halves),
        ],
    )
    def test_sees_further_batches_alike(self, batch, split, found):
        assert split_batch(batch, split).split is found

    def test_takes_a_last_batch_of_all_different_domains(self):
        last = (torch.ones(9, 2), torch.ones(9), torch.arange(9))
        assert len(split_batch(last, 2).parts) == 9


class TestCallable:
    def test_any_batch(self):
        found = split_batch(X, lambda batch: {"even": batch[::2], "odd": batch[1::2], "none": None})
        assert list(found.parts) == ["even", "odd"]
        assert found.steps is found.parts

    def test_must_return_a_mapping(self):
        with pytest.raises(ValueError, match="`split` must return a mapping .* got list"):
            split_batch(X, lambda batch: [batch])


class TestRefused:
    @pytest.mark.parametrize(
        ("batch", "outline"),
        [
            (X, r"a float32\[6, 2\]"),
            ((X, Y), r"a tuple \(float32\[6, 2\], int64\[6\]\)"),
            ({"x": X, "y": Y}, r"a dict \{'x': float32\[6, 2\], 'y': int64\[6\]\}"),
            ((X, Y, D.float()), "no domains"),
            ((X, Y, D[:3]), "no domains"),
            ({}, "no domains"),
            (None, "a NoneType"),
        ],
    )
    def test_no_domains(self, batch, outline):
        with pytest.raises(ValueError, match=outline) as caught:
            split_batch(batch)
        assert "split=KEY_OR_INDEX" in str(caught.value)

    def test_sample_numbers_are_no_labels(self):
        with pytest.raises(ValueError, match="differs in each of the 9 samples"):
            split_batch((torch.ones(9, 2), torch.ones(9), torch.arange(9)))

    def test_few_samples_of_as_many_domains_are(self):
        assert len(split_batch((X[:3], Y[:3], torch.arange(3))).parts) == 3

    @pytest.mark.parametrize("split", ["env", 7])
    def test_wrong_key(self, split):
        with pytest.raises(ValueError, match="must be a key or an index of the batch"):
            split_batch((X, Y, D), split)

    def test_key_that_leads_elsewhere(self):
        with pytest.raises(ValueError, match="must lead to a vector of domain labels, got str"):
            split_batch({"x": X, "env": "art"}, "env")

    def test_labels_of_another_shape(self):
        with pytest.raises(ValueError, match=r"one label a sample, got shape \(6, 2\)"):
            split_by_label((X, Y), X.long())

    def test_labels_of_another_length(self):
        with pytest.raises(ValueError, match="got 4 labels, but no tensor"):
            split_by_label((X, Y), D[:4])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


NUMBERED = {
    name: {
        "x": torch.arange(start, start + size).float()[:, None],
        "y": [torch.arange(start, start + size), "constant"],
        "file": [f"{row}.png" for row in range(start, start + size)],
    }
    for name, start, size in (("a", 0, 3), ("b", 10, 4), ("c", 20, 5))
}


class TestShuffleDomains:
    def test_deals_the_same_samples_out_anew(self):
        before = split_batch(NUMBERED)
        after = shuffle_domains(before, generator())
        assert list(after.parts) == ["a", "b", "c"]
        assert [len(part["x"]) for part in after.parts.values()] == [3, 4, 5]
        seen = []
        for part in after.parts.values():
            rows = part["x"].flatten().int().tolist()
            assert part["y"][0].tolist() == rows  # all that belongs to a sample goes with it
            assert part["y"][1] == "constant"
            assert part["file"] == [f"{row}.png" for row in rows]
            seen += rows
        assert sorted(seen) == [*range(3), *range(10, 14), *range(20, 25)]
        assert sum(row >= 10 for row in after.parts["a"]["x"].flatten().tolist()) > 0
        assert after.steps["b"]["b"] is after.parts["b"]

    def test_labelled(self):
        batch = (torch.arange(8), torch.arange(8) * 10, torch.tensor([0, 1] * 4))
        after = shuffle_domains(split_batch(batch), generator())
        assert after.steps is after.parts
        rows = torch.cat([part[0] for part in after.parts.values()])
        assert sorted(rows.tolist()) == list(range(8))
        assert all(torch.equal(part[1], 10 * part[0]) for part in after.parts.values())

    def test_depends_on_the_generator_alone(self):
        def rows(seed):
            after = shuffle_domains(split_batch(NUMBERED), generator(seed))
            return [part["x"].flatten().tolist() for part in after.parts.values()]

        assert rows(1) == rows(1) != rows(2)

    def test_domains_of_different_shapes(self):
        batch = {"a": (torch.zeros(2, 3), torch.zeros(2)), "b": (torch.zeros(2, 4), torch.zeros(2))}
        with pytest.raises(ValueError, match="shuffled only where .* samples of the same shape"):
            shuffle_domains(split_batch(batch), generator())


def test_batch_rows():
    assert batch_rows({"scale": torch.tensor(1.0), "x": [X]}) == 6
    assert batch_rows("nothing") == 1
