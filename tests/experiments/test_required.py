import itertools
import sys

import pytest
from hydra import compose, initialize_config_dir

from gga_lightning.data.cli import DATASETS
from gga_lightning.experiments import train
from gga_lightning.experiments.required import require_data
from tests.helpers import mostly_slow

FOLDERS = "`data.root` must be given: data.root=DIR, a folder that holds your images as DIR/domain"
TABLE = "`data.dataset.file` must be given: data.dataset.file=LIST.csv, a CSV file with the columns"
FACTS = {kind.facts.key: kind.facts for kind in DATASETS}


def composed(*overrides):
    with initialize_config_dir(train.config_directory(), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.mark.parametrize(
    ("key", "root"),
    mostly_slow(
        list(itertools.product(FACTS, ["", "data.root=null"])),
        *((key, "") for key in FACTS),
        ("pacs", "data.root=null"),
    ),
)
def test_benchmarks_need_a_root(key, root):
    facts = FACTS[key]
    with pytest.raises(ValueError, match="`data.root` must be given") as caught:
        train.make_data(composed(f"data={key}", *filter(None, [root])))
    said = str(caught.value)
    assert f"data.root=DIR, where {facts.title} is in DIR/{facts.folder}." in said
    assert f"`gga-data download {key} --root DIR`" in said


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=folders"], FOLDERS),
        (["data=folders", "data.root=null"], "`data.root` must be given, got null: data.root=DIR"),
        (["data=table"], TABLE),
        (["data=toy", "+data.dataset.size=???"], "`data.dataset.size` must be given: data.dat"),
    ],
)
def test_other_data(overrides, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        require_data(composed(*overrides))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("overrides", [["data=table", "data.dataset.file=x"], ["data=digits"]])
def test_what_is_given_is_enough(overrides):
    require_data(composed(*overrides))


@pytest.mark.parametrize("more", [(), ("-m", "seed=0,1"), ("-m", "data.test_domain=all")])
def test_is_one_line_of_the_command(monkeypatch, tmp_path, capsys, more):
    words = ["gga-train", *more, "data=folders", f"hydra.run.dir={tmp_path / 'run'}"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit):
        train.main()
    assert f"gga-train: {FOLDERS}/class/image.\n" in capsys.readouterr().err
