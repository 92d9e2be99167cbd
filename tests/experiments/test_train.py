import contextlib
import csv
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from omegaconf import OmegaConf
from PIL import Image
from rich.cells import cell_len

from gga_lightning.experiments import evaluate, predict, train
from gga_lightning.experiments.checkpoints import SelectedCheckpoint
from gga_lightning.report.cli import main as report
from tests.experiments.killed import killed_in_a_search
from tests.experiments.test_terminal import terminal
from tests.helpers import mostly_slow, on_digits, same

__all__ = ["terminal"]  # a fixture
SMALL_BACKBONES = ("gga_lightning.backbones.MLP", "gga_lightning.backbones.MNISTCNN")
RULES = ("training_domain_validation", "oracle")
SMALL = ("trainer.max_steps=12", "data.steps_per_epoch=6", "trainer.log_every_n_steps=1")
SEARCH = ("annealing.start_step=2", "annealing.end_step=5", "annealing.num_candidates=3")
CONFIGURATION = Path(train.config_directory())
GROUPS = {
    path.stem: sorted(str(o.relative_to(path).with_suffix("")) for o in path.rglob("*.yaml"))
    for path in sorted(CONFIGURATION.iterdir())
    if path.is_dir()
}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs gga-train in this process and returns its run folder or folders, and its output."""

    def run(*overrides, folder="run"):
        overrides = [*overrides, f"hydra.run.dir={tmp_path / folder}"]
        monkeypatch.setattr(sys, "argv", ["gga-train", *on_digits(overrides)])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        train.main()
        return tmp_path / folder, capsys.readouterr()

    return run


class TestRun:
    def test_leaves_its_files(self, run):
        folder, output = run(*SMALL, *SEARCH, "callbacks.conflict.every_n_steps=3")
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        chosen = {name for name in names if "-" in name}
        either = [{f"checkpoints/{rule}-{step}.ckpt" for step in (6, 12)} for rule in RULES]
        assert [len(chosen & files) for files in either] == [1, 1]
        assert names - chosen == {
            ".hydra/config.yaml",
            ".hydra/hydra.yaml",
            ".hydra/overrides.yaml",
            "checkpoints/last.ckpt",
            "cosines.png",
            "job.json",
            "metrics.csv",
            "result.json",
            "train.log",
        }
        assert (folder / "train.log").read_text().splitlines() == [
            line.rstrip() for line in output.out.splitlines()
        ]
        assert "Run folder:" in output.out
        assert str(folder) in output.out

    def test_result(self, run):
        folder, _ = run(*SMALL, *SEARCH, "seed=3", "data.test_domain=45")
        result = json.loads((folder / "result.json").read_text())
        assert (result["data"], result["data_path"]) == ("digits-rotation", None)
        assert result["test_domain"] == "45"
        assert result["source_domains"] == ["0", "15", "30", "60", "75"]
        names = ("algorithm", "annealing", "backbone", "seed", "steps")
        assert [result[name] for name in names] == ["erm", "gga", "mlp", 3, 12]
        assert set(result["selections"]) == {"training_domain_validation", "oracle", "last"}
        for selection in result["selections"].values():
            assert selection["step"] in (6, 12)
            assert 0 <= selection["val_acc"] <= 1
            assert 0 <= selection["test_acc"] <= 1
        search = result["search"]
        assert (search["steps"], search["candidates"], search["mean_transfer"]) == (3, 9, None)
        assert search["accepted"] >= 0
        assert search["seconds"] < result["seconds"]
        assert set(result["versions"]) == {"gga-lightning", "torch", "lightning"}

    def test_result_agrees_with_the_logged_metrics(self, run):
        folder, _ = run(*SMALL, "annealing=none", "data=toy")
        result = json.loads((folder / "result.json").read_text())
        header, *rows = [
            line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()
        ]
        rows = [dict(zip(header, row, strict=True)) for row in rows]
        values = {int(r["step"]) + 1: r for r in rows if r["val/acc"]}
        for selection in result["selections"].values():
            row = values[selection["step"]]
            assert selection["val_acc"] == pytest.approx(float(row["val/acc"]))
            assert selection["test_acc"] == pytest.approx(float(row["test/left/acc"]))
        assert result["search"] is None

    @pytest.mark.parametrize(
        "annealing", mostly_slow(GROUPS["annealing"], "gga", "gga_l", "none", "voting")
    )
    def test_every_annealing_trains(self, run, annealing):
        windows = {"gga": SEARCH, "voting": ("annealing.end_step=4",)}
        chosen = next((w for prefix, w in windows.items() if annealing.startswith(prefix)), ())
        chosen = () if annealing.startswith("gga_l") else chosen
        folder, output = run(*SMALL, *chosen, f"annealing={annealing}", "data=toy")
        result = json.loads((folder / "result.json").read_text())
        assert (result["annealing"], result["steps"]) == (annealing, 12)
        searched = bool(chosen) and not annealing.startswith("voting")
        assert (result["search"] is not None) == searched
        if annealing == "gga_guided":
            assert isinstance(result["search"]["mean_transfer"], float)
            assert "on the next batch), " in " ".join(output.out.split())

    def test_without_checkpoints(self, run):
        folder, _ = run(*SMALL, "data=toy", "annealing=none", "callbacks=none")
        assert not list(folder.rglob("*.ckpt"))

    def test_same_configuration_same_numbers(self, run):
        def result(name, seed):
            folder, _ = run(*SMALL, *SEARCH, f"seed={seed}", folder=name)
            return json.loads((folder / "result.json").read_text())

        first, second, other = result("a", 0), result("b", 0), result("c", 1)
        assert first["selections"] == second["selections"]
        assert first["config_hash"] == second["config_hash"] != other["config_hash"]
        assert first["selections"] != other["selections"]

    def test_table(self, run):
        _, output = run(*SMALL, *SEARCH)
        for words in (
            "digits-rotation, '75' held out: erm with gga",
            "training-domain validation",
            "oracle",
            "last",
            "held-out accuracy",
            "of 9 candidates accepted",
        ):
            assert words in " ".join(output.out.split())

    def test_checkpoint_loads_into_the_module_of_the_saved_configuration(self, run):
        folder, _ = run(*SMALL, "annealing=gga_l")
        with initialize_config_dir(str(folder / ".hydra"), version_base="1.3"):
            config = compose("config")
        module = train.make_algorithm(config, train.make_data(config))
        state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        module.load_state_dict(state)

    def test_averaged_weights(self, run):
        often = (*SMALL, "data.steps_per_epoch=3", "callbacks=swad", "callbacks.swad.patience=1")
        folder, output = run(*often, "annealing=none", "seed=5")
        result = json.loads((folder / "result.json").read_text())
        assert list(result["selections"])[-1] == "swad"
        assert "SWAD: averaged the weights after 9 steps, from 4 to 12." in output.out
        with initialize_config_dir(str(folder / ".hydra"), version_base="1.3"):
            config = compose("config")
        data = train.make_data(config)
        module = train.make_algorithm(config, data)
        state = torch.load(folder / "checkpoints/swad.ckpt", weights_only=True)["state_dict"]
        module.load_state_dict(state)
        trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
        (metrics, *_) = trainer.validate(module, data, verbose=False)
        chosen = result["selections"]["swad"]
        assert chosen["val_acc"] == pytest.approx(metrics["val/acc"])
        assert chosen["step"] == 12
        plain = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        assert not torch.equal(plain["classifier.weight"], state["classifier.weight"])

    def test_your_own_images(self, run, tmp_path):
        for index in range(60):
            domain, label = ("art", "ink", "oil")[index % 3], ("cat", "dog")[index // 3 % 2]
            path = tmp_path / "pets" / domain / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (200 * (label == "cat"), index, 0)).save(path)
        own = (f"data.root={tmp_path / 'pets'}", "data.dataset.image_size=8", "data.num_workers=0")
        folder, _ = run(*SMALL, *SEARCH, "data=folders", *own, "data.batch_size=4")
        result = json.loads((folder / "result.json").read_text())
        assert (result["data"], result["source_domains"]) == ("pets", ["art", "ink"])
        assert result["data_path"] == str(tmp_path / "pets")
        assert result["test_domain"] == "oil"
        assert result["search"]["steps"] == 3

    @pytest.mark.slow
    @pytest.mark.parametrize("algorithm", GROUPS["algorithm"])
    def test_every_algorithm_with_every_annealing(self, run, tmp_path, algorithm):
        """On the defaults' data and window, in few steps, and with averaged weights."""
        small = ("trainer.max_steps=110", "data.steps_per_epoch=30")
        small += ("callbacks=swad", "callbacks.swad.patience=1")
        for name, annealing in (("a", ("none,gga_l",)), ("b", ("gga", "num_candidates=20"))):
            chosen = ("annealing=" + annealing[0], *(f"annealing.{own}" for own in annealing[1:]))
            sweep = f"hydra.sweep.dir={tmp_path / name}"
            run("-m", *small, f"algorithm={algorithm}", *chosen, sweep)
        results = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("[ab]/*/result.json"))]
        assert [r["annealing"] for r in results] == ["gga_l", "none", "gga"]
        for result in results:
            assert result["steps"] == 110
            assert "swad" in result["selections"]
        assert results[2]["search"]["steps"] == 10

    def test_multirun(self, run, tmp_path):
        sweep = f"hydra.sweep.dir={tmp_path / 'sweep'}"
        run("-m", *SMALL, "annealing=none,gga_l", "seed=0,1", "data=toy", sweep)
        results = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("sweep/*/result.json"))]
        assert [(r["annealing"], r["seed"]) for r in results] == [
            ("gga_l", 0),
            ("gga_l", 1),
            ("none", 0),
            ("none", 1),
        ]

    @pytest.mark.slow
    def test_as_a_module_on_two_processes(self, tmp_path):
        command = [
            sys.executable,
            "-m",
            "gga_lightning.experiments.train",
            *SMALL,
            *SEARCH,
            "data=toy",
        ]
        command += ["trainer.devices=2", "+trainer.strategy=ddp", f"hydra.run.dir={tmp_path / 'r'}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=240, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads((tmp_path / "r/result.json").read_text())["search"]["steps"] == 3
        assert done.stdout.count("Run folder:") == 1


@pytest.mark.slow
class TestWeights:
    SETTINGS = (
        *("trainer.max_steps=2", "data.steps_per_epoch=2", "annealing=none"),
        "backbone=resnet18",
    )

    @pytest.mark.parametrize("algorithm", ["erm", "arm"])
    def test_a_checkpoint_of_a_training(self, run, algorithm):
        chosen = (*self.SETTINGS, f"algorithm={algorithm}")
        first, _ = run(*chosen)
        file = first / "checkpoints" / "last.ckpt"
        _, output = run(*chosen, f"backbone.weights={file}", folder="second")
        told = f"resnet18: 120 of 120 tensors from {file} ('state_dict/featurizer.network.')"
        assert output.err.count(told) == 1

    def test_a_file_that_does_not_exist(self, run, tmp_path, capsys):
        with pytest.raises(SystemExit):
            run(*self.SETTINGS, "backbone.weights=./resnet.pth")
        message = f"gga-train: `weights`: there is no file '{tmp_path / 'resnet.pth'}'."
        assert message in capsys.readouterr().err


class TestErrors:
    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (
                ["data.batchsize=3"],
                "no setting `data.batchsize`. Did you mean `batch_size`? Valid "
                "at data: dataset, test_domain, batch_size,",
            ),
            (
                ["annealing.startstep=3"],
                "no setting `annealing.startstep`. Did you mean `start_step`",
            ),
            (
                ["trainer.gradient_clip_val=1"],
                "`trainer.gradient_clip_val` is not among the configuration's settings, but "
                "Trainer takes it: add it by a plus, `+trainer.gradient_clip_val=...`.",
            ),
            (
                ["trainer.max_steps=20", "data=toy"],
                "`trainer.max_steps` must be at least the steps between validations, "
                "`data.steps_per_epoch`, which is 50, got 20.",
            ),
            (["sed=3"], "no setting `sed`. Did you mean `seed`? Valid at the top level:"),
            (
                ["algorithm=ermm"],
                "no option `algorithm=ermm`. Did you mean `erm`? There are: agr_rand,",
            ),
            (["annealing.start_step=-1"], "`start_step` must be an integer of at least 0, got -1."),
            (["data.test_domain=90"], "`test_domain` must be one of ['0', '15', "),
            (["data.dataset.shift=fog"], "`shift` must be one of ['rotation', "),
            (["annealing.parameters=net"], "`parameters='net'` selects none of"),
            (["seed=null"], "`seed` must be an integer from 0 to 4294967295, got None."),
            (["seed=true"], "`seed` must be an integer from 0 to 4294967295, got True."),
            (["hparams_seed=1.5"], "`hparams_seed` must be an integer"),
            (["data.split_seed=-1"], "`data.split_seed` must be an integer"),
            (["data.seed='3'"], "`data.seed` must be an integer from 0 to 4294967295, got '3'."),
            (["algorithm.optimizer.lr=nan"], "`algorithm.optimizer.lr` must be a finite number, g"),
            (["+trainer.gradient_clip_val=inf"], "`trainer.gradient_clip_val` must be a finite"),
            (["+a.b=[1,{c:-inf}]"], "`a.b[1].c` must be a finite number, got -inf."),
            (["data.test_domain=015"], "`test_domain` must be one of ['0', '15', "),
            (["data=toy", "data.test_domain=[left,2]"], "must name each domain once"),
            (["data.batch_size=["], "no viable alternative at input"),
        ],
    )
    def test_in_one_line_that_says_what_to_do(self, run, capsys, overrides, message):
        with pytest.raises(SystemExit) as ended:
            run(*overrides)
        assert ended.value.code == 1
        lines = capsys.readouterr().err.splitlines()
        said = [line for line in lines if line.startswith("gga-train:")]
        assert len(said) == 1
        assert message in said[0]
        assert set(lines) - set(said) <= {"(HYDRA_FULL_ERROR=1 shows where it comes from)"}

    def test_whole_on_request(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        monkeypatch.setattr(sys, "argv", ["gga-train", "seed=x", f"hydra.run.dir={tmp_path}"])
        with pytest.raises(ValueError, match="`seed` must be an integer .*, got 'x'"):
            train.main()


class TestNames:
    """Domains whose names Hydra or YAML would read as something else."""

    NAMES = ("007", "1_1", "true", "all", "é" * 120)
    TINY = ("data=folders", "data.dataset.image_size=8", "data.num_workers=0", "data.batch_size=2")
    TINY += ("trainer.max_steps=2", "data.steps_per_epoch=2", "trainer.log_every_n_steps=1")
    TINY += ("annealing=none", "callbacks=none", "logger=none")

    @pytest.fixture
    def root(self, tmp_path):
        for name, label, index in itertools.product(self.NAMES, "ab", range(5)):
            path = tmp_path / "odd" / name / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (20 * index, 200 * (label == "a"), 0)).save(path)
        return f"data.root={tmp_path / 'odd'}"

    def held_out(self, folder):
        results = [json.loads(path.read_text()) for path in folder.glob("*/result.json")]
        return sorted(result["test_domains"] for result in results)

    @pytest.mark.parametrize("name", ["007", "true", "all"])
    def test_in_one_run(self, run, root, name):
        folder, _ = run(*self.TINY, root, f"data.test_domain={name}")
        assert json.loads((folder / "result.json").read_text())["test_domains"] == [name]
        config = OmegaConf.load(folder / ".hydra/config.yaml")
        assert config.data.test_domain == name

    def test_in_a_sweep_and_again(self, run, root, tmp_path):
        sweep = ("-m", *self.TINY, root, f"hydra.sweep.dir={tmp_path / 's'}")
        run(*sweep, "data.test_domain=007,true,'all',[1_1,all]")
        assert self.held_out(tmp_path / "s") == [["007"], ["1_1", "all"], ["all"], ["true"]]
        _, output = run(*sweep, "data.test_domain=all")
        assert self.held_out(tmp_path / "s") == sorted(
            [["007"], ["1_1", "all"], *([name] for name in self.NAMES[1:])]
        )
        assert output.out.count("already finished") == 3
        longest = max(len(os.fsencode(path.name)) for path in (tmp_path / "s").iterdir())
        assert 200 < longest <= 255

    @pytest.mark.slow
    def test_the_reports_commands_for_missing_jobs_run(self, run, root, tmp_path, capsys):
        sweep = ("-m", *self.TINY, root, f"hydra.sweep.dir={tmp_path / 's'}")
        run(*sweep, "data.test_domain=all", "seed=0")
        run(*sweep, "data.test_domain=1_1", "seed=1")
        report([str(tmp_path / "s")])
        said = capsys.readouterr().out
        (command,) = [line for line in said.splitlines() if line.strip().startswith("gga-train")]
        run(*shlex.split(command)[1:])
        assert self.held_out(tmp_path / "s") == sorted([[name] for name in self.NAMES] * 2)


