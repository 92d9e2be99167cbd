"""Writes a page for each algorithm and callback, and the API reference, from the docstrings.

A class gets a page because it is in the ``__all__`` of its package. Public names without a page of
their own are documented on the page of their package.
"""

import importlib
import inspect
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from pages import ROOT, block, copy, heading, save, table, toctree
from public import Public, public_names
from settings_pages import describe, options_of
from sphinx.application import Sphinx

import gga_lightning
from gga_lightning.algorithms import DomainGeneralizer

# Packages whose classes of this kind have pages of their own, and what is above the list of them.
FAMILIES: dict[str, tuple[type, str]] = {
    "algorithms": (
        DomainGeneralizer,
        ":doc:`/algorithms` compares them with the published code, and says how they train and "
        "resume. :doc:`/add-an-algorithm` shows how to write one.",
    ),
    "callbacks": (
        Callback,
        ":doc:`/when-to-use-which` compares them. :doc:`/guarantees` says what they leave "
        "unchanged in your training.",
    ),
}


def has_own_page(entry: Public) -> bool:
    """Whether a name is an algorithm or a callback, and no base class."""
    kind = FAMILIES.get(entry.package, (None, ""))[0]
    if kind is None or entry.value is kind or not inspect.isclass(entry.value):
        return False
    package = importlib.import_module(f"gga_lightning.{entry.package}")
    return issubclass(entry.value, kind) and entry.name in package.__all__


def details(entry: Public) -> str:
    """Lets autodoc document a name."""
    if inspect.isclass(entry.value):
        return block("autoclass", entry.path)
    if isinstance(entry.value, dict):  # whose own docstring is that of all dictionaries
        return block("py:data", entry.name, module=entry.path.rpartition(".")[0])
    return block("autofunction" if inspect.isfunction(entry.value) else "autodata", entry.path)


def listing(entries: list[Public]) -> str:
    """Lists names with links and what they are."""
    rows = [(f":py:obj:`{entry.name} <{entry.path}>`", entry.summary) for entry in entries]
    return table(("name", "what it is"), rows, widths="30 70")


def listing_with_options(entries: list[Public]) -> str:
    """Lists algorithms or callbacks with the options of the configuration that set them up."""
    rows = []
    for entry in sorted(entries, key=lambda entry: entry.name.lower()):
        options = ", ".join(f"``{group}={option}``" for group, option in options_of(entry.value))
        rows.append((f":py:obj:`{entry.name} <{entry.path}>`", options, entry.summary))
    return table(("name", "option", "what it does"), rows, widths="22 28 50")


def class_page(entry: Public, others: list[Public]) -> str:
    """The page of an algorithm or callback: its docstring, settings and source."""
    parts = [heading(entry.name), block("highlight", "python"), details(entry)]
    for other in others:
        parts += [heading(other.name, "-"), details(other)]
    options = options_of(entry.value)
    if options:
        parts += [heading("Settings", "-"), *(describe(*option, mark="~") for option in options)]
    file = Path(inspect.getsourcefile(entry.value) or "").resolve().relative_to(ROOT)
    source = block("literalinclude", f"/../{file}", language="python")
    return "\n".join([*parts, heading("Source code", "-"), block("dropdown", str(file), source)])


def package_page(module: Any, members: list[Public], elsewhere: set[str]) -> str:
    """The page of a package: all its public names, and details of those without other pages."""
    parts = [heading(module.__name__), block("highlight", "python")]
    parts += [block("py:module", module.__name__)]
    parts += [inspect.getdoc(module) or "", "", listing(members)]
    return "\n".join(parts + [details(entry) for entry in members if entry.path not in elsewhere])


def code_pages() -> dict[str, dict[str, str]]:
    """Writes all pages, by their folders and names."""
    pages: dict[str, dict[str, str]] = {"api": {}, **{family: {} for family in FAMILIES}}
    packages: dict[str, list[Public]] = {}
    for entry in public_names():
        packages.setdefault(entry.package, []).append(entry)
    for package, members in packages.items():
        own = [entry for entry in members if has_own_page(entry)]
        placed = {entry.path for entry in own}
        for entry in own:
            others = [other for other in members if other not in own and _beside(entry, other)]
            placed |= {other.path for other in others}
            pages[package][f"{entry.name}.rst"] = class_page(entry, others)
        if own:
            names = sorted((entry.name for entry in own), key=str.lower)
            parts = [heading(package.capitalize()), FAMILIES[package][1], ""]
            parts += [listing_with_options(own)]
            pages[package]["index.rst"] = "\n".join([*parts, toctree(names)])
        module = importlib.import_module(f"gga_lightning.{package}")
        pages["api"][f"{package}.rst"] = package_page(module, members, placed)
    top = [entry for entry in public_names() if entry.name in gga_lightning.__all__]
    text = "These names can be imported from ``gga_lightning`` itself."
    parts = [heading("API reference"), text, "", listing(top), "All names, by package:", ""]
    pages["api"]["index.rst"] = "\n".join([*parts, toctree(sorted(packages), hidden=False)])
    return pages


def _beside(entry: Public, other: Public) -> bool:
    """Whether a public name is from the module of a class that is no base class."""
    same = getattr(other.value, "__module__", "") == entry.value.__module__
    return same and other.path.count(".") < 3


def generate(app: Sphinx) -> None:
    """Called before Sphinx looks for its sources."""
    for folder, pages in code_pages().items():
        save(Path(app.srcdir, "reference", folder), pages)
    copy(sorted(ROOT.glob("notebooks/*.ipynb")), Path(app.srcdir, "notebooks"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the generator to Sphinx."""
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True}
