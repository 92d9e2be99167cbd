import json
import sys
import warnings

import numpy as np
import pytest
import torch

from gga_lightning.data import DomainDataModule, Features, Penguins
from gga_lightning.data.features import RowScaling
from gga_lightning.experiments import evaluate, predict, train

HEADER = "height,width,label,domain"
ROWS = ("1,10,cat,indoors", "2,20,dog,outdoors", "3,40,dog,indoors", "5,20,cat,outdoors")


@pytest.fixture
def write(tmp_path):
    def write(*rows, header=HEADER, name="rows.csv", encoding="utf-8"):
        file = tmp_path / name
        file.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
        return file

    return write


def contents(data):
    return {
        name: [(x.tolist(), data.classes[y]) for x, y in domain]
        for name, domain in data.domains.items()
    }


EXPECTED = {
    "indoors": [([1.0, 10.0], "cat"), ([3.0, 40.0], "dog")],
    "outdoors": [([2.0, 20.0], "dog"), ([5.0, 20.0], "cat")],
}


class TestReading:
    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_encodings_and_separators(self, write, encoding, separator):
        rows = [row.replace(",", separator) for row in ROWS]
        file = write(*rows, header=HEADER.replace(",", separator), encoding=encoding)
        data = Features(file)
        assert contents(data) == EXPECTED
        assert (data.name, data.columns, data.input_shape) == ("rows", ["height", "width"], (2,))

    def test_parquet(self, write, tmp_path):
        parquet = pytest.importorskip("pyarrow.parquet")
        from pyarrow import csv

        parquet.write_table(csv.read_csv(write(*ROWS)), tmp_path / "rows.parquet")
        assert contents(Features(tmp_path / "rows.parquet")) == EXPECTED

    def test_parquet_without_its_reader(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'gga-lightning\[parquet\]'"):
            Features(tmp_path / "rows.parquet")

    def test_columns_are_chosen(self, write):
        data = Features(write(*ROWS), columns=["width"])
        assert data.input_shape == (1,)
        assert data.domains["indoors"][1][0].tolist() == [40.0]

    def test_columns_that_are_no_numbers_are_named(self, write):
        file = write("1,red,cat,a,", "2,blue,dog,b,", header="height,colour,label,domain,none")
        with pytest.warns(
            UserWarning, match=r"no inputs.* colour \('red' in line 2\), none \(no v"
        ):
            data = Features(file)
        assert data.columns == ["height"]

    @pytest.mark.parametrize(
        ("rows", "header", "problem"),
        [
            (("1,x,cat",), "height,width,label", "columns label and domain"),
            (("red,cat,a",), "colour,label,domain", "a column of numbers beside label and domain"),
            ((), HEADER, "a row that can be used, got none in '.*rows.csv'\\."),
            (("1,2,cat,a",), "height,label,label,domain", "one column label"),
        ],
    )
    def test_files_that_are_refused(self, write, rows, header, problem):
        with pytest.raises(ValueError, match=problem):
            Features(write(*rows, header=header))

    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            ("1,,cat,a", "line 6: no width"),
            ("1,NaN,cat,a", "line 6: no width"),
            ("1,inf,cat,a", "line 6: width is 'inf', not a finite number"),
            ("1,1e999,cat,a", "line 6: width is '1e999', not a finite number"),
            ("1,2,,a", "line 6: no label"),
            ("1,2,cat,NA", "line 6: no domain"),
            ("1,2,cat", "line 6: no domain"),
            ("1,2,cat,a,5", "line 6: 5 cells, and the header has 4"),
        ],
    )
    def test_rows_that_are_wrong(self, write, row, problem):
        columns = ["height", "width"]
        with pytest.raises(ValueError, match=f"1 problem in .*rows.csv.*: {problem}"):
            Features(write(*ROWS, row), columns=columns)
        with pytest.warns(UserWarning, match=f"Left out because of 1 problem in .*: {problem}"):
            data = Features(write(*ROWS, row), columns=columns, faulty="leave_out")
        assert contents(data) == EXPECTED

    def test_arguments_out_of_range(self, write):
        file = write(*ROWS)
        with pytest.raises(ValueError, match="`task` must be"):
            Features(file, task="segmentation")
        with pytest.raises(ValueError, match="`label` must name one column"):
            Features(file, label=["label", "height"])
        with pytest.raises(ValueError, match="must be different columns"):
            Features(file, label="domain")
        with pytest.raises(ValueError, match="`faulty` must be"):
            Features(file, faulty="ignore")
        with pytest.raises(ValueError, match="must be a CSV file"):
            Features("nothing.csv")


