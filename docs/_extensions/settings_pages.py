"""Writes the reference of the commands, from ``--help``, and of the configuration, from conf/."""

import importlib
import io
import os
import re
import sys
import tomllib
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path
from unittest.mock import patch

from omegaconf import DictConfig, OmegaConf
from pages import CONF, ROOT, block, heading, save, table, toctree
from sphinx.application import Sphinx

COMPLETED = ("algorithm", "annealing", "backbone", "callbacks", "data", "logger", "trainer")
GROUPS = {
    "data": "The data set, its splits and its loaders.",
    "algorithm": "The algorithm that is trained.",
    "task": "What the targets are, and the metric by which models are selected and reported.",
    "optimizer": "The optimizer of the algorithm, in place of Adam.",
    "annealing": "The callback that acts on the domains' gradients on top of the algorithm.",
    "backbone": "The network that computes the features.",
    "trainer": "Lightning's Trainer: the device, the precision and the number of steps.",
    "callbacks": "Further callbacks. Several: ``callbacks=[default,swad]``.",
    "logger": "Where metrics are logged.",
    "hparams": "Search spaces of hyperparameters, with points numbered by ``hparams_seed``.",
    "sweep": "Many jobs from one command.",
    "experiment": "Settings of several groups together, such as those of the paper.",
    "hydra/sweeper": "Whether a sweep runs all combinations or searches.",
}


@cache
def composed(group: str, option: str) -> DictConfig:
    """Merges an option with the options of its group that it builds on, as Hydra does."""
    found = OmegaConf.load(CONF / group / f"{option}.yaml")
    assert isinstance(found, DictConfig)
    bases = [base for base in found.pop("defaults", []) if base in options(group)]
    merged = OmegaConf.merge(*(composed(group, base) for base in bases), found)
    assert isinstance(merged, DictConfig)
    return merged


@cache
def options(group: str) -> list[str]:
    """Lists the options of a group."""
    return sorted(str(f.relative_to(CONF / group))[:-5] for f in CONF.glob(f"{group}/**/*.yaml"))


def target(group: str, option: str) -> str:
    """Finds the class that an option, or one that it builds on, sets up."""
    found = composed(group, option)
    if group == "callbacks":  # which are one level down; a file's own is the last
        entries = [entry for entry in found.values() if isinstance(entry, DictConfig)]
        found = entries[-1] if entries else found
    return str(found.get("_target_", ""))


def options_of(kind: type) -> list[tuple[str, str]]:
    """Finds the options that set up a class."""
    return [
        (group, option)
        for group in ("algorithm", "annealing", "callbacks")
        for option in options(group)
        if target(group, option).startswith("gga_lightning")
        and target(group, option).rpartition(".")[2] == kind.__name__
    ]


def comment_of(text: str) -> tuple[str, str]:
    """Separates a file's leading comment, as prose, from its settings."""
    lines = text.splitlines()
    count = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    words = [line.lstrip("# ") for line in lines[:count] if "@package" not in line]
    return re.sub(r"([*`|_\\])", r"\\\1", " ".join(words)), "\n".join(lines[count:])


def describe(group: str, option: str, *, mark: str = "-") -> str:
    """Describes an option: its comment, its file, and all settings that it ends up with."""
    comment, settings = comment_of((CONF / group / f"{option}.yaml").read_text())
    parts = [heading(f"``{group}={option}``", mark), comment, ""]
    parts += [block("code-block", "yaml", settings, caption=f"conf/{group}/{option}.yaml")]
    if group in COMPLETED and "defaults:" in settings:
        complete = OmegaConf.to_yaml(composed(group, option))
        content = block("code-block", "yaml", complete)
        parts += [block("dropdown", "With the settings of its defaults", content)]
    return "\n".join(parts)


def group_page(group: str) -> str:
    """The page of a configuration group."""
    parts = [heading(f"``{group}=``"), GROUPS.get(group, ""), ""]
    return "\n".join(parts + [describe(group, option) for option in options(group)])


def configuration_pages() -> dict[str, str]:
    """Writes the page of the main file, and one for each group."""
    groups = [*GROUPS, *sorted({str(f.parent.relative_to(CONF)) for f in CONF.glob("*/*.yaml")})]
    groups = [group for group in dict.fromkeys(groups) if options(group)]
    pages = {f"{group}.rst": group_page(group) for group in groups}
    rows = []
    for group in groups:
        found = ", ".join(f"``{option}``" for option in options(group) if "/" not in option)
        rows.append((f":doc:`{group}= <{group}>`", GROUPS.get(group, ""), found))
    parts = [
        heading("Configuration"),
        "``gga-train GROUP=OPTION`` chooses a part of the configuration, and",
        "``gga-train GROUP.NAME=VALUE`` sets a value in it. ``gga-train --cfg job`` prints the",
        "whole configuration and runs nothing. :doc:`/how-to/sweep` explains ``${draw:...}`` and",
        "``${grid:...}``.",
        "",
        table(("group", "what it sets", "options"), rows, widths="20 40 40"),
        block("literalinclude", "/../conf/train.yaml", language="yaml", caption="conf/train.yaml"),
        toctree(groups),
    ]
    return {**pages, "index.rst": "\n".join(parts)}


def help_text(script: str, *arguments: str) -> str:
    """Runs a command with ``--help``, in this process."""
    module, _, function = scripts()[script].partition(":")
    output = io.StringIO()
    with (
        patch.object(sys, "argv", [script, *arguments, "--help"]),
        patch.dict(os.environ, COLUMNS="88", NO_COLOR="1"),
        redirect_stdout(output),
        suppress(SystemExit),
    ):
        getattr(importlib.import_module(module), function)()
    return output.getvalue()


def scripts() -> dict[str, str]:
    """Finds the console scripts, with their functions."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def commands_page() -> str:
    """Shows what each command and its subcommands print for ``--help``."""
    parts = [heading("Commands"), "What each command prints with ``--help``.", ""]
    for script in scripts():
        text = help_text(script)
        parts += [heading(script, "-"), block("code-block", "text", text)]
        listed = re.search(r"^ +COMMAND\n((?: {4}\w.*\n(?: {5,}.*\n)*)+)", text, re.MULTILINE)
        for name in re.findall(r"^ {4}(\w+)", listed[1] if listed else "", re.MULTILINE):
            parts += [heading(f"{script} {name}", "~")]
            parts += [block("code-block", "text", help_text(script, name))]
    return "\n".join(parts)


def generate(app: Sphinx) -> None:
    """Called before Sphinx looks for its sources."""
    folder = Path(app.srcdir, "reference")
    save(folder / "configuration", configuration_pages())
    save(folder / "commands", {"index.rst": commands_page()})


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the generator to Sphinx."""
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True}
