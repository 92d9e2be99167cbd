"""The pages of the site: their Python runs, and their commands are commands that there are."""

import contextlib
import itertools
import re
import shlex
import sys
import types
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from gga_lightning.experiments.configuration import config_directory
from gga_lightning.experiments.train import main

DOCS = Path(__file__).resolve().parents[2] / "docs"
# Of these the Python is run; other pages need data of their own, and predict.md has its own test.
RUN = [
    "index.md",
    "faq.md",
    "coming-from.md",
    "similar-papers.md",
    "tasks.md",
    "start/*.md",
    "concepts/*.md",
    "how-to/*.md",
]
PAGES = sorted(path for pattern in RUN for path in DOCS.glob(pattern))
WITH_COMMANDS = [*PAGES, *sorted(set(DOCS.glob("*.md")) - set(PAGES)), DOCS.parent / "README.md"]
WITH_LINKS = [*WITH_COMMANDS, DOCS.parent / "CHANGELOG.md", DOCS.parent / "CONTRIBUTING.md"]
# What a setting that is shown without its group may belong to.
GROUPS = [
    ["data=pacs", "data.root=DATA", "backbone=resnet50"],
    ["data=folders", "data.root=ROOT"],
    ["annealing=gga"],
    ["annealing=gga_l"],
    ["callbacks=swad"],
    ["algorithm=coral"],
    ["algorithm=dann"],
    ["algorithm=mixstyle"],
]


def name_of(path):
    return str(path.relative_to(DOCS.parent))


def blocks(path):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    return [(str(language), str(text)) for language, text in found]


WITH_PYTHON = [path for path in PAGES if "python" in dict(blocks(path))]


def commands(path):
    """The words after gga-train, in blocks and in the text, without comments and redirections."""
    shown = [text.replace("\\\n", "") for language, text in blocks(path) if not language]
    lines = [line for text in shown for line in text.splitlines()]
    lines += re.findall(r"`(gga-train [^`]*)`", path.read_text().replace("\n", " "))
    for line in lines:
        words = shlex.split(line, comments=True) if line.startswith("gga-train") else []
        words = list(itertools.takewhile(lambda word: word not in ("&&", ">", "|"), words[1:]))
        placeholders = [word for word in words if re.search(r"\.\.\.|GROUP|^\w+=NAME", word)]
        if words and not placeholders and not set(words) & {"--config-dir", "algorithm=flooding"}:
            yield [word for word in words if word not in ("--cfg", "job")]


def composed(words):
    """The configuration of a job, the first one of a sweep; the launcher's settings left out."""
    overrides = []
    for parsed in OverridesParser.create().parse_overrides([w for w in words if w[0] != "-"]):
        if not parsed.key_or_group.startswith("hydra"):
            value = parsed.value()
            if parsed.is_sweep_override():
                value = next(iter(parsed.sweep_string_iterator()))
                overrides.append(f"{parsed.get_key_element()}={value}")
            else:
                overrides.append(parsed.input_line)
    with initialize_config_dir(config_directory(), version_base="1.3"):
        return compose("train", overrides=overrides)


@pytest.mark.parametrize("path", WITH_PYTHON, ids=name_of)
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")
def test_python_of_a_page_runs(path, monkeypatch):
    """In order and in one module, as a reader would run it, after the training that it needs."""
    for words in commands(path):
        if "hydra.run.dir=runs/toy" in words and path.stem == "use-a-model":
            monkeypatch.setattr(sys, "argv", ["gga-train", *words])
            main()
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for language, text in blocks(path):
        if language == "python":
            exec(compile(text, f"{path.name}", "exec"), vars(module))


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name_of)
def test_commands_of_a_page_compose(path):
    for words in commands(path):
        composed(words)


@pytest.mark.slow
def test_equivalents_are_settings():
    """Every setting in coming-from.md is one of the configuration, with a value that it takes."""
    text = (DOCS / "coming-from.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    spans = {span for row in rows for span in re.findall(r"`([^`]+)`", row.split(" | ", 1)[1])}
    for span in sorted(spans):
        words = span.split()
        if Path(config_directory(), "algorithm", f"{words[0]}.yaml").exists():  # in their table
            words[0] = f"algorithm={words[0]}"
        if all(re.fullmatch(r"\+?[a-z_/.]+=(?!NAME)\S+", word) for word in words):
            assert any(accepted(group, words) for group in GROUPS), span
        elif re.fullmatch(r"(algorithm|annealing|backbone|callbacks|data)(\.[a-z_]+)+", span):
            assert any(has(group, span) for group in GROUPS), span


def anchors(path):
    """What the headings of a page are called in links, by the rule of GitHub and MyST."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r"[^\w -]", "", title).strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("path", WITH_LINKS, ids=name_of)
def test_links_of_a_page_lead_somewhere(path):
    """To a file of the repository, and to a heading where they name one."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not link.startswith(("http://", "https://", "mailto:")):
            name, _, anchor = link.partition("#")
            file = path.parent / name if name else path
            assert file.exists(), link
            assert not anchor or anchor in anchors(file), link


def test_named_pages_exist():
    """Code, settings and notebooks name pages as docs/NAME.md."""
    root = DOCS.parent
    folders = ("src", "conf", "benchmarks", "tools", "notebooks", ".github")
    files = [file for folder in folders for file in (root / folder).rglob("*") if file.is_file()]
    kinds = (".py", ".yaml", ".yml", ".md", ".ipynb", ".sh")
    texts = [file for file in files if file.suffix in kinds]
    named = {name for file in texts for name in re.findall(r"docs/[\w/-]+\.md", file.read_text())}
    assert named
    assert not {name for name in named if not (root / name).exists()}


def accepted(group, words):
    with contextlib.suppress(Exception):
        composed([*group, *words])
        return True
    return False


def has(group, setting):
    return OmegaConf.select(composed(group), setting, default=group) is not group


def test_algorithms_have_their_names():
    """The section on algorithms in coming-from.md has every option."""
    text = (DOCS / "coming-from.md").read_text().partition("## Algorithms")[2].partition("## ")[0]
    known = {path.stem for path in Path(config_directory(), "algorithm").glob("*.yaml")}
    named = {code.split()[0].rpartition("=")[2] for code in re.findall(r"`([^`\n]+)`", text)}
    assert known <= named
