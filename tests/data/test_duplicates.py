import pytest

from gga_lightning.data.duplicates import find_duplicates
from gga_lightning.data.splits import split_indices

LISTED = {
    "a": [(f"a{index}", "cat" if index < 5 else "dog") for index in range(10)],
    "b": [(f"b{index}", "cat") for index in range(10)],
}


def digests(**same):
    """A digest for each image, the same for those with the same value."""
    names = [path for pairs in LISTED.values() for path, _ in pairs]
    return [str(same.get(name, name)).encode() for name in names]


def found(kinds):
    return {kind: groups for kind, groups in kinds.items() if groups}


def test_none():
    assert found(find_duplicates(LISTED, digests())) == {}
    assert found(find_duplicates(LISTED, [None] * 20)) == {}
    assert found(find_duplicates({}, [])) == {}


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a0", "b3"], "domains"),
        (["a0", "a1", "b3"], "domains"),
        (["a0", "a9", "b3"], "domains"),
        (["a0", "a9"], "classes"),
        (["a0", "a1", "a6"], "classes"),
    ],
)
def test_across(names, kind):
    same = digests(**dict.fromkeys(names, "same"))
    assert found(find_duplicates(LISTED, same)) == {kind: [names]}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_parts_are_those_of_the_split(seed):
    large, small = split_indices(10, 0.2, seed, 1)
    pairs = {"parts": [large[0], small[0]], "part": sorted(large[:2])}
    for kind, rows in pairs.items():
        names = [f"b{row}" for row in sorted(rows)]
        same = digests(**dict.fromkeys(names, "same"))
        assert found(find_duplicates(LISTED, same, split_seed=seed)) == {kind: [names]}
    same = digests(**dict.fromkeys([f"b{row}" for row in small], "same"))
    assert [*found(find_duplicates(LISTED, same, split_seed=seed))] == ["part"]


def test_images_that_do_not_count_are_not_split():
    large, small = split_indices(10, 0.2, 0, 1)
    pair = sorted([large[0], small[0]])
    same = digests(**{f"b{row}": "same" for row in pair})
    assert [*found(find_duplicates(LISTED, same))] == ["parts"]
    for row in range(10):
        if row not in pair:
            same[10 + row] = None
    # two are left, and a fifth of two is none
    assert [*found(find_duplicates(LISTED, same))] == ["part"]