class TestTerminal:
    @pytest.mark.parametrize("command", [train.main, evaluate.main, predict.main, report])
    def test_version(self, monkeypatch, capsys, command):
        monkeypatch.setattr(sys, "argv", ["command", "--version"])
        with contextlib.suppress(SystemExit):
            command()
        assert re.fullmatch(r"gga-lightning \d+\.\d+\.\d+\n", capsys.readouterr().out)

    def test_help_is_a_screen(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["gga-train", "--help"])
        with pytest.raises(SystemExit) as ended:
            train.main()
        assert ended.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 80
        groups = {line.split()[0] for line in lines if line.startswith("  ")}
        assert groups - {"gga-train"} == GROUPS.keys() - {"hydra"}
        for line in lines:
            name, _, text = line.strip().partition(" ")
            if line.startswith("  ") and name in ("algorithm", "backbone", "trainer", "logger"):
                options = text.partition(" and ")[0].strip(" .").split(", ")
                assert set(options) <= set(GROUPS[name]), line

    def test_little_is_printed_where_it_is_no_terminal(self, run):
        _, output = run(*SMALL, *SEARCH)
        assert len(output.out.splitlines()) < 20
        assert output.err == ""
        assert "\x1b" not in output.out

    def test_nothing_wraps_on_a_terminal(self, run, terminal):
        screen = terminal(80)
        folder, _ = run(*SMALL, *SEARCH, "trainer.max_steps=60")
        drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
        lines = re.split(r"[\r\n]+", drawn)
        assert max(map(cell_len, lines)) <= 80
        assert any(line.startswith("epoch 3") for line in lines)
        assert "Run folder: run\n" in drawn
        log = (folder / "train.log").read_text()
        assert "\x1b" not in log
        assert "epoch" not in log
        assert "GGA: searched 3 steps" in log
        assert log.splitlines()[-1] == "Run folder: run"

    @pytest.mark.filterwarnings("default")
    def test_a_warning_of_a_users_module_is_a_line(self, run, monkeypatch, capsys):
        monkeypatch.setattr(train, "make_algorithm", warned(train.make_algorithm))
        folder, output = run(*SMALL, "data=toy", "annealing=none")
        assert output.err == "gga-train: warning: your module: two lines\n"
        assert output.err in (folder / "train.log").read_text()

    def test_the_log_goes_on_when_a_run_is_resumed(self, run, monkeypatch, capsys):
        with monkeypatch.context() as patch:
            patch.setattr(train, "select", lambda *_, **__: 1 / 0)
            with pytest.raises(SystemExit):
                run(*SMALL, "data=toy", "annealing=none")
        folder, _ = run(*SMALL, "data=toy", "annealing=none")
        log = (folder / "train.log").read_text()
        assert log.index("ZeroDivisionError: division by zero") < log.index("Resuming from ")
        assert log.index("Resuming from ") < log.index("Run folder:")

    @pytest.mark.parametrize(
        ("overrides", "kind"),
        [
            (["callbacks=none"], "ProgressBar"),
            ([], "ProgressBar"),
            (["+trainer.enable_progress_bar=false"], None),
            (["callbacks.progress._target_=lightning.pytorch.callbacks.TQDMProgressBar"], "TQDMP"),
        ],
    )
    def test_which_bar_there_is(self, run, monkeypatch, overrides, kind):
        bars = []

        class Spied(Trainer):
            def __init__(self, **settings):
                super().__init__(**settings)
                bars.append(self.progress_bar_callback)

        monkeypatch.setattr("lightning.pytorch.Trainer", Spied)
        run(*SMALL, "data=toy", "annealing=none", *overrides)
        (bar,) = bars
        assert bar is None if kind is None else type(bar).__name__.startswith(kind)


