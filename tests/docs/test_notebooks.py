"""The notebooks are stored executed, and `.ci/notebooks` sees what changes in their outputs."""

import importlib.machinery
import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("nbclient")
    loader = importlib.machinery.SourceFileLoader("ci_notebooks", str(ROOT / ".ci" / "notebooks"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("stored", "found", "same"),
    [
        ("loss 1.00", "loss 1.04", True),
        ("loss 1.00", "loss 1.06", False),
        ("gain +0.01", "gain 0.02", True),  # one unit of the last digit
        ("error 1.0e-05", "error 9.9e-06", True),
        ("3 runs", "4 runs", False),
        ("erm  80.0", "erm   80.1", True),
        ("erm 80.0", "coral 80.0", False),
        ("erm 80.0", "erm 80.0 80.0", False),
    ],
)
def test_words_and_integers_are_equal_and_decimals_close(script, stored, found, same):
    assert script.equal(stored, found) is same


def notebook_with(script, text, *tags):
    make = script.nbformat.v4
    output = make.new_output("stream", text=text)
    cell = make.new_code_cell("print()", outputs=[output], metadata={"tags": list(tags)})
    return make.new_notebook(cells=[cell])


def test_other_text_is_reported_unless_the_cell_varies(script):
    def found(*tags):
        old, new = (notebook_with(script, text, *tags) for text in ("loss 1.0", "loss 2.0"))
        return list(script.differences(old, new))

    assert len(found()) == 1
    assert not found("varies")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_executed(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert not re.search(r"/(tmp|home|root|work)/", json.dumps(outputs))
    assert [c for c in cells if "## What to conclude" in "".join(c["source"])]
