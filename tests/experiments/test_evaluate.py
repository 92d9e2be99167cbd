import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from PIL import Image
from torchvision.models import shufflenet_v2_x0_5

from gga_lightning import backbones
from gga_lightning.data import Toy
from gga_lightning.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from gga_lightning.experiments import evaluate, models, train
from tests.helpers import mostly_slow, on_digits

CONFIGURATION = Path(train.config_directory())
ALGORITHMS = sorted(path.stem for path in (CONFIGURATION / "algorithm").glob("*.yaml"))
SHORT = ("trainer.max_steps=4", "data.steps_per_epoch=2", "annealing=none", "callbacks=checkpoint")
# so that selections differ, and the training ends within an epoch
LONG = ("trainer.max_steps=22", "data.steps_per_epoch=3", "annealing=none", "seed=3")
LONG += ("callbacks=swad", "callbacks.swad.patience=1", "algorithm.optimizer.lr=0.02")
IMAGE_SETTINGS = ("data.dataset.image_size=8", "data.num_workers=0")
SELECTIONS = ("training_domain_validation", "oracle", "last", "swad")


def run(folder, *overrides):
    """Runs gga-train in this process."""
    filters = list(warnings.filters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gga-train", *on_digits(overrides), f"hydra.run.dir={folder}"])
        patch.setenv("HYDRA_FULL_ERROR", "0")
        try:
            train.main()
        finally:
            warnings.filters[:] = filters
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on digits, with averaged weights too."""
    return run(tmp_path_factory.mktemp("runs") / "digits", *LONG, "data.test_domain=45")


@pytest.fixture(autouse=True)
def _errors_in_one_line(monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def make_images(root, domains, seed=0):
    """Noisy images whose brightness tells the class, mostly."""
    random = np.random.default_rng(seed)
    for index in range(30 * len(domains)):
        domain, label = domains[index % len(domains)], index // len(domains) % 2
        path = root / domain / ("cat", "dog")[label] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.normal(100 + 40 * label, 60, (9, 9, 3)) + random.normal(0, 40)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A run on folders of images, from weights in a file that is then deleted."""
    root = tmp_path_factory.mktemp("images")
    make_images(root / "pets", ("art", "ink", "oil"))
    torch.manual_seed(0)
    torch.save(shufflenet_v2_x0_5().state_dict(), root / "weights.pt")
    own = ("data=folders", f"data.root={root / 'pets'}", *IMAGE_SETTINGS)
    own += ("data.batch_size=8", "backbone=torchvision", "backbone.name=shufflenet_v2_x0_5")
    small = ("trainer.max_steps=6", *SHORT[1:])
    run(root / "run", *small, *own, f"backbone.weights={root / 'weights.pt'}")
    (root / "weights.pt").unlink()
    return root


def results(folder):
    return json.loads((folder / "result.json").read_text())


def saved(folder, selection, step):
    """The weights that a selection's file holds."""
    name = selection if selection in ("last", "swad") else f"{selection}-{step}"
    path = folder / "checkpoints" / f"{name}.ckpt"
    return torch.load(path, weights_only=True, map_location="cpu")["state_dict"]


def assert_same_state(module, state):
    found = module.state_dict()
    assert found.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_each_selection(finished, selection):
    chosen = results(finished)["selections"][selection]
    module = evaluate.load_model(finished, selection)
    assert_same_state(module, saved(finished, selection, chosen["step"]))
    assert not module.training
    (found,) = evaluate.evaluate(finished, selection, device="cpu")
    assert (found.domain, found.part, found.samples) == ("45", "test", 240)
    assert found.accuracy == pytest.approx(chosen["test_acc"], abs=1e-6)


def test_training_domain_validation_is_the_default(finished):
    first, second = (evaluate.load_model(finished, *rule) for rule in ((), SELECTIONS[:1]))
    assert_same_state(first, second.state_dict())


@pytest.mark.parametrize("algorithm", mostly_slow(ALGORITHMS, "arm", "erm", "sagnet"))
def test_every_algorithm(tmp_path, algorithm):
    if algorithm == "jacobian_descent":
        pytest.importorskip("torchjd")
    folder = run(tmp_path / "run", *SHORT, f"algorithm={algorithm}")
    chosen = results(folder)["selections"]["training_domain_validation"]
    module = evaluate.load_model(folder)
    assert_same_state(module, saved(folder, "training_domain_validation", chosen["step"]))
    (found,) = evaluate.evaluate(folder)
    assert found.accuracy == pytest.approx(chosen["test_acc"], abs=1e-6)


class TestWithoutTheData:
    def test_a_finished_run_loads(self, finished, monkeypatch):
        def no_data(config):
            raise AssertionError

        monkeypatch.setattr(models, "make_data", no_data)
        assert evaluate.load_model(finished)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)

    def test_an_unfinished_run_loads_with_them(self, finished, tmp_path):
        folder = shutil.copytree(finished, tmp_path / "unfinished")
        (folder / "result.json").unlink()
        assert_same_state(evaluate.load_model(folder), evaluate.load_model(finished).state_dict())
        assert evaluate.evaluate(folder) == evaluate.evaluate(finished)

    def test_what_a_killed_run_leaves(self, finished, tmp_path):
        folder = shutil.copytree(finished, tmp_path / "killed")
        (latest,) = (folder / "checkpoints").glob("oracle-*")
        other = torch.load(latest, weights_only=True)
        other["state_dict"]["classifier.bias"] += 1
        torch.save(other, latest.with_name("oracle-9.ckpt"))
        found = evaluate.load_model(folder, "oracle")
        assert_same_state(found, evaluate.load_model(finished, "oracle").state_dict())