def warned(function):
    def warning(*arguments):
        warnings.warn("your module:\n  two lines", stacklevel=2)
        return function(*arguments)

    return warning


OPTIONS = [
    (group, option)
    for group, options in GROUPS.items()
    for option in options
    if not option.startswith("paper/")  # tests/experiments/test_experiments.py
]
# Other tests compose all data sets, compose and make every algorithm, and train with every
# annealing. Large networks take long to make.
ELSEWHERE = ("algorithm", "annealing", "data")
SMALL_NETWORKS = ("efficientnet_lite0", "mlp", "mnist_cnn", "resnet18", "timm", "torchvision")


@pytest.mark.parametrize(
    ("group", "option"),
    mostly_slow(
        OPTIONS,
        *(
            (group, option)
            for group, option in OPTIONS
            if group not in ELSEWHERE and (group != "backbone" or option in SMALL_NETWORKS)
        ),
        ("data", "digits"),
        ("data", "toy"),
    ),
)
def test_every_option_composes_and_instantiates(group, option, tmp_path):
    chosen = [f"hydra/{option.replace('/', '=')}" if group == "hydra" else f"{group}={option}"]
    with_dropout = ("domainbed", "domainbed_domain_net", "domainbed_rdm", "swad")
    if option in (*with_dropout, "random_search", "swad_grid"):
        chosen += ["backbone=resnet18"] * (group in ("hparams", "sweep"))
    if (group, option) == ("task", "segmentation"):
        chosen.append("backbone=small_cnn")  # it needs feature maps
    if option == "erm_plus_plus":
        chosen.append("backbone.weights=null")  # these are downloaded
    with initialize_config_dir(train.config_directory(), version_base="1.3"):
        config = compose("train", on_digits(chosen), return_hydra_config=True)
    if group == "logger" and option in ("mlflow", "tensorboard", "wandb"):
        return  # tests/experiments/test_loggers.py
    if group == "data" and option not in ("digits", "toy"):
        return  # tests/experiments/test_required.py
    config.hydra.runtime.output_dir = str(tmp_path)
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().set_config(config)
    data = train.make_data(config)
    if config.backbone._target_ not in SMALL_BACKBONES:
        data.input_shape = (3, 224, 224) if option == "vit_b_16" else (3, 32, 32)
        data.input_shape = (8,) if option == "text_transformer" else data.input_shape
        if OmegaConf.is_missing(config.backbone, "name"):
            config.backbone.name = "resnet10t" if option == "timm" else "resnet18"
    train.make_algorithm(config, data)
    for entry in (*config.callbacks.values(), *config.logger.values()):
        instantiate(entry)
    if "_target_" in config.annealing:
        assert isinstance(instantiate(config.annealing), Callback)
    if config.trainer.accelerator == "cpu":
        instantiate(config.trainer, logger=False)


