import itertools

import pytest

from gga_lightning.report.bases import arrange, find_baseline
from tests.report.folders import Spec
from tests.report.test_methods import DECAY, rows

CONTROL = "annealing.control"


def bases(root, *specs, baseline=None):
    """Row to base, in the order of the rows."""
    return {m.label: m.base for m in arrange(rows(root, *specs)[0], baseline)}


def test_kinds(tmp_path):
    methods, _ = rows(
        tmp_path,
        Spec(settings={DECAY: 0, "x.y": 0}),
        Spec(settings={DECAY: 0.1, "x.y": 0}),
        Spec(settings={DECAY: 0.2, "x.y": 0, "data.shuffle_domains": True}),
        Spec(settings={DECAY: 0, "x.y": 1}),
        Spec(settings={DECAY: 0, "x.y": 2}),
        Spec(annealing="gga"),
        Spec(annealing="gga_l"),
        Spec(annealing="gga_l_constant", settings={"annealing.modulation": "constant"}),
        Spec(annealing="gga_shuffled", settings={"annealing.control": "shuffle_domains"}),
        Spec(annealing="gga_guided", settings={"annealing.control": None}),
        Spec(algorithm="coral"),
    )
    assert [(method.label, method.kind) for method in arrange(methods)] == [
        ("erm", "baseline"),
        ("erm (weight_decay=0.2, shuffle_domains=true)", "control"),
        ("erm (weight_decay=0.1)", "plain"),
        ("erm (y=1)", "plain"),
        ("erm (y=2)", "plain"),
        ("erm + gga", "method"),
        ("erm + gga_shuffled", "control"),
        ("erm + gga_guided", "method"),
        ("erm + gga_l", "method"),
        ("erm + gga_l_constant", "control"),
        ("coral", "method"),
    ]


def test_the_baseline(tmp_path):
    specs = [Spec(settings={DECAY: decay}) for decay in (0.0, 0.1)]
    methods, _ = rows(tmp_path, *specs, Spec(algorithm="coral"))
    assert find_baseline(methods, "erm/none") is None
    assert find_baseline(methods, "erm/gga") is None
    assert find_baseline(methods, "coral/none").label == "coral"
    assert find_baseline(methods, "erm (weight_decay=0.1)").label == "erm (weight_decay=0.1)"


def test_the_baseline_is_no_control(tmp_path):
    shuffled = [Spec(settings={"data.shuffle_domains": shuffled}) for shuffled in (False, True)]
    methods, _ = rows(tmp_path, *shuffled)
    assert find_baseline(methods, "erm/none").label == "erm"


def test_an_annealing_is_compared_with_its_algorithm_alone(tmp_path):
    specs = [Spec(algorithm=a, annealing=b) for a in ("erm", "coral") for b in ("none", "gga")]
    found = bases(tmp_path, *specs, Spec(algorithm="sam", annealing="gga"), Spec(algorithm="irm"))
    assert list(found.items()) == [
        ("erm", None),
        ("erm + gga", "erm"),
        ("coral", "erm"),
        ("coral + gga", "coral"),
        ("irm", "erm"),
        ("sam + gga", None),
    ]


def test_the_base_has_the_same_other_settings(tmp_path):
    specs = [
        Spec(algorithm=a, annealing=b, settings={"x.y": value}, backbone=backbone)
        for a, b in (("erm", "none"), ("coral", "none"), ("coral", "gga"))
        for value in (1, 2)
        for backbone in ("mlp", "cnn")
    ]
    found = bases(tmp_path, *specs)
    for label, base in found.items():
        if label.startswith("coral"):
            inside = label.partition("(")[2]
            name = "coral" if "+ gga" in label else "erm"
            assert base.startswith(name + " (")
            assert base.partition("(")[2] == inside
    order = list(found)
    for label in (label for label in order if "+ gga" in label):
        assert order[order.index(label) - 1] == found[label]


def test_without_erm_the_algorithm_is_the_baseline(tmp_path):
    specs = [Spec(algorithm="coral", annealing=name) for name in ("none", "gga", "gga_l")]
    methods = arrange(rows(tmp_path, *specs)[0])
    assert [(m.label, m.kind, m.base) for m in methods] == [
        ("coral", "baseline", None),
        ("coral + gga", "method", "coral"),
        ("coral + gga_l", "method", "coral"),
    ]


def test_controls_stand_next_to_their_method(tmp_path):
    specs = [
        Spec(annealing="guided", settings={"annealing.radius": radius, CONTROL: control})
        for radius in (1, 2, 3)
        for control in (None, "scramble", "shuffle_domains")
    ]
    order = list(bases(tmp_path, Spec(), *specs))
    for radius in (1, 2, 3):
        place = order.index(f"erm + guided (radius={radius})")
        told = [label.partition("(")[2] for label in order[place + 1 : place + 3]]
        assert told == [
            f"control=scramble, radius={radius})",
            f"control=shuffle_domains, radius={radius})",
        ]


@pytest.mark.parametrize("baseline", ["erm/gga", "coral", "erm + gga_scrambled", "coral/gga"])
def test_a_baseline_is_for_all_rows_and_first(tmp_path, baseline):
    specs = [Spec(algorithm=a, annealing=b) for a in ("erm", "coral") for b in ("none", "gga")]
    control = Spec(annealing="gga_scrambled", settings={CONTROL: "scramble"})
    methods, _ = rows(tmp_path, *specs, control)
    first, *others = arrange(methods, baseline)
    assert find_baseline(methods, baseline).label == first.label
    assert (first.kind, first.base, len(others)) == ("baseline", None, 4)
    assert {method.base for method in others} == {first.label}


@pytest.mark.parametrize("picked", list(itertools.combinations(range(6), 3)))
def test_no_row_is_lost_or_comes_before_its_base(tmp_path, picked):
    every = [
        Spec(),
        Spec(settings={DECAY: 1}),
        Spec(annealing="gga", settings={CONTROL: "scramble"}),
        Spec(algorithm="coral", annealing="gga"),
        Spec(algorithm="coral", settings={"data.shuffle_domains": True}),
        Spec(algorithm="coral"),
    ]
    methods, _ = rows(tmp_path, *(every[index] for index in picked))
    found = [method.label for method in arrange(methods)]
    assert sorted(found) == sorted(method.label for method in methods)
    for method in arrange(methods):
        assert method.base is None or found.index(method.base) < found.index(method.label)