class TestNewData:
    def test_all_samples_of_every_domain(self, finished):
        found = evaluate.evaluate(finished, overrides=["data=digits"])
        sources = ["0", "15", "30", "60", "75"]
        assert [row.domain for row in found] == ["0", "15", "30", "45", "60", "75"]
        for row in found:
            assert row.part == ("all (source)" if row.domain in sources else "all")
        assert sum(row.samples for row in found) == 1797
        result = results(finished)
        step = result["selections"]["training_domain_validation"]["step"]
        (parts,) = [e["accuracies"] for e in result["evaluations"] if e["step"] == step]
        held_out = found[3]
        right = 240 * parts["test/45"] + 59 * parts["oracle/45"]
        assert held_out.samples == 299
        assert held_out.accuracy == pytest.approx(right / 299, abs=1e-6)

    def test_the_run_s_own_in_another_place(self, images, tmp_path):
        moved = shutil.copytree(images / "pets", tmp_path / "moved")
        assert evaluate.evaluate(
            images / "run", overrides=[f"data.root={moved}"]
        ) == evaluate.evaluate(images / "run")
        with pytest.raises(InstantiationException, match="must be a folder of domains"):
            evaluate.evaluate(images / "run", overrides=[f"data.root={tmp_path / 'nowhere'}"])

    def test_the_seed_is_the_run_s(self, finished, tmp_path):
        """The toy's points depend on it."""
        folder = run(tmp_path / "run", *SHORT, "data=toy", "seed=7")
        found = evaluate.evaluate(folder, overrides=["data=toy", "data.dataset.gap=0"])
        module = evaluate.load_model(folder)
        for row in found:
            inputs, targets = Toy(0.0, seed=7).domains[row.domain].tensors
            with torch.no_grad():
                right = (module(inputs).argmax(1) == targets).float().mean()
            assert row.accuracy == pytest.approx(float(right), abs=1e-6)

    def test_images_are_normalized_as_in_training(self, images):
        folder = images / "run"
        chosen = results(folder)["selections"]["training_domain_validation"]
        (reported,) = evaluate.evaluate(folder)
        again = ["data=folders", f"data.root={images / 'pets'}", *IMAGE_SETTINGS]
        assert reported.accuracy == pytest.approx(chosen["test_acc"], abs=1e-6)
        found = {row.domain: row for row in evaluate.evaluate(folder, overrides=again)}
        (parts,) = [
            e["accuracies"] for e in results(folder)["evaluations"] if e["step"] == chosen["step"]
        ]
        right = 24 * parts["test/oil"] + 6 * parts["oracle/oil"]
        assert (found["oil"].part, found["oil"].samples) == ("all", 30)
        assert found["oil"].accuracy == pytest.approx(right / 30, abs=1e-6)
        assert 0 < found["oil"].accuracy < 1

    def test_a_single_domain_of_few_images(self, images, tmp_path):
        new = tmp_path / "new"
        for label in ("cat", "dog"):
            (new / "ink" / label).mkdir(parents=True)
            source = min((images / "pets" / "ink" / label).iterdir())
            shutil.copy(source, new / "ink" / label)
        (row,) = evaluate.evaluate(
            images / "run",
            overrides=["data=folders", f"data.root={new}", *IMAGE_SETTINGS],
        )
        assert (row.domain, row.part, row.samples) == ("ink", "all", 2)
        assert row.accuracy in (0.0, 0.5, 1.0)


