import collections
import dataclasses
import itertools

import numpy as np
import pytest
import torch

from gga_lightning.probing import Domain, Splitter, shuffle_domains

X, Y, D = torch.arange(12.0).view(6, 2), torch.arange(6), torch.tensor([2, 0, 2, 0, 1, 2])
LETTERS = ["c", "a", "c", "a", "b", "c"]
Pair = collections.namedtuple("Pair", ["inputs", "targets"])


@dataclasses.dataclass
class Sample:
    inputs: torch.Tensor
    domain: torch.Tensor


def split(batch, how=None):
    return Splitter(how)(batch)


def names(domains):
    return [domain.name for domain in domains]


def sizes(domains):
    return [domain.size for domain in domains]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class TestNative:
    def test_mapping_of_domains(self):
        batch = {"photo": (X, Y), "art": [X[:2], Y[:2]]}
        photo, art = split(batch)
        assert (photo.name, photo.size, photo.batch) == ("photo", 6, batch["photo"])
        assert (art.name, art.size, art.step) == ("art", 2, {"art": batch["art"]})

    def test_domain_without_samples_is_left_out(self):
        assert names(split({"a": (X, Y), "b": (X[:0], Y[:0]), "c": (X, Y)})) == ["a", "c"]

    def test_an_exhausted_loaders_none_is_left_out(self):
        assert names(split({"a": (X, Y), "b": None, "c": (X, Y)})) == ["a", "c"]

    def test_mapping_of_mappings(self):
        assert names(split({n: {"x": X, "y": Y} for n in "ab"})) == ["a", "b"]

    def test_keys_that_are_no_text(self):
        (first, _) = split({0: (X, Y), 1: (X, Y)})
        assert first.name == "0"
        assert list(first.step) == [0]

    @pytest.mark.parametrize(
        "part",
        [
            (torch.tensor(0.5), X, Y),  # a temperature first
            (torch.ones(3), X, Y),  # class weights
            {"weights": torch.ones(3), "x": X, "y": Y},
            ([X, X], Y),  # two views
            ([torch.zeros(3, 4, n) for n in range(6)], [{} for _ in range(6)]),
            ([torch.zeros(3, 4, 4) for _ in range(6)], list("abcdef")),
            [torch.zeros(3, 4, n) for n in range(6)],
            [{"boxes": torch.zeros(n, 4)} for n in range(6)],
            {"inputs": {"ids": X, "mask": X}, "labels": Y},
            (X.numpy(), Y.numpy()),
            {"text": list("abcdef")},
        ],
    )
    def test_samples_are_counted_by_what_most_entries_have(self, part):
        assert sizes(split({"a": part, "b": part})) == [6, 6]


class TestLabels:
    def test_triple(self):
        found = split((X, Y, D))
        assert names(found) == ["0", "1", "2"]
        x, y, d = found[2].batch
        assert y.tolist() == [0, 2, 5]
        assert torch.equal(x, X[[0, 2, 5]])
        assert d.tolist() == [2, 2, 2]
        assert found[2].step is found[2].batch

    def test_parts_join_to_the_batch(self):
        rows = torch.cat([domain.batch[1] for domain in split((X, Y, D))])
        assert sorted(rows.tolist()) == Y.tolist()

    @pytest.mark.parametrize(
        "labels",
        [
            LETTERS,
            tuple(LETTERS),  # what the default DataLoader makes of strings
            np.array(LETTERS),
            [torch.tensor("abc".index(letter)) for letter in LETTERS],
            tuple(np.int64("abc".index(letter)) for letter in LETTERS),
            torch.tensor(["abc".index(letter) for letter in LETTERS]),
        ],
    )
    @pytest.mark.parametrize("where", ["triple", "mapping"])
    def test_kinds(self, labels, where):
        batch = (X, Y, labels) if where == "triple" else {"x": X, "y": Y, "domain": labels}
        found = split(batch)
        assert sizes(found) == [2, 1, 3]
        assert names(found) in (["a", "b", "c"], ["0", "1", "2"])
        assert [len(domain.step[2 if where == "triple" else "domain"]) for domain in found] == [
            2,
            1,
            3,
        ]

    def test_integers_and_strings(self):
        assert names(split((X, Y, [1, "a", 1, "a", 1, "a"]))) == ["1", "a"]

    @pytest.mark.parametrize("label", ["photo", 3, torch.tensor(3)])
    def test_one_for_the_whole_batch(self, label):
        (found,) = split({"x": X, "env": label}, "env")
        assert found.size == 6

    @pytest.mark.parametrize("key", ["domain", "domains"])
    def test_mapping_with_the_usual_key(self, key):
        found = split({"image": X, "label": Y, key: D})
        assert found[0].batch["label"].tolist() == [1, 3]

    @pytest.mark.parametrize(
        ("batch", "how"), [((D, X), 0), ((X, Y, Y, D), -1), ({"env": D, "x": X}, "env")]
    )
    def test_where_the_user_says(self, batch, how):
        assert names(split(batch, how)) == ["0", "1", "2"]


