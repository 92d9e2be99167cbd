import itertools

import pytest

from gga_lightning.report.methods import group_methods, order_domains
from gga_lightning.report.runs import read_runs
from tests.report.folders import Spec, write_run

DECAY = "algorithm.optimizer.weight_decay"


def rows(root, *specs):
    for spec in specs:
        write_run(root, spec)
    return group_methods(read_runs([root]).runs)


def labels(root, *settings, **options):
    specs = [Spec(settings=found, **options) for found in settings]
    return {method.label for method in rows(root, *specs)[0]}


def test_a_label_without_settings(tmp_path):
    methods, _ = rows(tmp_path, Spec(), Spec(annealing="gga"), Spec(algorithm="coral"))
    assert [method.label for method in methods] == ["coral", "erm", "erm + gga"]


def test_the_majority_does_not_show(tmp_path):
    assert labels(
        tmp_path, {DECAY: 0.0, "x.lr": 1}, {DECAY: 0.003, "x.lr": 1}, {DECAY: 0.0, "x.lr": 2}
    ) == {
        "erm",
        "erm (weight_decay=0.003)",
        "erm (lr=2)",
    }


def test_without_a_majority_all_show(tmp_path):
    assert labels(tmp_path, {DECAY: 0.0}, {DECAY: 0.003}) == {
        "erm (weight_decay=0)",
        "erm (weight_decay=0.003)",
    }


def test_runs_of_versions_without_pseudo_domains_are_the_same_method(tmp_path):
    name = "data.pseudo_domains"
    assert labels(tmp_path, {}, {name: None}, {name: 3}) == {"erm", "erm (pseudo_domains=3)"}


def test_half_is_no_majority(tmp_path):
    pairs = [(0.0, 1), (0.0, 2), (0.1, 1), (0.2, 1)]
    found = labels(tmp_path, *({DECAY: decay, "x.y": other} for decay, other in pairs))
    assert all("weight_decay" in label for label in found)


def test_labels_say_no_more_than_tells_methods_apart(tmp_path):
    control = "annealing.control"
    found = labels(
        tmp_path,
        {"annealing.radius": 1, "annealing.schedule": "x", control: None},
        {"annealing.radius": 2, "annealing.schedule": "y", control: None},
        {"annealing.radius": 1, "annealing.schedule": "x", control: "scramble"},
        {"annealing.radius": 2, "annealing.schedule": "y", control: "scramble"},
    )
    assert found == {
        "erm (radius=1)",
        "erm (radius=2)",
        "erm (control=scramble, radius=1)",
        "erm (control=scramble, radius=2)",
    }


def test_the_majority_is_of_methods_and_not_of_runs(tmp_path):
    specs = [Spec(seed=seed, settings={DECAY: 0.0}) for seed in range(5)]
    methods, _ = rows(tmp_path, *specs, Spec(settings={DECAY: 0.1}))
    assert [method.label for method in methods] == [
        "erm (weight_decay=0)",
        "erm (weight_decay=0.1)",
    ]


def test_the_shortest_clear_tail_of_a_name(tmp_path):
    names = "annealing.patience", "callbacks.swad.patience"
    found = labels(tmp_path, *({names[0]: 1, names[1]: value} for value in (3, 4)))
    assert found == {"erm (swad.patience=3)", "erm (swad.patience=4)"}


def test_what_follows_from_the_kind_does_not_show(tmp_path):
    swad = {"callbacks.swad._target_": "gga_lightning.callbacks.SWAD", "callbacks.swad.patience": 3}
    assert labels(tmp_path, {"x.lr": 1}, {"x.lr": 1, **swad}, {"x.lr": 2}) == {
        "erm",
        "erm (lr=2)",
        "erm (swad=SWAD)",
    }


def test_classes_of_the_same_name_keep_their_modules(tmp_path):
    found = labels(tmp_path, {"x._target_": "a.Adam"}, {"x._target_": "b.Adam"})
    assert found == {"erm (x=a.Adam)", "erm (x=b.Adam)"}


def test_backbones(tmp_path):
    methods, _ = rows(
        tmp_path,
        Spec(settings={"backbone._target_": "p.MLP", "backbone.widths": [32]}),
        Spec(settings={"backbone._target_": "p.MLP", "backbone.widths": [64]}),
        Spec(
            backbone="resnet18", settings={"backbone._target_": "p.R", "backbone.name": "resnet18"}
        ),
    )
    assert {method.label for method in methods} == {
        "erm (widths=[32])",
        "erm (widths=[64])",
        "erm (backbone=resnet18, widths=unset)",
    }


@pytest.mark.parametrize("name", ["data.dataset.cache", "annealing.seed"])
def test_what_has_no_effect_makes_no_row(tmp_path, name):
    specs = [Spec(seed=seed, settings={name: f"/{seed}"}) for seed in (0, 1)]
    methods, _ = rows(tmp_path, *specs)
    assert [len(method.runs) for method in methods] == [2]


def test_batches_of_other_seeds_are_other_rows(tmp_path):
    specs = [Spec(settings=settings) for settings in ({}, {"data.seed": 1}, {"data.seed": 2})]
    methods, findings = rows(tmp_path, *specs)
    assert [len(method.runs) for method in methods] == [1, 1, 1]
    assert findings == []


def test_runs_that_differ_in_nothing_that_matters(tmp_path):
    specs = [Spec(settings={"data.dataset.cache": place}) for place in ("/here", "/there")]
    [method], [finding] = rows(tmp_path, *specs)
    assert (len(method.runs), finding.kind) == (1, "duplicate")


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_unique(tmp_path, seed):
    choices = [("a.x", [0, 1, True]), ("b.x", ["u", None]), ("c.y", [0.5, [1, 2]])]
    names = [name for name, _ in choices]
    every = [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(options for _, options in choices))
    ]
    chosen = [found for k, found in enumerate(every) if (k * (seed + 3)) % 5 != seed]
    assert len(labels(tmp_path, *chosen)) == len(chosen)


def test_one_and_one_point_zero_are_the_same(tmp_path):
    methods, _ = rows(tmp_path, Spec(settings={"a.b": 1}), Spec(seed=1, settings={"a.b": 1.0}))
    assert len(methods) == 1


def test_draws_of_hyperparameters_make_one_row(tmp_path):
    name = "algorithm.optimizer.lr"
    specs = [Spec(hparams_seed=k, hyperparameters={name: k / 10}) for k in (2, 0, 1)]
    [method], _ = rows(tmp_path, *specs)
    assert [run.hparams_seed for run in method.runs] == [0, 1, 2]
    methods, _ = rows(tmp_path, Spec(settings={name: 0.1}))
    assert [method.label for method in methods] == ["erm (lr=0.1)", "erm (lr=drawn)"]


def order(root, domains, held_out):
    for name in held_out:
        write_run(root, Spec((name,), domains=tuple(domains)))
    return order_domains(read_runs([root]).runs)


def test_the_domains_order(tmp_path):
    assert order(tmp_path, ["d", "b", "a", "c"], "bac") == ["d", "b", "a", "c"]


def test_what_the_runs_leave_open_goes_by_number(tmp_path):
    domains = ["0", "15", "60", "105"]
    assert order(tmp_path, domains, ["60", "105"]) == domains


def test_contradicting_orders_are_sorted(tmp_path):
    write_run(tmp_path, Spec(("a",), domains=("a", "c", "b")))
    write_run(tmp_path, Spec(("d",), domains=("b", "d", "c")))
    assert order_domains(read_runs([tmp_path]).runs) == ["a", "b", "c", "d"]
