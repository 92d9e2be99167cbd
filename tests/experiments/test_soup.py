import json
import shutil

import pytest
import torch

from gga_lightning.experiments import evaluate, soup
from gga_lightning.report.cli import main as report
from tests.experiments.test_evaluate import results, run

TOY = ("data=toy", "annealing=none", "callbacks=checkpoint", "data.steps_per_epoch=20")
TOY += ("algorithm.optimizer.lr=0.01", "data.split_seed=0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs that began at the same weights and saw other batches."""
    root = tmp_path_factory.mktemp("runs")
    return [
        run(root / f"run{seed}", *TOY, "trainer.max_steps=60", f"data.seed={seed}")
        for seed in range(3)
    ]


def state(folder):
    [path] = (folder / "checkpoints").glob("training_domain_validation-*.ckpt")
    return torch.load(path, weights_only=True)["state_dict"]


def test_uniform(runs, tmp_path):
    found = soup.soup(runs, tmp_path / "soup")
    for name, value in state(tmp_path / "soup").items():
        parts = [state(folder)[name] for folder in runs]
        expected = sum(part.double() for part in parts) / 3
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-7)
    own = [
        results(folder)["selections"]["training_domain_validation"]["val_acc"] for folder in runs
    ]
    assert found["selections"]["training_domain_validation"]["val_acc"] >= sum(own) / 3
    assert found["soup"]["weights"] == [pytest.approx(1 / 3)] * 3
    assert found["soup"]["validation"] == own
    assert results(tmp_path / "soup") == json.loads(json.dumps(found))


def test_two_models_with_weights(runs, tmp_path):
    soup.soup(runs[:2], tmp_path / "soup", weights=[3.0, 1.0])
    one, other = state(runs[0]), state(runs[1])
    for name, value in state(tmp_path / "soup").items():
        torch.testing.assert_close(value, 0.75 * one[name] + 0.25 * other[name])


def test_greedy_is_no_worse_than_the_best(runs, tmp_path):
    found = soup.soup(runs, tmp_path / "soup", greedy=True)
    kept = [weight > 0 for weight in found["soup"]["weights"]]
    best = max(found["soup"]["validation"])
    assert found["selections"]["training_domain_validation"]["val_acc"] >= best - 1e-6
    assert kept[found["soup"]["validation"].index(best)]
    assert sum(found["soup"]["weights"]) == pytest.approx(1.0)


def test_greedy_leaves_out_what_harms(runs, tmp_path):
    spoiled = tmp_path / "spoiled"
    shutil.copytree(runs[0], spoiled)
    [path] = (spoiled / "checkpoints").glob("training_domain_validation-*.ckpt")
    saved = torch.load(path, weights_only=True)
    for value in saved["state_dict"].values():
        value.copy_(torch.randn_like(value) * 20)
    torch.save(saved, path)
    result = results(spoiled)
    result["selections"]["training_domain_validation"]["val_acc"] = 0.1
    (spoiled / "result.json").write_text(json.dumps(result))
    found = soup.soup([spoiled, *runs[1:]], tmp_path / "soup", greedy=True)
    assert found["soup"]["weights"][0] == 0.0


def test_the_new_folder_is_a_run(runs, tmp_path, capsys):
    found = soup.soup(runs, tmp_path / "soup")
    [accuracy] = evaluate.evaluate(tmp_path / "soup")
    assert accuracy.accuracy == pytest.approx(found["selections"]["last"]["test_acc"])
    assert evaluate.load_model(tmp_path / "soup").classes == found["classes"]
    assert report([*map(str, runs), str(tmp_path / "soup")]) == 0
    out = capsys.readouterr().out
    assert all(label in out for label in ("soup=uniform", "seed=1", "seed=2"))


def test_results_name_the_seed_of_the_splits(runs, tmp_path):
    assert [results(folder)["split_seed"] for folder in runs] == [0, 0, 0]
    other = run(tmp_path / "other", *TOY[:-1], "trainer.max_steps=20", "data.seed=4")
    assert results(other)["split_seed"] == 4  # which the data module takes in place of it


def test_averages():
    states = [{"w": torch.tensor([x]), "n": torch.tensor(int(x))} for x in (1.0, 3.0)]
    found = soup.average(states, [0.0, 1.0])
    assert found == {"w": torch.tensor([3.0]), "n": torch.tensor(3)}


class TestRefused:
    def refused(self, message, folders, out, **settings):
        with pytest.raises(ValueError, match=message):
            soup.soup(folders, out, **settings)
        assert not out.exists()

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (("data.split_seed=5",), "has other splits.*one `data.split_seed`.*: 5 instead of 0"),
            (("data.test_domain=0",), "holds out another domain"),
            (("backbone.widths=[8]",), "its model is another one.*Average runs of one backbone"),
        ],
    )
    def test_runs_that_do_not_match(self, overrides, message, runs, tmp_path):
        other = run(tmp_path / "other", *TOY, "trainer.max_steps=20", *overrides)
        self.refused(message, [runs[0], other], tmp_path / "soup")

    def test_another_order_of_classes(self, runs, tmp_path):
        shutil.copytree(runs[1], tmp_path / "other")
        result = results(tmp_path / "other")
        result["classes"].reverse()
        (tmp_path / "other" / "result.json").write_text(json.dumps(result))
        self.refused("in another order", [runs[0], tmp_path / "other"], tmp_path / "soup")

    def test_an_unfinished_run(self, runs, tmp_path):
        shutil.copytree(runs[1], tmp_path / "other")
        (tmp_path / "other" / "result.json").unlink()
        self.refused("must be a finished run", [runs[0], tmp_path / "other"], tmp_path / "soup")

    @pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
    def test_weights(self, weights, runs, tmp_path):
        self.refused("`weights` must be 2 finite", runs[:2], tmp_path / "soup", weights=weights)

    def test_weights_and_greedy(self, runs, tmp_path):
        settings = {"weights": [1.0, 1.0], "greedy": True}
        self.refused("got both", runs[:2], tmp_path / "soup", **settings)

    def test_one_run(self, runs, tmp_path):
        self.refused("two or more different run folders", [runs[0]], tmp_path / "soup")
        self.refused("two or more different run folders", [runs[0]] * 2, tmp_path / "soup")

    def test_a_folder_with_something_in_it(self, runs):
        with pytest.raises(ValueError, match="`out` must be a new or an empty folder"):
            soup.soup(runs[:2], runs[2])


def test_command(runs, tmp_path, capsys):
    words = [*map(str, runs), "--out", str(tmp_path / "soup"), "--greedy"]
    assert soup.main(words) == 0
    out = capsys.readouterr().out
    assert "The greedy soup of" in out
    assert out.count("validation") >= 4
    assert soup.main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith("gga-soup: `out` must be a new or an empty folder")
    assert error.count("\n") == 1
