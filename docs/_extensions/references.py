"""Finds what pages and docstrings refer to, and checks that all public names are documented."""

import inspect
import pydoc
import re
from abc import ABC
from typing import Any

from docutils import nodes
from pages import ROOT
from public import public_names
from settings_pages import options, target
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

# Files outside of docs/ that have a page.
PAGES = {"src/gga_lightning/data/embedded/NOTICE.md": "licences.md"}


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Finds what a docstring calls by its bare name, by another path, or by a class's own name."""
    if node["refdomain"] != "py":
        return None
    target = node["reftarget"].removeprefix("~")
    for path in _paths(target, node.get("py:class")):
        if path in env.domains.python_domain.objects:
            domain = env.domains.python_domain
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", path, node, content)
    if node["reftype"] == "attr":  # which are described in their class's docstring
        return content
    return content if _internal(target, node.get("py:module")) else None


def _internal(target: str, module: str | None) -> bool:
    """Whether a target is a name of ours that is not public, and therefore has no page."""
    paths = (target, f"{module}.{target}")
    return any(path.startswith("gga_lightning.") and pydoc.locate(path) for path in paths)


def _paths(target: str, within: str | None) -> list[str]:
    """The documented paths that a target can stand for."""
    paths: list[str] = []
    for entry in public_names():
        module = getattr(entry.value, "__module__", "")
        names = entry.name, f"gga_lightning.{entry.package}.{entry.name}", f"{module}.{entry.name}"
        found = [name for name in names if f"{target}.".startswith(f"{name}.")]
        paths += [entry.path + target.removeprefix(name) for name in found]
    owner = next((entry.value for entry in public_names() if entry.name == within), None)
    for base in owner.__mro__ if inspect.isclass(owner) else ():
        paths += [f"{entry.path}.{target}" for entry in public_names() if entry.value is base]
    return paths


def bases(app: Sphinx, name: str, kind: type, options: Any, found: list[type]) -> None:
    """Replaces private base classes by their own bases."""
    while private := [base for base in found if "._" in f"{base.__module__}.{base.__qualname__}"]:
        index = found.index(private[0])
        found[index : index + 1] = [base for base in private[0].__bases__ if base is not object]
    found[:] = [base for base in found if base is not ABC] or [object]


def skip(
    app: Sphinx, what: str, name: str, member: Any, skipped: bool, options: Any
) -> bool | None:
    """Leaves out the fields of named tuples, which the class's docstring describes."""
    return True if (inspect.getdoc(member) or "").startswith("Alias for field number") else None


def pictures(app: Sphinx, tree: nodes.document) -> None:
    """Makes pictures as wide as the text, with a link to their full size."""
    for picture in tree.findall(nodes.image):
        picture["width"] = "100%"  # which has Sphinx add the link


def unbroken(app: Sphinx, page: str, source: list[str]) -> None:
    """Keeps a number and its error on one line, in narrow columns of tables too."""
    source[0] = re.sub(r"(?<=\d) ± (?=\d)", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}", source[0])


def links(app: Sphinx, page: str, source: list[str]) -> None:
    """Turns links out of docs/ that no page or download can follow into plain text."""

    def replace(found: re.Match[str]) -> str:
        text, path = found.groups()
        if path in PAGES:
            return f"[{text}]({PAGES[path]})"
        return text if (ROOT / path).is_dir() else found[0]

    if "/" not in page:
        source[0] = re.sub(r"\[([^]]*)\]\(\.\./([^)#]+)\)", replace, source[0])


def doc_links(
    app: Sphinx, what: str, name: str, object_: Any, options: Any, lines: list[str]
) -> None:
    """Turns the names of pages in docstrings into links."""
    lines[:] = [re.sub(r"(`*)docs/([\w-]+)\.md\1", r":doc:`/\2`", line) for line in lines]


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Warns of public names that no page documents, and of algorithms that are not public."""
    documented = env.domains.python_domain.objects
    missing = [entry.path for entry in public_names() if entry.path not in documented]
    missing += [
        f"algorithm={option}, whose class must be in the __all__ of gga_lightning.algorithms"
        for option in options("algorithm")
        if target("algorithm", option) not in documented
    ]
    for name in missing:
        logging.getLogger(__name__).warning("no page documents %s", name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects all of this to Sphinx."""
    app.connect("autodoc-process-bases", bases)
    app.connect("autodoc-process-docstring", doc_links)
    app.connect("autodoc-skip-member", skip)
    app.connect("source-read", links)
    app.connect("source-read", unbroken)
    app.connect("doctree-read", pictures)
    app.connect("missing-reference", resolve)
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True}