class TestTargets:
    def test_numbers(self, write):
        one = Features(write(*ROWS), label="width", task="regression", columns=["height"])
        assert one.domains["indoors"].tensors[1].tolist() == [10.0, 40.0]
        assert (one.classes, one.num_classes) == (["width"], 1)
        two = Features(write("1,2,3,a"), label=["height", "width"], task="regression")
        assert two.domains["a"].tensors[1].tolist() == [[1.0, 2.0]]

    def test_numbers_that_are_none(self, write):
        with pytest.raises(ValueError, match="line 2: label is 'cat', not a number"):
            Features(write(*ROWS), task="regression")

    def test_several_labels(self, write):
        rows = ("0.5,1,0,a", "0.1,0,1,b")
        header = "size,red,round,domain"
        data = Features(write(*rows, header=header), label=["red", "round"], task="multi_label")
        assert data.domains["a"].tensors[1].tolist() == [[1, 0]]
        assert data.classes == ["red", "round"]
        with pytest.raises(ValueError, match="line 2: round is 2, neither 0 nor 1"):
            Features(write("0.5,1,2,a", header=header), label=["red", "round"], task="multi_label")


def many(write, **settings):
    random = np.random.default_rng(0)
    rows = [
        f"{random.normal(5 * d, 1 + d):.6f},{random.normal(1e6, 1):.6f},7,{'xy'[i % 2]},{'abc'[d]}"
        for d in range(3)
        for i in range(40)
    ]
    return Features(write(*rows, header="one,two,constant,label,domain"), **settings)


class TestScaling:
    def test_is_that_of_the_training_parts_of_the_sources(self, write):
        data = many(write)
        module = DomainDataModule(data, "c", batch_size=20, steps_per_epoch=300)
        rows = torch.cat(
            [
                data.domains[d].tensors[0][torch.as_tensor(module._parts[f"train/{d}"].indices)]
                for d in "ab"
            ]
        )
        raw, _ = data.domains["c"][3]
        wanted = (raw - rows.mean(0)) / torch.tensor([*rows.std(0, correction=0)[:2], 1.0])
        found = module._fitted(raw)
        assert found.dtype is torch.float32
        assert torch.allclose(found.double(), wanted, atol=1e-6)
        # what is loaded has it
        batches = list(module.train_dataloader())
        drawn = torch.cat([inputs for batch in batches for inputs, _ in batch.values()])
        assert torch.allclose(drawn.mean(0), torch.zeros(3), atol=0.05)
        assert torch.allclose(drawn.std(0)[:2], torch.ones(2), atol=0.05)
        held_out = torch.cat([x for x, _ in module.test_dataloader()["test/c"]])
        assert held_out[:, 0].mean() > 1

    def test_is_untouched_by_rows_that_are_not_trained_on(self, write):
        first = DomainDataModule(many(write), "c")
        changed = many(write)
        changed.domains["c"].tensors[0].mul_(100)
        held = torch.as_tensor(first._parts["val/a"].indices)
        changed.domains["a"].tensors[0][held] = 1e9
        assert DomainDataModule(changed, "c")._fitted == first._fitted

    def test_two_modules_of_one_data_set_do_not_disturb_each_other(self, write):
        data = many(write)
        first = DomainDataModule(data, "c")
        before = first._fitted
        assert DomainDataModule(data, "a")._fitted != before
        assert first._fitted is before

    @pytest.mark.parametrize("workers", [0, 1])
    def test_workers(self, write, workers):
        module = DomainDataModule(many(write), "c", batch_size=4, num_workers=workers)
        batch = next(iter(module.train_dataloader()))
        assert batch["a"][0].abs().max() < 10

    def test_is_given(self, write):
        scaling = {"mean": [0.0, 1.0, 2.0], "std": [1.0, 2.0, 4.0]}
        module = DomainDataModule(many(write, scaling=scaling), "c")
        assert module.preprocessing(None) == {
            "kind": "row", "columns": ["one", "two", "constant"], **scaling,
        }  # fmt: skip
        with pytest.raises(ValueError, match="`mean` and `std` must be a number for each of the 3"):
            many(write, scaling={"mean": [0.0], "std": [1.0]})
        with pytest.raises(ValueError, match="those of `std` positive"):
            many(write, scaling={"mean": [0.0] * 3, "std": [1.0, 0.0, 1.0]})

    def test_rows_that_cannot_be_scaled(self):
        scaling = RowScaling(("height",), (0.0,), (1.0,))
        with pytest.raises(ValueError, match=r"column 'height' must be a number, got columns \['w"):
            scaling({"width": 1})
        with pytest.raises(ValueError, match="column 'height' must be a number, got 'tall'"):
            scaling({"height": "tall"})
        for row in (torch.zeros(2), 3.0):
            with pytest.raises(ValueError, match="a row must map the columns"):
                scaling(row)


