"""Packages import only from lower layers; the lowest know few libraries."""

import ast
import sys
from pathlib import Path

import pytest

import gga_lightning

ROOT = Path(gga_lightning.__file__).parent
ANY = object()

# package or module: (its layer, what it may import of ours, what it may import of others)
LAYERS = {
    "alignment": (1, set(), {"torch"}),
    "backbones": (1, set(), {"torch", "torchvision", "timm", "safetensors", "lightning"}),
    "tasks": (1, set(), {"torch", "torchmetrics"}),
    "algorithms": (
        1,
        {"backbones", "tasks"},
        {"torch", "torchvision", "torchmetrics", "lightning", "torchjd"},
    ),
    "plots": (1, set(), {"matplotlib", "numpy"}),
    "probing": (2, {"alignment"}, {"torch", "lightning", "numpy"}),
    "report": (2, {"plots"}, ANY),
    "callbacks": (3, {"alignment", "probing"}, {"torch", "lightning", "numpy"}),
    "data": (3, {"probing"}, ANY),
    "experiments": (4, ANY, ANY),
    "__init__": (5, {"alignment", "callbacks"}, set()),
}
# Inside data/, from the bottom: what a data set is, the benchmarks, how they are fetched, the
# command.
DATA = ["", "benchmarks", "download", "cli"]

FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def package(path):
    return path.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_down(path):
    own = package(path)
    _, ours, others = LAYERS[own]
    for name in imports(ROOT / path):
        top, *inner = name.split(".")
        if top == "gga_lightning":
            allowed = ours is ANY or inner[0] == own or inner[0] in ours
            assert allowed, f"{path} imports {name}"
        elif others is not ANY and top not in sys.stdlib_module_names:
            assert top in others, f"{path} imports {name}"


def test_the_table_has_every_package_and_no_cycle():
    assert {package(path) for path in FILES} == LAYERS.keys()
    for name, (layer, ours, _) in LAYERS.items():
        if ours is not ANY:
            assert all(LAYERS[other][0] <= layer for other in ours), name
    assert LAYERS["algorithms"][1] == {
        "backbones",
        "tasks",
    }  # within a layer, and not the other way


@pytest.mark.parametrize("path", [p for p in FILES if p.parts[0] == "data"], ids=str)
def test_data_sets_do_not_know_how_they_are_fetched(path):
    def place(parts):
        return next((i for i, name in enumerate(DATA) if parts[1:] and parts[1] == name), 0)

    own = place((path.parts[0], path.parts[1].removesuffix(".py")))
    for name in imports(ROOT / path):
        if name.startswith("gga_lightning.data."):
            assert place(name.split(".")[1:]) <= own, f"{path} imports {name}"


def test_report_does_not_wait_for_torch():
    for path in FILES:
        if package(path) in ("report", "plots"):
            assert not any(name.split(".")[0] == "torch" for name in imports(ROOT / path))