class TestCutting:
    def test_any_structure(self):
        images = [torch.full((3, 2, n), float(n)) for n in range(6)]
        targets = [{"boxes": torch.full((n, 4), float(n))} for n in range(6)]
        batch = {
            "pair": Pair(X, Y),
            "nested": [{"x": X}, "constant", 3],
            "sample": Sample(X, D),
            "files": [f"{i}.png" for i in range(6)],
            "tuple": tuple("abcdef"),
            "images": images,
            "targets": targets,
            "array": Y.numpy(),
            "views": [X, X + 1],
            "scale": torch.tensor(2.0),
            "table": torch.ones(4, 4),
            "domain": D,
        }
        part = split(batch)[0].batch
        assert isinstance(part["pair"], Pair)
        assert part["pair"].targets.tolist() == [1, 3]
        assert torch.equal(part["nested"][0]["x"], X[[1, 3]])
        assert part["nested"][1:] == ["constant", 3]
        assert part["sample"].domain.tolist() == [0, 0]
        assert part["files"] == ["1.png", "3.png"]
        assert part["tuple"] == ("b", "d")
        assert [image.shape[2] for image in part["images"]] == [1, 3]
        assert [len(target["boxes"]) for target in part["targets"]] == [1, 3]
        assert part["array"].tolist() == [1, 3]
        assert [len(view) for view in part["views"]] == [2, 2]
        assert part["scale"] == 2.0
        assert part["table"].shape == (4, 4)

    def test_keeps_the_kind_of_mapping(self):
        batch = collections.OrderedDict(x=X, domain=D)
        assert type(split(batch)[0].batch) is collections.OrderedDict

    def test_an_entry_of_fixed_length_is_not_cut_in_a_batch_of_that_size(self):
        splitter, weights = Splitter(), torch.ones(3)
        for rows in (slice(None), slice(0, 3)):  # the last batch of an epoch is smaller
            found = splitter({"x": X[rows], "weights": weights, "domain": D[rows]})
            assert all(len(domain.batch["weights"]) == 3 for domain in found)

    def test_refuses_an_entry_that_only_seemed_to_have_one_row_a_sample(self):
        splitter, weights = Splitter(), torch.ones(6)
        splitter({"x": X, "weights": weights, "domain": D})
        with pytest.raises(ValueError, match=r"whether `batch\['weights'\]` has one row a sample"):
            splitter({"x": X[:4], "weights": weights, "domain": D[:4]})

    def test_refuses_views_of_as_many_samples(self):
        batch = {"views": [X[:2], X[:2]], "domain": [0, 1]}
        with pytest.raises(ValueError, match=r"whether `batch\['views'\]` is a list of 2 samples"):
            split(batch)

    def test_labels_of_another_length(self):
        with pytest.raises(ValueError, match="got 4 labels, but no entry of the batch has that"):
            split({"x": X, "domain": D[:4]})


