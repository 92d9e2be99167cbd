import json
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from gga_lightning.data.cli import DATASETS
from gga_lightning.experiments import train
from tests.data.loopback import image_tree
from tests.helpers import mostly_slow

FOLDER = Path(train.config_directory()) / "experiment"
EXPERIMENTS = sorted(
    path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")
)
FACTS = {kind.facts.key: kind.facts for kind in DATASETS}

# learning rate, weight decay, steps, steps between validations, radius
PUBLISHED = {
    "pacs": (3e-5, 1e-4, 5000, 100, 1e-5),
    "vlcs": (1e-5, 1e-4, 5000, 100, 1e-6),
    "office_home": (3e-5, 1e-4, 5000, 100, 1e-5),
    "office_home_command": (1e-5, 1e-4, 5000, 100, 1e-5),
    "terra_incognita": (3e-5, 1e-4, 5000, 100, 1e-5),
    "terra_incognita_command": (1e-5, 1e-4, 5000, 100, 1e-5),
    "domain_net": (3e-5, 1e-4, 15_000, 1000, 1e-5),
    "domain_net_command": (3e-5, 1e-6, 15_000, 1000, 1e-5),
}
ROWS = [(table, annealing) for table in PUBLISHED for annealing in ("none", "gga", "gga_l")]

# of the paper's second table
ALGORITHMS = ["and_mask", "arm", "coral", "fish", "group_dro", "gsam", "irm", "mixstyle", "mixup"]
ALGORITHMS += ["mldg", "mmd", "mtl", "rsc", "sagm", "sagnet", "sam", "vrex"]


def name(table, annealing):
    return f"paper/{table}" + ("" if annealing == "none" else f"_{annealing}")


def composed(*overrides):
    with initialize_config_dir(train.config_directory(), version_base="1.3"):
        return compose("train", list(overrides), return_hydra_config=True)


def test_each_row_is_there():
    assert {name(*row) for row in ROWS} <= set(EXPERIMENTS)


@pytest.mark.parametrize("experiment", sorted(set(EXPERIMENTS) - {name(*row) for row in ROWS}))
def test_what_is_no_row_composes(experiment):
    assert composed(f"experiment={experiment}").hydra.runtime.choices.experiment == experiment


@pytest.mark.parametrize(
    ("table", "annealing"),
    mostly_slow(ROWS, *(row for row in ROWS if row[0] == "pacs" or row[1] == "gga")),
)
def test_published_numbers(table, annealing):
    config = composed(f"experiment={name(table, annealing)}", "data.root=DIR")
    choices = config.hydra.runtime.choices
    assert choices.data == table.removesuffix("_command")
    assert (choices.algorithm, choices.annealing) == ("erm", annealing)
    assert (choices.backbone, choices.trainer) == ("resnet50", "gpu")
    lr, weight_decay, steps, interval, radius = PUBLISHED[table]
    assert config.algorithm.optimizer == {
        "_target_": "torch.optim.Adam",
        "_partial_": True,
        "lr": lr,
        "weight_decay": weight_decay,
    }
    assert config.backbone == {
        "_target_": "gga_lightning.backbones.TorchvisionFeaturizer",
        "name": "resnet50",
        "weights": "IMAGENET1K_V1",
        "freeze_batchnorm": True,
        "dropout": 0.5,
        "lr_factor": 1.0,
    }
    assert (config.trainer.max_steps, config.data.steps_per_epoch) == (steps, interval)
    assert (config.data.batch_size, config.data.eval_batch_size) == (32, 128)
    assert (config.data.dataset.image_size, config.data.augment_validation) == (224, False)
    if annealing == "gga":
        search = config.annealing
        assert (search.start_step, search.end_step) == (100, 201)
        assert (search.num_candidates, search.objective) == (250, "min")
        assert (search.radius_schedule, search.patience) == ("constant", None)
        assert search.fixed_dropout is False
        assert search.proposal == {
            "_target_": "gga_lightning.alignment.proposals.Walk",
            "radius": radius,
            "relative": False,
        }
        assert search.acceptance == {
            "_target_": "gga_lightning.alignment.search.Greedy",
            "loss_tolerance": 0.1,
            "reference": "best",
        }
    if annealing == "gga_l":
        noise = config.annealing
        assert (noise.gamma, noise.distribution, noise.modulation) == (0.001, "normal", "conflict")
        assert (noise.start_step, noise.end_step) == (0, None)


