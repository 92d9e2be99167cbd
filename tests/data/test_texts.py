import math
import zlib

import pytest
import torch
from sklearn.feature_extraction.text import TfidfTransformer

from gga_lightning.algorithms import ERM, IGA, Mixup
from gga_lightning.backbones import MLP, TextTransformer
from gga_lightning.data import DomainDataModule, Texts
from gga_lightning.data.text_encoding import TextEncoding, words
from tests.helpers import trainer

ROWS = (
    '"Great phone, truly great!",good,phones',
    "Dull film,bad,films",
    "A great film,good,films",
    "Broke at once,bad,phones",
)


@pytest.fixture
def write(tmp_path):
    def write(*rows, header="text,label,domain"):
        file = tmp_path / "reviews.csv"
        file.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
        return file

    return write


class TestWords:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("It's GOOD :)", ["it's", "good", ":", ")"]),
            ("  50% off\n", ["50", "%", "off"]),
            ("Ça va?", ["ça", "va", "?"]),
            ("\t ", []),
        ],
    )
    def test_splits(self, text, found):
        assert words(text) == found


class TestTokens:
    def test_are_padded_and_cut(self):
        encode = TextEncoding(size=50, length=4)
        short, long = encode("great"), encode("great film it was")
        assert short.tolist() == [1, int(long[1]), 0, 0]
        assert long.shape == (4,)
        assert long[0] == 1
        assert (long[1:] >= 2).all()
        assert (long < 52).all()

    def test_do_not_depend_on_the_process(self):
        assert TextEncoding(size=1000, length=3)("Great")[1] == zlib.crc32(b"great") % 1000 + 2

    def test_of_texts_without_words(self):
        for text in ("", "  ", "\n"):
            with pytest.raises(ValueError, match="a text must have at least one word, got"):
                TextEncoding(size=10, length=3)(text)
        with pytest.raises(ValueError, match="a text must be a str, got int"):
            TextEncoding(size=10, length=3)(3)

    def test_surrogates(self):
        assert TextEncoding(size=10, length=3)("\ud800 a").shape == (3,)


class TestReading:
    def test_domains_and_classes(self, write):
        data = Texts(write(*ROWS), length=5)
        assert {name: domain.texts for name, domain in data.domains.items()} == {
            "phones": ["Great phone, truly great!", "Broke at once"],
            "films": ["Dull film", "A great film"],
        }
        assert data.classes == ["bad", "good"]
        assert data.domains["films"].targets.tolist() == [0, 1]
        assert data.input_shape == (5,)

    @pytest.mark.parametrize(
        ("row", "problem"),
        [("  ,good,films", "line 6: no words in text"), ("fine,,films", "line 6: no label")],
    )
    def test_rows_that_are_wrong(self, write, row, problem):
        with pytest.raises(ValueError, match=problem):
            Texts(write(*ROWS, row))
        with pytest.warns(UserWarning, match=problem):
            data = Texts(write(*ROWS, row), faulty="leave_out")
        assert sum(map(len, data.domains.values())) == 4

    def test_arguments_out_of_range(self, write):
        file = write(*ROWS)
        for settings, problem in (
            ({"inputs": "bytes"}, "`inputs` must be"),
            ({"size": 1}, "`size` and `length` must be at least 2"),
            ({"length": 1}, "`size` and `length` must be at least 2"),
            ({"weights": [1.0]}, "`weights` must be 16384 numbers, with `inputs='tfidf'`, got 1"),
            ({"text": "label"}, "must be different columns"),
            ({"text": "review"}, "columns label, domain and review"),
            ({"task": "segmentation"}, "`task` must be"),
        ):
            with pytest.raises(ValueError, match=problem):
                Texts(file, **settings)


def many(write, **settings):
    rows = [
        f"{'good' if i % 2 else 'bad'} {'phone' if d else 'film'} {'x' * (i % 3)} w{i},"
        f"{'np'[i % 2]},{'abc'[d]}"
        for d in range(3)
        for i in range(30)
    ]
    return Texts(write(*rows), **settings)