class TestGroups:
    def test_split_whole_groups(self, write):
        rows = [f"{i},{i % 2},{'ab'[i % 2]},p{i // 4}" for i in range(80)]
        file = write(*rows, header="one,label,domain,patient")
        data = Features(file, group="patient")
        assert data.columns == ["one"]
        module = DomainDataModule(data, "b", holdout_fraction=0.4)
        trained = {data.domains["a"].groups[i] for i in module._parts["train/a"].indices}
        held = {data.domains["a"].groups[i] for i in module._parts["val/a"].indices}
        assert trained
        assert held
        assert not trained & held

    def test_a_row_without_a_group(self, write):
        with pytest.raises(ValueError, match="line 3: no patient"):
            Features(
                write("1,x,a,p1", "2,y,b,", header="one,label,domain,patient"), group="patient"
            )


class TestPenguins:
    def test_facts(self):
        data = Penguins()
        sizes = {name: len(domain) for name, domain in data.domains.items()}
        assert sizes == {"Adelie": 146, "Gentoo": 119, "Chinstrap": 68}
        assert data.classes == ["female", "male"]
        for domain in data.domains.values():
            mass = domain.tensors[0][:, data.columns.index("body_mass_g")]
            female = domain.tensors[1] == 0
            assert mass[female].mean() < mass[~female].mean()
            assert 0.45 < female.double().mean() < 0.55


def test_from_training_to_prediction(monkeypatch, tmp_path, capsys):
    """A run on a table is evaluated on other data and predicts from a file."""
    monkeypatch.chdir(tmp_path)
    words = (
        "data=penguins", "annealing=gga_guided", "annealing.start_step=2", "annealing.end_step=5",
        "trainer.max_steps=100", "callbacks=checkpoint", "backbone.widths=[]", "hydra.run.dir=run",
    )  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["gga-train", *words])
    train.main()
    capsys.readouterr()
    result = json.loads((tmp_path / "run/result.json").read_text())
    names = result["preprocess"]["columns"]
    [score] = evaluate.evaluate(tmp_path / "run", device="cpu")
    assert score.accuracy == result["selections"]["training_domain_validation"]["test_acc"]

    # other data: columns in another order, more of them, and a class less
    table = Penguins()
    kept = table.domains["Adelie"]
    rows = [
        ",".join(["male", "there", "9", *(str(value) for value in x.tolist()[::-1])])
        for x, y in kept
        if y == 1
    ]
    header = ",".join(["sex", "site", "extra", *names[::-1]])
    (tmp_path / "new.csv").write_text("\n".join([header, *rows, ""]))
    overrides = [
        "data=features", "data.dataset.file=new.csv", "data.dataset.label=sex",
        "data.dataset.domain=site",
    ]  # fmt: skip
    [other] = evaluate.evaluate(tmp_path / "run", overrides=overrides, device="cpu")
    model = evaluate.load_model(tmp_path / "run")
    raw = kept.tensors[0][kept.tensors[1] == 1]
    predicted = model.predict(raw)
    assert other.samples == len(rows) == len(predicted)
    share = np.mean([found.label == "male" for found in predicted])
    assert other.accuracy == pytest.approx(share)

    # from the file, from a mapping and from the numbers: the same
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.predict(tmp_path / "new.csv") == predicted
    assert model.predict(dict(zip(names, raw[0].tolist(), strict=True))) == predicted[0]
    (tmp_path / "new.csv").write_text("\n".join([header, *rows[:2], rows[2] + "x", ""]))
    assert predict.main(["run", "new.csv", "--format", "json"]) == 1
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["file"] for line in lines] == ["new.csv:2", "new.csv:3"]
    assert lines[1]["label"] == predicted[1].label
    assert "gga-predict: new.csv:4: column 'bill_length_mm' must be a number" in printed.err


def test_the_runs_own_data_elsewhere_are_scaled_as_in_the_run(write, monkeypatch, tmp_path):
    values = np.random.default_rng(0).normal(0, 1, 120)
    rows = [(x, "ny"[int(x > 0)], "abc"[n % 3]) for n, x in enumerate(values)]
    # other values in the sources, which must not change the inputs of the held-out domain
    moved = [(x + 900 * (domain != "c"), label, domain) for x, label, domain in rows]
    for name, lines in (("rows.csv", rows), ("moved.csv", moved)):
        write(*(f"{x},{y},{d}" for x, y, d in lines), header="one,label,domain", name=name)
    words = (
        "data=features", "data.dataset.file=rows.csv", "annealing=none", "trainer.max_steps=100",
        "algorithm.optimizer.lr=0.05", "callbacks=checkpoint", "hydra.run.dir=run",
    )  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["gga-train", *words])
    train.main()
    [before] = evaluate.evaluate(tmp_path / "run", device="cpu")
    assert before.accuracy > 0.9
    other = ["data.dataset.file=moved.csv"]
    assert evaluate.evaluate(tmp_path / "run", overrides=other, device="cpu") == [before]
