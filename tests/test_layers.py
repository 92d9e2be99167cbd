"""A room imports only from lower floors, and the lowest know torch alone."""

import ast
from pathlib import Path

import pytest

import gga_lightning

ROOT = Path(gga_lightning.__file__).parent
ALL = "everything"
LIBRARIES = {
    "gradients": {"torch"},
    "domains": {"torch"},
    "score": {"torch"},
    "evaluation": {"torch"},
    "ascent": {"torch"},
    "parallel": {"torch"},
    "proposals": {"torch"},
    "search": {"torch"},
}
ROOMS = {
    "gradients": set(),
    "domains": set(),
    "plots": set(),
    "_rewind": set(),
    "backbones": set(),
    "score": {"gradients"},
    "evaluation": {"gradients", "score"},
    "ascent": {"gradients", "score", "evaluation"},
    "parallel": {"gradients", "score", "evaluation"},
    "proposals": set(),
    "search": {"gradients", "score", "evaluation", "ascent", "parallel", "proposals"},
    "probing": {"gradients", "domains", "evaluation", "_rewind"},
    "callbacks": {"gradients", "domains", "score", "proposals", "search", "probing"},
    "algorithms": {"backbones", "domains"},
    "data": {"domains"},
    "selection": set(),
    "configuration": set(),
    "identity": set(),
    "jobs": set(),
    "sweeps": {"data", "identity"},
    "report": {"plots"},
    "train": ALL,
    "evaluate": ALL,
    "__init__": {"callbacks", "proposals", "search"},
}
STANDARD = {"__future__", *__import__("sys").stdlib_module_names}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_down(path):
    room = path.parts[0].removesuffix(".py")
    for name in imports(ROOT / path):
        top, *inner = name.split(".")
        if top == "gga_lightning" and ROOMS[room] != ALL:
            assert inner[0] == room or inner[0] in ROOMS[room], f"{path} imports {name}"
        elif room in LIBRARIES and top != "gga_lightning":
            assert top in LIBRARIES[room] | STANDARD, f"{path} imports {name}"