class TestFurtherBatches:
    def test_are_seen_alike(self):
        splitter = Splitter()
        splitter((X, Y, D))
        # alone, it would be taken for sample numbers
        last = (torch.ones(9, 2), torch.ones(9), torch.arange(9))
        assert len(splitter(last)) == 9

    @pytest.mark.parametrize(
        ("batch", "source"),
        [
            ((X, Y, D), "the labels batch[2]"),
            ({"x": X, "domain": D}, "the labels batch['domain']"),
            ({"a": (X, Y)}, "the batch's keys"),
        ],
    )
    def test_source(self, batch, source):
        splitter = Splitter()
        splitter(batch)
        assert splitter.source == source


class TestCallable:
    def test_any_batch(self):
        found = split(X, lambda batch: {"even": batch[::2], "odd": batch[1::2], "none": None})
        assert names(found) == ["even", "odd"]
        assert found[0].step is found[0].batch

    def test_may_count_the_samples_itself(self):
        domains = [Domain("a", object(), 3, None), Domain("b", object(), 0, None)]
        assert split(X, lambda batch: domains) == domains[:1]

    def test_must_return_a_mapping(self):
        with pytest.raises(ValueError, match="`split` must return a mapping .* got list"):
            split(X, lambda batch: [batch])


class TestRefused:
    @pytest.mark.parametrize(
        ("batch", "outline"),
        [
            (X, r"a float32\[6, 2\]"),
            ((X, Y), r"a tuple \(float32\[6, 2\], int64\[6\]\)"),
            ({"x": X, "y": Y}, r"a dict \{'x': float32\[6, 2\], 'y': int64\[6\]\}"),
            ((X, Y, D.float()), "no domains"),
            ((X, Y, D > 0), "no domains"),
            ((X, Y, D[:3]), "no domains"),
            ({}, "no domains"),
            ({"a": None}, "no domains"),
            (None, "a NoneType"),
        ],
    )
    def test_no_domains(self, batch, outline):
        with pytest.raises(ValueError, match=outline) as caught:
            split(batch)
        assert "split=KEY_OR_INDEX" in str(caught.value)

    @pytest.mark.parametrize(
        "lengths", [range(9), [5, 7, 3, 9, 2, 1], [5, 7, 7, 3, 9, 5, 2, 1], [1, 2, 3, 4]]
    )
    def test_sample_numbers_and_lengths_are_no_labels(self, lengths):
        batch = (torch.ones(len(lengths), 2), torch.ones(len(lengths)), torch.tensor(lengths))
        with pytest.raises(ValueError, match="so it is not taken for the domain label"):
            split(batch)
        assert len(split(batch, 2)) == len(set(lengths))  # unless the user says so

    @pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 1, 2], [0, 0, 1, 1, 1, 2, 3, 4]])
    def test_few_samples_of_a_domain_are_enough(self, labels):
        size = len(labels)
        found = split((torch.ones(size, 2), torch.ones(size), torch.tensor(labels)))
        assert len(found) == len(set(labels))

    @pytest.mark.parametrize("how", ["env", 7])
    def test_wrong_key(self, how):
        with pytest.raises(ValueError, match="must be a key or an index of the batch"):
            split((X, Y, D), how)

    @pytest.mark.parametrize("labels", [X, X.long(), D.float(), {"a": 1}])
    def test_key_that_leads_elsewhere(self, labels):
        with pytest.raises(ValueError, match="must lead to domain labels, integers or strings"):
            split({"x": X, "env": labels}, "env")


NUMBERED = {
    name: {
        "x": torch.arange(start, start + size).float()[:, None],
        "y": [torch.arange(start, start + size), "constant"],
        "file": [f"{row}.png" for row in range(start, start + size)],
        "images": [torch.full((3, 1, 1 + row), float(row)) for row in range(start, start + size)],
        "boxes": [{"boxes": torch.full((2, 4), float(row))} for row in range(start, start + size)],
        "array": np.arange(start, start + size),
        "weights": torch.ones(3),
    }
    for name, start, size in (("a", 0, 3), ("b", 10, 4), ("c", 20, 5))
}