def move_classes(root, new, names):
    """A copy of the images whose classes have other names; those without a name are left out."""
    for domain in sorted(path.name for path in root.iterdir()):
        for old, name in names.items():
            shutil.copytree(root / domain / old, new / domain / name)
    return new


class TestClasses:
    def other(self, images, root, *more):
        """The accuracy by domain on other data, of which only the place is given."""
        overrides = ["data=folders", f"data.root={root}", "data.num_workers=0", *more]
        return {row.domain: row for row in evaluate.evaluate(images / "run", overrides=overrides)}

    @pytest.mark.parametrize(
        "names",
        [
            {"cat": "\u200bcat", "dog": "dog"},  # sorted after "dog"
            {"cat": "cat\u00a0", "dog": " dog"},
            {"cat": "\u2060cat", "dog": "do\u00adg"},
        ],
    )
    def test_names_that_look_the_same_match_in_any_order(self, images, tmp_path, names):
        expected = self.other(images, images / "pets")
        assert 0 < expected["oil"].accuracy < 1
        root = move_classes(images / "pets", tmp_path / "new", names)
        found = self.other(images, root)
        assert {n: row.accuracy for n, row in found.items()} == pytest.approx(
            {n: row.accuracy for n, row in expected.items()}
        )

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ({"cat": "Cat", "dog": "dog"}, "also has 'Cat' (did you mean 'cat'?). Classes"),
            ({"cat": "00", "dog": "01"}, "also has '00', '01'. Classes are matched by name"),
            ({"dog": "zebra"}, "also has 'zebra'. Classes"),
            ({"dog": "cats"}, "also has 'cats' (did you mean 'cat'?)"),
        ],
    )
    def test_other_names_are_refused(self, images, tmp_path, names, message):
        root = move_classes(images / "pets", tmp_path / "new", names)
        with pytest.raises(ValueError, match="model's 2 classes are 'cat', 'dog'") as error:
            self.other(images, root)
        assert message in str(error.value)

    def test_an_extra_class_of_one_domain(self, images, tmp_path):
        root = shutil.copytree(images / "pets", tmp_path / "new")
        (root / "ink" / "cat").rename(root / "ink" / "emu")
        with pytest.raises(ValueError, match="also has 'emu'. Classes"):
            self.other(images, root)
        assert set(self.other(images, root, "data.dataset.domains=[art,oil]")) == {"art", "oil"}

    @pytest.mark.parametrize("label", ["cat", "dog"])
    def test_data_that_lack_a_class(self, images, tmp_path, label):
        root = move_classes(images / "pets", tmp_path / "pets", {label: label})
        model = evaluate.load_model(images / "run")
        found = self.other(images, root)
        for domain, row in found.items():
            predicted = model.predict(root / domain)
            right = sum(entry.label == label for entry in predicted)
            assert row.samples == len(predicted) == 15
            assert row.accuracy == pytest.approx(right / 15, abs=1e-6)
            assert row.part == ("all" if domain == "oil" else "all (source)")
        (own,) = evaluate.evaluate(images / "run", overrides=[f"data.root={root}"])
        assert (own.domain, own.part, own.samples) == ("oil", "test", 12)

    def test_a_list(self, images, tmp_path):
        paths = sorted((images / "pets/oil/dog").iterdir())
        rows = "".join(f"{path}, dog ,fog\n" for path in paths)
        (tmp_path / "list.csv").write_text(f"path,label,domain\n{rows}")
        words = ["data=table", f"data.dataset.file={tmp_path / 'list.csv'}", "data.num_workers=0"]
        (row,) = evaluate.evaluate(images / "run", overrides=words)
        model = evaluate.load_model(images / "run")
        right = sum(entry.label == "dog" for entry in model.predict(paths))
        assert row.accuracy == pytest.approx(right / 15, abs=1e-6)

    def test_the_same_digits_under_other_numbers(self, finished, tmp_path):
        """What is not named has the names 0, 1, and so on, as digits have."""
        assert evaluate.load_model(finished).classes == list(map(str, range(10)))
        assert results(finished)["domains"] == ["0", "15", "30", "45", "60", "75"]
        with pytest.raises(ValueError, match="also has '0 to 4', '5 to 9'"):
            evaluate.evaluate(finished, overrides=["data=digits", "data.dataset.shift=colour"])


