"""Writes the commands that fill a table's gaps, from the overrides of the runs that exist."""

import itertools
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from gga_lightning.report.methods import Method, order_domains
from gga_lightning.report.results import Run, Trial

__all__ = ["MissingJob", "commands", "missing_jobs"]

_VARIED = ("data.test_domain", "seed", "data.split_seed", "hparams_seed")
_KEYWORDS = {"null", "true", "false", "inf", "nan", "all", "pairs"}
K = TypeVar("K")
V = TypeVar("V")


class MissingJob(NamedTuple):
    """A run that does not exist.

    Attributes:
        domains: Its one or two held-out domains.
        trial: Its seeds.
        draw: The number of its draw of hyperparameters.
    """

    domains: tuple[str, ...]
    trial: Trial
    draw: int


def missing_jobs(
    method: Method, domains: Sequence[str], *, trials: Iterable[Trial] = (), pairs: bool = False
) -> list[MissingJob]:
    """Lists the missing runs of a method: all its trials and draws are needed for all domains.

    Args:
        method: The method.
        domains: The held-out domains of the table.
        trials: Further trials that are needed: those of the row to compare with.
        pairs: Whether leave-one-domain-out validation is wanted, which also needs runs that hold
            out two domains: one of ``domains`` and any other one.

    Returns:
        The jobs, in order of domains, trials and draws.
    """
    wanted: list[tuple[str, ...]] = [(domain,) for domain in domains]
    if pairs:
        every = itertools.combinations(order_domains(method.runs), 2)
        wanted += [pair for pair in every if not set(pair).isdisjoint(domains)]
    there = {(frozenset(r.test_domains), r.trial, r.hparams_seed) for r in method.runs}
    own = {(trial, draw) for names, trial, draw in there if pairs or len(names) == 1}
    settings = sorted(own | {(trial, draw) for trial in trials for _, draw in own})
    return [
        MissingJob(names, trial, draw)
        for names in wanted
        for trial, draw in settings
        if (frozenset(names), trial, draw) not in there
    ]


def commands(method: Method, jobs: Iterable[MissingJob]) -> list[str]:
    """Writes a few shell commands that together run exactly these jobs of a method."""
    groups: dict[_Template, list[MissingJob]] = defaultdict(list)
    for job in jobs:
        groups[_template(method.runs, job)].append(job)
    searched = any(run.hyperparameters or run.hparams_seed for run in method.runs)
    texts: list[str] = []
    for template, members in groups.items():
        by_draw = sorted(members, key=lambda job: job.draw)
        for draws, alike in _together((job.draw, job._replace(draw=0)) for job in by_draw):
            drawn = [f"hparams_seed={','.join(map(str, draws))}"] if searched else []
            for held_out, seeds in _rectangles(alike):
                texts.append(_command(template, held_out, seeds, drawn))
    return texts


class _Template(NamedTuple):
    """A job's overrides except for domains and seeds, and whether it quotes domains."""

    overrides: tuple[str, ...]
    quoting: bool


def _template(runs: Sequence[Run], job: MissingJob) -> _Template:
    """Takes the template of a run with the same draw or, if drawn values differ, the same trial."""

    def likeness(run: Run) -> tuple[bool, bool]:
        same_trial = run.trial == job.trial
        return run.hparams_seed == job.draw, bool(run.hyperparameters) and same_trial

    named = [(_key(override), override) for override in max(runs, key=likeness).overrides]
    kept = [override for key, override in named if key not in _VARIED]
    if any(key == "sweep" for key, _ in named):  # the overrides already hold the job's alternative
        kept.append("~hydra.sweeper.alternatives")
    if job.trial.split_seed != job.trial.seed:
        kept.append(f"data.split_seed={job.trial.split_seed}")
    kept += _sweep_folder(runs)
    quoting = any(key == "data.test_domain" and "'" in override for key, override in named)
    return _Template(tuple(kept), quoting)


def _sweep_folder(runs: Sequence[Run]) -> list[str]:
    """Writes the override for the folder of the sweep, unless it is Hydra's default."""
    found = {run.folder.parent for run in runs if run.folder.name.endswith(f"-{run.config_hash}")}
    if len(found) != 1 or found == {Path("multirun")}:
        return []
    folder = str(found.pop())
    plain = re.fullmatch(r"[\w./-]+", folder)
    return [f"hydra.sweep.dir={folder if plain else _quoted(folder)}"]


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _rectangles(jobs: Sequence[MissingJob]) -> list[tuple[list[tuple[str, ...]], list[int]]]:
    """Divides jobs into groups, each of which has all seeds for all of its domains."""
    by_seeds = _together((job.domains, job.trial.seed) for job in jobs)
    by_domains = _together((job.trial.seed, job.domains) for job in jobs)
    if len(by_domains) < len(by_seeds):
        return [(domains, seeds) for seeds, domains in by_domains]
    return by_seeds


def _together(pairs: Iterable[tuple[K, V]]) -> list[tuple[list[K], list[V]]]:
    """Lists the values of each key, and the keys that have the same values."""
    values: dict[K, list[V]] = defaultdict(list)
    for key, value in pairs:
        values[key].append(value)
    keys: dict[tuple[V, ...], list[K]] = defaultdict(list)
    for key, found in values.items():
        keys[tuple(found)].append(key)
    return [(same, list(found)) for found, same in keys.items()]


def _command(
    template: _Template, held_out: list[tuple[str, ...]], seeds: list[int], drawn: list[str]
) -> str:
    spelt = [[_quoted(name, template.quoting) for name in names] for names in held_out]
    values = [names[0] if len(names) == 1 else f"[{','.join(names)}]" for names in spelt]
    parts = [
        *template.overrides,
        *drawn,
        f"data.test_domain={','.join(values)}",
        f"seed={','.join(map(str, seeds))}",
    ]
    return " ".join(["gga-train", "-m", *map(_shell, parts)])


def _shell(text: str) -> str:
    """Quotes an argument for the shell, with the quotes that need no escapes if possible."""
    double = "'" in text and not set(text) & set('"$`\\!')
    return f'"{text}"' if double else shlex.quote(text)


def _quoted(name: str, numbers: bool = False) -> str:
    """Quotes a name for Hydra if needed; ``numbers``: numbers too, as ``test_domain=all`` does."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*|0|[1-9][0-9]*", name)
    if plain and name.lower() not in _KEYWORDS and not (numbers and name.isdigit()):
        return name
    escaped = re.sub(r"(\\*)(?='|$)", lambda found: found[1] * 2, name).replace("'", "\\'")
    return f"'{escaped}'"