class TestGoingOn:
    SEARCHED = ("annealing.start_step=6", "annealing.end_step=11", "annealing.num_candidates=20")

    @pytest.mark.slow
    def test_after_a_kill_in_a_search_all_is_as_in_a_straight_run(self, run, tmp_path):
        # Mixup draws from torch's generator, SWAD averages, the monitor and the search log
        setting = (*SMALL, *self.SEARCHED, "trainer.max_steps=24", "algorithm=mixup")
        setting += (
            "callbacks=swad",
            "callbacks.swad.patience=1",
            "callbacks.conflict.every_n_steps=2",
        )
        straight, _ = run(*setting)
        checkpoint = tmp_path / "killed/checkpoints/last.ckpt"
        killed_in_a_search(checkpoint, *setting, f"hydra.run.dir={tmp_path / 'killed'}")
        assert not (tmp_path / "killed/result.json").exists()
        resumed, _ = run(*setting, folder="killed")
        expected, found = (json.loads((f / "result.json").read_text()) for f in (straight, resumed))
        timed = ("seconds", "starts", "search")
        assert {k: v for k, v in found.items() if k not in timed} == {
            k: v for k, v in expected.items() if k not in timed
        }
        assert (expected["starts"], found["starts"]) == ([0], [0, 6])
        assert {**found["search"], "seconds": 0} == {**expected["search"], "seconds": 0}
        assert self.rows(resumed) == self.rows(straight)
        names = [sorted(p.name for p in f.glob("checkpoints/*")) for f in (straight, resumed)]
        assert names[0] == names[1]
        for name in names[0]:
            states = [
                torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]
                for folder in (straight, resumed)
            ]
            assert same(*states), name

    def rows(self, folder):
        with (folder / "metrics.csv").open() as file:
            return [
                {k: v for k, v in r.items() if k != "gga/seconds"} for r in csv.DictReader(file)
            ]

    def test_before_the_first_checkpoint_it_begins_anew(self, run, monkeypatch):
        def broken(*args, **settings):
            raise OSError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(SelectedCheckpoint, "on_validation_end", broken)
            with pytest.raises(SystemExit):
                run(*SMALL, "annealing=none")
        folder, _ = run(*SMALL, "annealing=none")
        result = json.loads((folder / "result.json").read_text())
        assert result["starts"] == [0, 0]
        assert not (folder / "failure.json").exists()

    def test_a_finished_run_is_shown_and_not_run_again(self, run):
        folder, _ = run(*SMALL, "annealing=none")
        before = (folder / "result.json").stat().st_mtime_ns
        _, output = run(*SMALL, "annealing=none")
        assert (folder / "result.json").stat().st_mtime_ns == before
        assert "held-out accuracy" in " ".join(output.out.split())

    def test_a_refused_command_leaves_its_folder_to_the_corrected_one(self, run, capsys):
        with pytest.raises(SystemExit):
            run(*SMALL, "annealing=none", "trainer.max_steps=1")
        assert "`trainer.max_steps` must be at least" in capsys.readouterr().err
        folder, _ = run(*SMALL, "annealing=none")
        saved = (folder / ".hydra/config.yaml").read_text()
        assert "max_steps: 1\n" not in saved
        assert (folder / "result.json").exists()

    def test_another_configuration_is_refused_and_nothing_is_touched(self, run, capsys):
        folder, _ = run(*SMALL, "annealing=none")
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        with pytest.raises(SystemExit):
            run(*SMALL, "annealing=none", "seed=1")
        assert "holds another job" in capsys.readouterr().err
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_the_job_of_the_readme_made_small(monkeypatch, tmp_path, capsys):
    """gga-train alone: pictures, a pretrained network, guided steps, and two figures."""
    small = ["trainer.max_steps=4", "data.steps_per_epoch=4", "data.batch_size=2"]
    small += ["data.eval_batch_size=8"]
    small += ["data.dataset.domains=[noto,openmoji,emojione-mono]", "data.dataset.image_size=32"]
    small += ["annealing.start_step=1", "annealing.end_step=3", "trainer.log_every_n_steps=1"]
    small += ["callbacks.conflict.every_n_steps=2", "+trainer.limit_val_batches=1"]
    small += [f"hydra.run.dir={tmp_path / 'run'}"]
    monkeypatch.setattr(sys, "argv", ["gga-train", *small])
    train.main()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    chosen = [result[group] for group in ("data", "backbone", "algorithm", "annealing")]
    assert chosen == ["emoji", "efficientnet_lite0", "erm", "gga_early"]
    assert (result["search"]["steps"], result["test_domains"]) == (2, ["emojione-mono"])
    assert result["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"cosines.png", "predictions.png", "metrics.csv"} <= names
    assert "new groups" in capsys.readouterr().out


class TestManyJobs:
    def test_a_failed_job_is_recorded_and_does_not_stop_the_others(self, run, tmp_path, capsys):
        sweep = ("-m", *SMALL, "data=toy", "annealing=none", f"hydra.sweep.dir={tmp_path / 's'}")
        with pytest.raises(SystemExit) as ended:
            run(*sweep, "data.batch_size=4,0,8")
        assert ended.value.code == 1
        said = capsys.readouterr().err
        assert "a job failed: `batch_size` must be at least 1, got 0." in said
        (failure,) = (tmp_path / "s").glob("*/failure.json")
        assert "`batch_size`" in json.loads(failure.read_text())["error"]
        assert str(failure) in said
        assert "1 of 3 jobs failed; the folder of each" in said
        assert "Error executing job" not in said
        assert said.count("`batch_size` must") == 1
        log = (failure.parent / "train.log").read_text()
        assert "Traceback" in log
        assert "`batch_size` must be at least 1, got 0." in log.splitlines()[-1]
        finished = sorted((tmp_path / "s").glob("*/result.json"))
        assert len(finished) == 2
        before = [path.stat().st_mtime_ns for path in finished]
        with pytest.raises(SystemExit):
            run(*sweep, "data.batch_size=4,0,8")
        assert capsys.readouterr().out.count("already finished") == 2
        assert [path.stat().st_mtime_ns for path in finished] == before

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ("seed=0,-1", "`seed` must be an integer"),
            ("data.split_seed=0,1.5", "`data.split_seed` must be an integer"),
            ("algorithm.optimizer.lr=0.1,nan", "`algorithm.optimizer.lr` must be a finite number"),
        ],
    )
    def test_wrong_numbers_are_refused_before_the_first_job(
        self, run, tmp_path, capsys, wrong, message
    ):
        with pytest.raises(SystemExit):
            run("-m", *SMALL, "data=toy", wrong, f"hydra.sweep.dir={tmp_path / 's'}")
        assert message in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "s").iterdir()] == ["multirun.yaml"]

    def test_a_failed_job_does_not_stop_further_batches(self, run, tmp_path):
        sweep = ("-m", *SMALL, "data=toy", "annealing=none", f"hydra.sweep.dir={tmp_path / 's'}")
        with pytest.raises(SystemExit):
            run(*sweep, "data.batch_size=0,4,8", "hydra.sweeper.max_batch_size=1")
        assert len(list((tmp_path / "s").glob("*/result.json"))) == 2

    def test_every_domain_in_turn(self, run, tmp_path):
        sweep = f"hydra.sweep.dir={tmp_path / 's'}"
        run("sweep=leave_one_domain_out", *SMALL, "data=toy", "annealing=none", "seed=0", sweep)
        results = [json.loads(p.read_text()) for p in (tmp_path / "s").glob("*/result.json")]
        assert sorted(r["test_domain"] for r in results) == ["centre", "left", "right"]
        assert {len(r["source_domains"]) for r in results} == {2}

    def test_every_domain_needs_a_multirun(self, run, capsys):
        with pytest.raises(SystemExit):
            run(*SMALL, "data.test_domain=all")
        assert "stands for one job a domain or pair of domains: add -m." in capsys.readouterr().err

    @pytest.mark.slow
    @pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
    def test_launchers(self, tmp_path, launcher):
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
        command = [
            sys.executable,
            "-m",
            "gga_lightning.experiments.train",
            "-m",
            *SMALL,
            "data=toy",
            "seed=0,1",
        ]
        command += ["annealing=none", f"hydra/launcher={launcher}", "hydra.sweep.dir=s"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert len(list((tmp_path / "s").glob("*/result.json"))) == 2

    @pytest.mark.slow
    @pytest.mark.parametrize("strategy", [[], ["+trainer.strategy=ddp"]])
    def test_jobs_of_two_processes_each(self, tmp_path, strategy):
        """With options of the user's own, and in a folder with a name that needs quotes."""
        (tmp_path / "my/data").mkdir(parents=True)
        (tmp_path / "my/data/mine.yaml").write_text("defaults: [toy]\n")
        command = [
            sys.executable,
            "-m",
            "gga_lightning.experiments.train",
            "--config-dir",
            "my",
            "-m",
        ]
        command += [*SMALL, *SEARCH, *strategy, "data=mine", "trainer.devices=2", "seed=0,1"]
        command += [r"hydra.sweep.dir='it\'s'"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr[-3000:]
        results = [json.loads(p.read_text()) for p in (tmp_path / "it's").glob("*/result.json")]
        assert sorted(result["seed"] for result in results) == [0, 1]
        assert all(result["overrides"][0].startswith("hydra.searchpath=") for result in results)
        assert not list(tmp_path.glob("outputs"))