class TestInputs:
    def test_image_size_of_the_run_unless_another_is_given(self, images):
        other = ["data=folders", f"data.root={images / 'pets'}", "data.num_workers=0"]
        assert evaluate.evaluate(images / "run", overrides=other)
        for place in (0, 3):
            words = list(other)
            words.insert(place, "data.dataset.image_size=9")
            with pytest.raises(ValueError, match=r"\(3, 8, 8\), but .* are \(3, 9, 9\)"):
                evaluate.evaluate(images / "run", overrides=words)

    @pytest.mark.slow
    @pytest.mark.parametrize("as_uint8", [True, False])
    def test_normalization_of_the_run(self, images, tmp_path, monkeypatch, as_uint8):
        """A featurizer with a normalization of its own, which only integers get."""
        own = (0.5, 0.25, 0.4), (0.5, 0.5, 0.125)
        monkeypatch.setattr(backbones.torchvision, "_IMAGENET", own)
        words = ["data=folders", f"data.root={images / 'pets'}", "backbone=resnet18"]
        words += [*IMAGE_SETTINGS, "data.batch_size=8", f"data.dataset.as_uint8={as_uint8}"]
        folder = run(tmp_path / "run", *SHORT, *words)
        model = evaluate.load_model(folder)
        expected = own if as_uint8 else (IMAGENET_MEAN, IMAGENET_STD)
        assert (tuple(model.preprocess.mean), tuple(model.preprocess.std)) == expected
        again = [*words[:2], "data.num_workers=0"]
        for row in evaluate.evaluate(folder, overrides=again):
            found = model.predict(images / "pets" / row.domain)
            right = sum(entry.label == Path(entry.source).parent.name for entry in found)
            assert row.accuracy == pytest.approx(right / 30, abs=1e-6)