class TestWeights:
    def test_are_scikit_learns_over_the_training_parts(self, write):
        data = many(write, inputs="tfidf", size=64)
        module = DomainDataModule(data, "c")
        encode = TextEncoding(64, None)
        trained = [
            encode.numbers(data.domains[d].texts[i]).bincount(minlength=64)
            for d in "ab"
            for i in module._parts[f"train/{d}"].indices
        ]
        reference = TfidfTransformer().fit(torch.stack(trained).numpy())
        text = data.domains["c"].texts[4]
        counts = encode.numbers(text).bincount(minlength=64)
        wanted = reference.transform(counts[None].numpy()).toarray()[0]
        loaded, _ = next(iter(module.test_dataloader()["test/c"]))
        assert loaded.dtype is torch.float32
        found = module._fitted(text)
        assert torch.allclose(found.double(), torch.from_numpy(wanted).double(), atol=1e-6)
        place = module._parts["test/c"].indices[0]
        assert torch.equal(loaded[0], module._fitted(data.domains["c"].texts[place]))

    def test_are_given(self, write):
        data = many(write, inputs="tfidf", size=64, weights=[1] * 64)
        found = DomainDataModule(data, "c")._fitted("good good film")
        assert found.max() == pytest.approx(2 / math.sqrt(5))


class TestTraining:
    def test_a_linear_model_learns_words(self, write):
        data = DomainDataModule(many(write, inputs="tfidf", size=64), "c", steps_per_epoch=150)
        module = ERM(MLP(data.input_shape, widths=()), 2)
        trainer(max_steps=150, limit_val_batches=0).fit(module, data)
        module.preprocess, module.classes = data._fitted, data.classes
        found = module.predict(["a good thing", "a bad thing"])
        assert [one.label for one in found] == ["p", "n"]

    def test_a_transformer_learns_words(self, write):
        data = DomainDataModule(many(write, size=64, length=6), "c", steps_per_epoch=60)
        module = ERM(TextTransformer(data.input_shape, 64, width=16, layers=1), 2)
        trainer(max_steps=60, limit_val_batches=0).fit(module, data)
        module.preprocess, module.classes = data._fitted, data.classes
        assert module.predict("a good phone").label == "p"
        assert module.predict(["a bad phone", "bad"])[0].label == "n"

    def test_second_derivatives(self, write):
        data = DomainDataModule(many(write, size=64, length=6), "c", batch_size=4)
        module = IGA(TextTransformer(data.input_shape, 64, width=8, layers=1), 2)
        batch = next(iter(data.train_dataloader()))
        module.objective(batch).backward()
        assert module.featurizer.words.weight.grad.isfinite().all()

    def test_mixed_tokens_are_refused(self, write):
        data = DomainDataModule(many(write, size=64, length=6), "c", batch_size=4)
        module = Mixup(TextTransformer(data.input_shape, 64, width=8, layers=1), 2)
        with pytest.raises(ValueError, match="Mixup, need `inputs=tfidf`"):
            module.objective(next(iter(data.train_dataloader())))


def test_predictions_from_a_file(write, tmp_path):
    data = many(write, size=64, length=6)
    module = ERM(TextTransformer((6,), 64, width=8, layers=1), 2)
    module.preprocess = data.eval_transform
    (tmp_path / "new.txt").write_text("good\n\nbad film\n", encoding="utf-8")
    names = [name for name, _ in module.preprocess.items(tmp_path / "new.txt")]
    assert names == [f"{tmp_path / 'new.txt'}:1", f"{tmp_path / 'new.txt'}:3"]
    found = module.predict(tmp_path / "new.txt")
    assert [one.probabilities for one in found] == [
        one.probabilities for one in module.predict(["good", "bad film"])
    ]