@pytest.mark.parametrize(  # all inherit the optimizer of erm.yaml
    "algorithm", mostly_slow(ALGORITHMS, "arm", "mmd", "sagnet")
)
def test_another_algorithm_leaves_the_published_numbers(algorithm):
    config = composed("experiment=paper/vlcs_gga", f"algorithm={algorithm}")
    assert config.hydra.runtime.choices.algorithm == algorithm
    assert config.algorithm._target_ != "gga_lightning.algorithms.ERM"
    assert (config.algorithm.optimizer.lr, config.algorithm.optimizer.weight_decay) == (1e-5, 1e-4)
    assert (config.backbone.dropout, config.annealing.proposal.radius) == (0.5, 1e-6)


@pytest.mark.filterwarnings("ignore:.* is not the .* of the papers")
@pytest.mark.parametrize(("table", "annealing"), mostly_slow(ROWS))
def test_two_steps(table, annealing, tmp_path, monkeypatch):
    """On three classes of small images in the data set's folders, ResNet-50 starting at random."""
    facts = FACTS[table.removesuffix("_command")]
    for path, content in image_tree(f"{facts.folder}/", facts.domains, "abc").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    small = ["trainer=cpu", "trainer.max_steps=2", "data.steps_per_epoch=2", "data.batch_size=2"]
    small += ["data.dataset.image_size=32", "data.num_workers=0", "backbone.weights=null"]
    small += [
        "callbacks=none",
        "+trainer.limit_val_batches=1",
        "data.eval_batch_size=2",
        "+trainer.enable_checkpointing=false",
    ]
    if annealing == "gga":
        small += ["annealing.start_step=1", "annealing.end_step=2", "annealing.num_candidates=1"]
    chosen = [f"experiment={name(table, annealing)}", f"data.root={tmp_path}"]
    argv = ["gga-train", *chosen, *small, f"hydra.run.dir={tmp_path / 'run'}"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    train.main()
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["data"], result["annealing"], result["steps"]) == (facts.key, annealing, 2)
    assert [*result["source_domains"], result["test_domain"]] == list(facts.domains)
    searched = result["search"] and (result["search"]["steps"], result["search"]["candidates"])
    assert searched == ((1, 1) if annealing == "gga" else None)


def test_erm_plus_plus():
    config = composed("experiment=erm_plus_plus", "data=pacs", "data.root=DIR")
    assert (config.hydra.runtime.choices.algorithm, config.annealing) == ("erm", {})
    assert (config.backbone.name, config.backbone.weights) == ("resnet50.ram_in1k", "pretrained")
    assert (config.backbone.freeze_batchnorm, config.backbone.dropout) == (False, 0.0)
    assert config.callbacks.linear_probe.end_step == 501
    assert config.callbacks.sma.start_step == 598
    assert (config.trainer.max_steps, config.algorithm.optimizer.lr) == (5000, 5e-5)


def test_erm_plus_plus_trains_the_head_and_then_averages(tmp_path, monkeypatch):
    settings = ["data=toy", "backbone=mlp", "trainer=cpu", "trainer.max_steps=4"]
    settings += ["data.steps_per_epoch=2", "~backbone.weights", "~backbone.freeze_batchnorm"]
    settings += ["callbacks.linear_probe.end_step=3", "callbacks.sma.start_step=1"]
    argv = ["gga-train", "experiment=erm_plus_plus", *settings, f"hydra.run.dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    train.main()
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert saved["averaging_state"]["n_averaged"] == 3
    for name, average in saved["state_dict"].items():
        assert not torch.equal(average, saved["current_model_state"][name])