class TestCommand:
    def test_table(self, finished, capsys):
        assert evaluate.main([str(finished), "--selection", "oracle", "--device", "cpu"]) == 0
        chosen = results(finished)["selections"]["oracle"]
        output = capsys.readouterr().out
        assert "oracle" in output
        row = next(line for line in output.splitlines() if "│ 45" in line)
        assert f"{chosen['test_acc']:.1%}" in row
        assert "240" in row
        assert "mean" not in output

    def test_several_runs_and_overrides_anywhere(self, finished, capsys):
        words = [str(finished), "--selection", "swad", "data=digits", str(finished)]
        words += ["data.dataset.shift=style"]
        assert evaluate.main(words) == 0
        output = capsys.readouterr().out
        assert output.count("striped") == 2
        assert output.count("│ mean") == 2

    def test_json(self, finished, capsys):
        assert evaluate.main([str(finished), "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        (row,) = evaluate.evaluate(finished)
        assert printed["selection"] == "training_domain_validation"
        assert printed["accuracies"] == [row._asdict()]

    def test_one_bad_run_does_not_stop_the_others(self, finished, capsys):
        assert evaluate.main(["nowhere", str(finished)]) == 1
        printed = capsys.readouterr()
        assert "240" in printed.out
        assert printed.err.count("gga-eval:") == 1

    @pytest.mark.slow
    def test_quiet_in_a_process_of_its_own(self, finished, tmp_path):
        command = [
            sys.executable,
            "-m",
            "gga_lightning.experiments.evaluate",
            str(finished),
            "--json",
        ]
        command += ["data=digits"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(json.loads(done.stdout)["accuracies"]) == 6


def test_groups_seen_in_training_are_a_part_of_their_own(tmp_path, capsys):
    small = ("data=emoji", "backbone=mnist_cnn", "data.dataset.image_size=16")
    small += ("data.dataset.domains=[noto,openmoji,emojione-mono]", "data.steps_per_epoch=4")
    folder = run(tmp_path / "run", *SHORT, *small)
    chosen = results(folder)["selections"]["training_domain_validation"]
    new, seen = evaluate.evaluate(folder)
    assert (new.part, new.samples, seen.part, seen.samples) == ("test", 147, "seen", 217)
    assert new.accuracy == pytest.approx(chosen["test_acc"], abs=1e-6)
    assert seen.accuracy == pytest.approx(chosen["oracle_acc"], abs=1e-6)
    capsys.readouterr()
    assert evaluate.main([str(folder)]) == 0
    assert "mean" not in capsys.readouterr().out


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--selection=best"], "`selection` must be one that "),
            (["--selection=best"], "training_domain_validation, oracle, last, swad, got 'best'."),
            (
                ["data=toy"],
                "classes than the model, but 'toy' also has 'negative', 'positive'. Classes",
            ),
            (
                ["data=digits", "data.dataset.shift=shortcut"],
                "model's shape, (1, 8, 8), but those of 'digits-s",
            ),
            (["data=foldrs"], "there is no option `data=foldrs`. Did you mean `folders`?"),
            (["data=folders"], "`data.root` must be given: data.root=DIR, a folder that"),
            (["data.dataset.shift=style"], "`test_domain` must be one of ['plain', "),
            (["data.dataset.shft=style"], "`data.dataset.shft`. Did you mean `shift`?"),
            (["trainer.max_steps=1"], "must be of the data, as all else is the run's: `data=...`"),
            (["database=3"], "or `data.NAME=...`, got 'database=3'."),
        ],
    )
    def test_in_one_line_that_says_what_to_do(self, finished, capsys, words, message):
        assert evaluate.main([str(finished), *words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("gga-eval: ")
        assert message in line

    def test_no_run(self, capsys, tmp_path):
        assert evaluate.main([str(tmp_path)]) == 1
        assert f".hydra/config.yaml, got {str(tmp_path)!r}" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            evaluate.main(["data=toy"])
        assert "at least one RUN" in capsys.readouterr().err

    def test_no_checkpoints(self, tmp_path):
        folder = run(tmp_path / "run", *SHORT, "data=toy", "callbacks=none")
        with pytest.raises(ValueError, match="none at all.*not with callbacks=none"):
            evaluate.load_model(folder)

    def test_no_averaged_weights(self, tmp_path):
        folder = run(tmp_path / "run", *SHORT, "data=toy")
        with pytest.raises(ValueError, match="validation, oracle, last, got 'swad'"):
            evaluate.load_model(folder, "swad")

    def test_a_checkpoint_of_another_step(self, finished, tmp_path):
        """As where `callbacks.checkpoint.monitor` is another."""
        folder = shutil.copytree(finished, tmp_path / "run")
        (path,) = (folder / "checkpoints").glob("oracle-*")
        torch.save(torch.load(path, weights_only=True) | {"global_step": 5}, path)
        with pytest.raises(ValueError, match=r"of step 21, which .* but oracle-21.ckpt .* step 5:"):
            evaluate.load_model(folder, "oracle")

    def test_whole_on_request(self, finished, monkeypatch):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        with pytest.raises(ValueError, match="10 classes"):
            evaluate.main([str(finished), "data=toy"])


def test_whole_domains_are_not_split():
    data = evaluate.WholeDomains(Toy(), eval_batch_size=4, num_workers=0, batch_size=3)
    loaders = data.test_dataloader()
    assert list(loaders) == ["all/centre", "all/right", "all/left"]
    assert sum(len(targets) for _, targets in loaders["all/left"]) == 1250
