import pytest

from gga_lightning.data.benchmarks.benchmark import DatasetError
from gga_lightning.data.benchmarks.sentiment import Sentiment


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = tmp_path / "data/sentiment"
    folder.mkdir(parents=True)
    for name in Sentiment.facts.files:
        lines = ['1_1\t-0.9\tNo, "never".', "1_2\t0\tSo, so", "2_1\t2.5\tYes!", "3_1\t1\t "]
        (folder / name).write_bytes("\r\n".join([*lines, ""]).encode())
    return tmp_path / "data"


def test_classes_are_the_signs_of_the_ratings(root):
    data = Sentiment(root, length=5)
    assert data.classes == ["negative", "positive"]
    assert list(data.domains) == ["products", "films", "editorials", "tweets"]
    films = data.domains["films"]
    assert films.texts == ['No, "never".', "Yes!"]
    assert films.targets.tolist() == [0, 1]
    assert films.groups == ["films-1", "films-2"]


def test_ratings_are_the_targets_of_regression(root):
    data = Sentiment(root, task="regression", inputs="tfidf", size=16)
    assert data.domains["tweets"].targets.tolist() == pytest.approx([-0.9, 0.0, 2.5])
    assert (data.classes, data.input_shape) == (["rating"], (16,))


@pytest.mark.parametrize("line", ["1_1 0.5 text", "1_1\tmuch\ttext", "1_1\t0.5"])
def test_files_that_are_damaged(root, line):
    file = root / "sentiment" / Sentiment.facts.files[1]
    file.write_text(f"1_1\t1\tGood\n{line}\n")
    with pytest.raises(DatasetError, match=f"{file.name}, line 2 must have"):
        Sentiment(root)


def test_without_the_data(tmp_path):
    with pytest.raises(DatasetError, match="gga-data download sentiment --root"):
        Sentiment(tmp_path)
    with pytest.raises(ValueError, match="`task` must be 'classification' or 'regression'"):
        Sentiment(tmp_path, task="multi_label")
