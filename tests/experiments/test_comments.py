"""Every value that a comment in conf/ names is one that runs."""

import io
import re
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from gga_lightning.experiments import train
from tests.data.loopback import image_tree, make_zip
from tests.helpers import mostly_slow, on_digits

CONFIGURATION = Path(train.config_directory())
SMALL = ("trainer.max_steps=4", "data.steps_per_epoch=2", "callbacks=none", "logger=none")
TOY = ("data=toy", "annealing=none")
CNN = ("data=digits", "annealing=none", "backbone=mnist_cnn")
SEARCH = (
    "data=toy",
    "annealing.start_step=1",
    "annealing.end_step=3",
    "annealing.num_candidates=3",
)
PICTURES = (
    *("data=folders", "data.root=pictures", "data.dataset.image_size=32", "data.num_workers=0"),
    *("backbone=resnet18", "annealing=none", "data.batch_size=2"),
)

ROWS = (
    *("data=features", "data.dataset.file=rows.csv", "data.batch_size=4", "annealing=none"),
    *("data.dataset.label=kind", "data.dataset.domain=place", "data.holdout_fraction=0.5"),
)
TEXTS = (
    *("data=texts", "data.dataset.file=rows.csv", "data.batch_size=4", "annealing=none"),
    *("data.dataset.text=note", "data.dataset.label=kind", "data.dataset.domain=place"),
)