def check_rows(part):
    """All that belongs to a sample goes with it. Returns the samples' numbers."""
    rows = part["x"].flatten().int().tolist()
    assert part["y"][0].tolist() == rows
    assert part["y"][1] == "constant"
    assert part["file"] == [f"{row}.png" for row in rows]
    assert [int(image[0, 0, 0]) for image in part["images"]] == rows
    assert [int(target["boxes"][0, 0]) for target in part["boxes"]] == rows
    assert part["array"].tolist() == rows
    assert part["weights"].tolist() == [1.0] * 3
    return rows


class TestShuffleDomains:
    def test_deals_the_same_samples_out_anew(self):
        after = shuffle_domains(split(NUMBERED), generator())
        assert names(after) == ["a", "b", "c"]
        assert [len(domain.batch["x"]) for domain in after] == sizes(after) == [3, 4, 5]
        seen = [row for domain in after for row in check_rows(domain.batch)]
        assert sorted(seen) == [*range(3), *range(10, 14), *range(20, 25)]
        assert any(row >= 10 for row in seen[:3])
        assert after[1].step["b"] is after[1].batch

    @pytest.mark.parametrize("size", [2, 3])
    def test_domains_of_as_many_samples_as_fields(self, size):
        batch = {n: (torch.arange(size) + 10 * i, torch.zeros(size, 3)) for i, n in enumerate("ab")}
        after = shuffle_domains(split(batch), generator(1))
        assert [len(domain.batch) for domain in after] == [2, 2]
        rows = torch.cat([domain.batch[0] for domain in after]).tolist()
        assert sorted(rows) == [*range(size), *range(10, 10 + size)]

    @pytest.mark.parametrize("size", [2, 3, 4])
    def test_lists_of_images(self, size):
        moved = 0

        def part(first):
            images = [torch.full((3, 2, 2), float(first + row)) for row in range(size)]
            return images, [f"{first + row}" for row in range(size)]

        for how, seed in itertools.product((None, lambda batch: batch), range(4)):
            domains = Splitter(how)({"a": part(0), "b": part(10)})
            after = shuffle_domains(domains, generator(seed))
            seen = [(int(i[0, 0, 0]), int(n)) for d in after for i, n in zip(*d.batch, strict=True)]
            assert sorted(seen) == [(n, n) for n in (*range(size), *range(10, 10 + size))]
            moved += any(number >= 10 for number, _ in seen[:size])
        assert moved > 0

    def test_labelled(self):
        batch = (torch.arange(8), torch.arange(8) * 10, torch.tensor([0, 1] * 4))
        after = Splitter()(batch, generator())
        assert after[0].step is after[0].batch
        assert sizes(after) == [4, 4]
        rows = torch.cat([domain.batch[0] for domain in after])
        assert sorted(rows.tolist()) == list(range(8))
        assert all(torch.equal(domain.batch[1], 10 * domain.batch[0]) for domain in after)
        assert len(set(after[0].batch[2].tolist())) == 2

    def test_depends_on_the_generator_alone(self):
        def rows(seed):
            after = shuffle_domains(split(NUMBERED), generator(seed))
            return [domain.batch["x"].flatten().tolist() for domain in after]

        assert rows(1) == rows(1) != rows(2)

    @pytest.mark.parametrize(
        "parts",
        [
            ((torch.zeros(2, 3), torch.zeros(2)), (torch.zeros(2, 4), torch.zeros(2))),
            ((torch.zeros(2, 3),), [torch.zeros(2, 3)]),
            ({"size": 3}, {"size": 4}),
        ],
    )
    def test_domains_that_cannot_be_joined(self, parts):
        domains = split(dict(zip("ab", parts, strict=True)))
        with pytest.raises(ValueError, match="shuffled only where .* samples of the same shape"):
            shuffle_domains(domains, generator())