# option and setting: the overrides that its comment gives rise to
RUN = {
    "annealing/voting vote": [("data=toy", "annealing=voting", "annealing.vote=snr")],
    "annealing/voting control": [
        ("data=toy", "annealing=voting", "annealing.control=shuffle_domains")
    ],
    "annealing/gga_l modulation": [
        ("data=toy", "annealing=gga_l", f"annealing.modulation={value}")
        for value in ("constant", "agreement")
    ],
    "annealing/gga_l control": [
        ("data=toy", "annealing=gga_l", "annealing.control=shuffle_domains")
    ],
    "annealing/gga control": [
        ("annealing=gga", *SEARCH, f"annealing.control={value}")
        for value in ("scramble", "shuffle_domains")
    ],
    "annealing/gga precision": [
        ("annealing=gga", *SEARCH, "annealing.precision=trainer", "trainer.precision=bf16-mixed")
    ],
    "algorithm/sagnet adversary": [(*CNN, "algorithm=sagnet", "algorithm.adversary=normalization")],
    "algorithm/jacobian_descent aggregator": [
        (
            "data=digits",
            "annealing=none",
            "algorithm=jacobian_descent",
            f"algorithm.aggregator={value}",
        )
        for value in (
            *("PCGrad", "MGDA", "AlignedMTL"),
            "{_target_: torchjd.aggregation.TrimmedMean, trim_number: 1}",
        )
    ],
    "algorithm/mldg num_meta_test": [
        (*TOY, "algorithm=mldg", "algorithm.num_meta_test=2", "algorithm.split=pairs")
    ],
    "algorithm/mldg split": [(*TOY, "algorithm=mldg", "algorithm.split=pairs")],
    "algorithm/mldg inner": [(*TOY, "algorithm=mldg", "algorithm.inner=adam")],
    "algorithm/mldg inner_lr": [(*TOY, "algorithm=mldg", "algorithm.inner_lr=0.01")],
    "algorithm/sam rho": [
        (*TOY, "algorithm=sam", f"algorithm.rho={value}") for value in (0.01, 0.02, 0.1)
    ],
    "algorithm/rdm penalty_weight": [(*TOY, "algorithm=rdm", "algorithm.penalty_weight=0.5")],
    "algorithm/rdm variance_weight": [(*TOY, "algorithm=rdm", "algorithm.variance_weight=0")],
    "algorithm/rdm anneal_steps": [(*TOY, "algorithm=rdm", "algorithm.anneal_steps=2400")],
    "algorithm/cad anchors": [(*TOY, "algorithm=cad", "algorithm.anchors=repeated")],
    "algorithm/urm lr": [(*TOY, "algorithm=urm", "algorithm.discriminator_optimizer.lr=1e-3")],
    "algorithm/* of": [(*TOY, "algorithm=ib_erm", "algorithm.of=logits")],
    "algorithm/ib_irm of": [(*TOY, "algorithm=ib_irm", "algorithm.of=logits")],
    "algorithm/eqrm lr_after": [(*TOY, "algorithm=eqrm", "algorithm.lr_after=1e-6")],
    "algorithm/eqrm gradient": [(*TOY, "algorithm=eqrm", "algorithm.gradient=endpoints")],
    "algorithm/dann scheme": [(*TOY, "algorithm=dann", "algorithm.scheme=alternating")],
    "algorithm/dann ramp_steps": [(*TOY, "algorithm=dann", "algorithm.ramp_steps=2")],
    "algorithm/dann discriminator_steps": [
        (
            *(*TOY, "algorithm=dann", "algorithm.scheme=alternating"),
            "algorithm.discriminator_steps=2",
        )
    ],
    "algorithm/dann discriminator_optimizer": [
        (
            *TOY,
            "algorithm=dann",
            "algorithm.discriminator_optimizer={lr: 5.0e-5, betas: [0.5, 0.9]}",
        )
    ],
    "algorithm/mixstyle pairs": [(*CNN, "algorithm=mixstyle", "algorithm.pairs=domains")],
    "algorithm/mixstyle layers": [(*CNN, "algorithm=mixstyle", "algorithm.layers=['0']")],
    "algorithm/mtl ema": [
        (*TOY, "algorithm=mtl", f"algorithm.ema={value}") for value in (0.5, 0.9)
    ],
    "algorithm/mtl embedding": [(*TOY, "algorithm=mtl", "algorithm.embedding=noise")],
    "backbone/* weights": [(*PICTURES, "backbone.weights=weights.pt")],
    "backbone/* lr_factor": [(*PICTURES, "backbone.lr_factor=0.1")],
    "backbone/efficientnet_lite0 weights": [
        (*PICTURES, "backbone=efficientnet_lite0", "backbone.weights=null")
    ],
    "backbone/efficientnet_lite0 freeze_batchnorm": [
        (*PICTURES, "backbone=efficientnet_lite0", "backbone.freeze_batchnorm=false")
    ],
    "callbacks/swad tolerance": [(*TOY, "callbacks=swad", "callbacks.swad.tolerance=0.2")],
    "callbacks/swad look_back": [(*TOY, "callbacks=swad", "callbacks.swad.look_back=true")],
    "callbacks/ema # callbacks=": [(*TOY, "callbacks=[default,ema]")],
    "callbacks/sma # callbacks=": [(*TOY, "callbacks=[default,sma]", "callbacks.sma.start_step=1")],
    "callbacks/linear_probe # callbacks=": [(*TOY, "callbacks=[default,linear_probe]")],
    "data/folders domains": [(*PICTURES, "data.dataset.domains=[photo,art]")],
    "data/folders group": [(*PICTURES, "data.dataset.group='(.+)_'", "data.holdout_fraction=0.5")],
    "data/* faulty": [(*PICTURES, "data.dataset.faulty=leave_out")],
    "data/* as_uint8": [(*PICTURES, "data.dataset.as_uint8=false")],
    "data/* device_colours": [(*PICTURES, "data.dataset.device_colours=true")],
    "data/* cache": [(*PICTURES, "data.dataset.cache=decoded")],
    "data/* test_domain": [
        (*PICTURES, f"data.test_domain={value}") for value in ("photo", 0, "[art,photo]")
    ],
    "data/* split_seed": [(*PICTURES, "data.split_seed=3")],
    "data/* num_workers": [(*PICTURES, "data.num_workers=2")],
    "data/* augment_validation": [(*PICTURES, "data.augment_validation=true")],
    "data/* shuffle_domains": [(*PICTURES, "data.shuffle_domains=true")],
    "data/* views": [
        (*PICTURES, f"data.views={value}", "data.batch_size=4")
        for value in ("[edges]", "[gray]", "[gradient_map]", "[edges,gray]")
    ],
    "data/* views_as": [(*PICTURES, "data.views=[edges]", "data.views_as=augmentation")],
    "data/features label": [
        (
            *(*ROWS[:-2], "task=regression", "data.dataset.label=[one,two]"),
            *("data.dataset.domain=place", "data.dataset.columns=[three]"),
        )
    ],
    "data/* group": [
        (*lines, "data.dataset.group=patient")
        for lines in (
            (*ROWS, "data.dataset.columns=[one]"),
            (*TEXTS, "data.holdout_fraction=0.5", "backbone=text_transformer"),
        )
    ],
    "data/* scaling": [
        (
            *(*ROWS, "data.dataset.columns=[two,one]"),
            "data.dataset.scaling={mean:[0,1],std:[1,2]}",
        )
    ],
    "data/* inputs": [(*TEXTS, "data.dataset.inputs=tfidf", "backbone=mlp")],
    "data/* weights": [
        (
            *(*TEXTS, "data.dataset.inputs=tfidf", "backbone=mlp"),
            *("data.dataset.size=3", "data.dataset.weights=[1,2,3]"),
        )
    ],
    "backbone/mlp widths": [(*TOY, "backbone.widths=[]")],
    "data/* pseudo_domains": [(*PICTURES, "data.pseudo_domains=2")],
    "data/emoji domains": [
        (
            *("data=emoji", "data.dataset.domains=[noto,openmoji,emojione-mono]"),
            *("backbone=efficientnet_lite0", "backbone.weights=null", "annealing=none"),
        )
    ],
    "data/digits # dataset.shift": [
        ("data=digits", "annealing=none", f"data.dataset.shift={value}")
        for value in ("style", "shortcut", "texture", "colour")
    ],
}
# Comments that only say what a value is, or whose settings other tests run.
TOLD = {
    *("annealing/voting end_step", "annealing/gga_guided radius", "annealing/gga_climb radius"),
    *("algorithm/arm input_shape", "algorithm/dann num_domains", "callbacks/ema decay"),
    *("callbacks/linear_probe end_step", "callbacks/sma start_step", "data/emoji max_steps"),
    "callbacks/ema update_starting_at_step",
    *("algorithm/miro input_shape", "algorithm/miro layers", "algorithm/arith inner_lr"),
    "algorithm/sand_mask tau",
    "backbone/efficientnet_lite0 lr_factor",
    *("data/emoji holdout_fraction", "data/* batch_size", "data/* steps_per_epoch"),
    "data/* root",  # test_required
    "data/segmentation_toy pictures",  # a comment in words
    *("data/* domain", "data/* text", "data/texts label", "data/* size", "data/* length"),
    *("data/features columns", "backbone/text_transformer size"),  # see data/features label
    "backbone/text_transformer dropout",
    *("logger/mlflow MLFLOW_DISABLE_TELEMETRY", "logger/wandb offline", "logger/wandb reinit"),
    "hydra/sweeper/optuna_validation max_failure_rate",  # test_optuna
    *("hydra/sweeper/domains params", "hydra/sweeper/domains alternatives"),  # test_sweeps
    "hydra/sweeper/domains minutes",  # test_study
}
OVERRIDES = [overrides for lines in RUN.values() for overrides in lines]


def settings():
    """Every setting with a comment beside it, by the option's file."""
    for group in ("annealing", "algorithm", "backbone", "callbacks", "data", "hydra", "logger"):
        for path in sorted((CONFIGURATION / group).rglob("*.yaml")):
            option = str(path.relative_to(CONFIGURATION).with_suffix(""))
            for line in path.read_text().splitlines():
                if found := re.match(r" *(\w+): .*\S +# ", line):
                    yield f"{option} {found[1]}"


def test_every_comment_is_known():
    found = set(settings())
    known = set(RUN) | TOLD
    for option, setting in map(str.split, found):
        names = {f"{option} {setting}", f"{option.partition('/')[0]}/* {setting}"}
        assert names & known, f"{names}: no test runs what its comment names"
    there = found | {f"{name.partition('/')[0]}/* {name.split()[1]}" for name in found}
    assert {name for name in known if "#" not in name} <= there, "settings that are gone"


@pytest.mark.filterwarnings("ignore:SWAD. no validation loss was as low")
@pytest.mark.parametrize("place", mostly_slow(range(len(OVERRIDES)), 0, 4))
def test_what_a_comment_names_runs(place, tmp_path, monkeypatch):
    overrides = OVERRIDES[place]
    if "data=folders" in overrides:
        domains = ("art", "photo", "sketch")
        files = image_tree("", domains, ("cat", "dog"), number=5)
        files = {
            re.sub(r"(\d)\.jpg", r"\1_left.jpg", name): content for name, content in files.items()
        }
        zipfile.ZipFile(io.BytesIO(make_zip(files))).extractall("pictures")
    if "data.dataset.file=rows.csv" in overrides:
        rows = [
            f"{n},{n % 5},{n % 7},{'ab'[n % 2]},{'pqr'[n // 16]},p{n // 4},note {n}"
            for n in range(48)
        ]
        Path("rows.csv").write_text("\n".join(["one,two,three,kind,place,patient,note", *rows]))
    if "backbone.weights=weights.pt" in overrides:
        import torchvision

        torch.save(torchvision.models.resnet18().state_dict(), "weights.pt")
    given = {override.partition("=")[0] for override in overrides}
    own = [override for override in SMALL if override.partition("=")[0] not in given]
    arguments = on_digits([*overrides, *own, f"hydra.run.dir={tmp_path / 'run'}"])
    monkeypatch.setattr(sys, "argv", ["gga-train", *arguments])
    train.main()
    assert (tmp_path / "run" / "result.json").exists()
