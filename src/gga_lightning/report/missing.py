"""The commands that fill a table's gaps, made from the overrides of runs that are there."""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gga_lightning.report.methods import Method, order_domains
from gga_lightning.report.results import Run
from gga_lightning.report.rules import Trial, trial_of

__all__ = ["MissingJob", "commands", "missing_jobs"]

_VARIED = ("data.test_domain", "seed", "data.split_seed", "hparams_seed")
_KEYWORDS = {"null", "true", "false", "inf", "nan", "all", "pairs"}


class MissingJob(NamedTuple):
    """One training.

    Attributes:
        domains: The held-out domain, or two of them.
        trial: The seeds.
        draw: Which draw of hyperparameters.
    """

    domains: tuple[str, ...]
    trial: Trial
    draw: int


def missing_jobs(
    method: Method, domains: Sequence[str], *, trials: Iterable[Trial] = (), pairs: bool = False
) -> list[MissingJob]:
    """Lists what a method lacks: each trial and each of its draws, with each domain held out.

    Args:
        method: The method.
        domains: The held-out domains of the table.
        trials: Trials wanted beside those that it has runs of: the baseline's, to compare with.
        pairs: Whether also jobs with two held-out domains are needed, a column's domain and
            another one, as leave-one-domain-out validation does.

    Returns:
        The jobs, in order of domains, trials and draws.
    """
    wanted: list[tuple[str, ...]] = [(domain,) for domain in domains]
    if pairs:
        every = order_domains(method.runs)
        wanted += [
            (one, other)
            for index, one in enumerate(every)
            for other in every[index + 1 :]
            if one in domains or other in domains
        ]
    there = {(frozenset(r.test_domains), trial_of(r), r.hparams_seed) for r in method.runs}
    own = {(trial, draw) for names, trial, draw in there if pairs or len(names) == 1}
    settings = sorted(own | {(trial, draw) for trial in trials for _, draw in own})
    return [
        MissingJob(names, trial, draw)
        for names in wanted
        for trial, draw in settings
        if (frozenset(names), trial, draw) not in there
    ]


def commands(method: Method, jobs: Iterable[MissingJob]) -> list[str]:
    """Writes few shell commands that run exactly these jobs, by the overrides of the runs."""
    groups: dict[_Template, dict[int, list[MissingJob]]] = {}
    for job in jobs:
        draws = groups.setdefault(_template(method.runs, job), {})
        draws.setdefault(job.draw, []).append(job._replace(draw=0))
    searched = any(run.hyperparameters or run.hparams_seed for run in method.runs)
    texts: list[str] = []
    for template, draws in groups.items():
        alike: dict[tuple[MissingJob, ...], list[int]] = defaultdict(list)
        for draw, lacking in sorted(draws.items()):
            alike[tuple(lacking)].append(draw)
        for lacking, numbers in alike.items():
            drawn = [f"hparams_seed={','.join(map(str, numbers))}"] if searched else []
            for held_out, seeds in _rectangles(lacking):
                texts.append(_command(template, held_out, seeds, drawn))
    return texts


class _Template(NamedTuple):
    """What a job is started with, but for domains and numbers, and how it spells domains."""

    overrides: tuple[str, ...]
    quoting: bool


def _template(runs: Sequence[Run], job: MissingJob) -> _Template:
    """That of the run most like the job."""

    def likeness(run: Run) -> tuple[bool, bool]:
        return run.hparams_seed == job.draw, bool(run.hyperparameters) and (
            trial_of(run) == job.trial
        )

    named = [(_key(override), override) for override in max(runs, key=likeness).overrides]
    kept = [override for key, override in named if key not in _VARIED]
    if any(key == "sweep" for key, _ in named):  # its own lists of alternatives are not wanted
        kept.append("~hydra.sweeper.alternatives")
    if job.trial.split_seed != job.trial.seed:
        kept.append(f"data.split_seed={job.trial.split_seed}")
    kept += _sweep_folder(runs)
    quoting = any(key == "data.test_domain" and "'" in override for key, override in named)
    return _Template(tuple(kept), quoting)


def _sweep_folder(runs: Sequence[Run]) -> list[str]:
    """Where a sweep's jobs lie, if not where they do by default."""
    found = {run.folder.parent for run in runs if run.folder.name.endswith(f"-{run.config_hash}")}
    if len(found) != 1 or found == {Path("multirun")}:
        return []
    folder = str(found.pop())
    plain = re.fullmatch(r"[\w./-]+", folder)
    return [f"hydra.sweep.dir={folder if plain else _quoted(folder)}"]


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _rectangles(jobs: Iterable[MissingJob]) -> list[tuple[list[tuple[str, ...]], list[int]]]:
    """Domains that lack the same seeds together, or seeds that lack the same domains."""
    seeds: dict[tuple[str, ...], list[int]] = defaultdict(list)
    domains: dict[int, list[tuple[str, ...]]] = defaultdict(list)
    for job in jobs:
        seeds[job.domains].append(job.trial.seed)
        domains[job.trial.seed].append(job.domains)
    by_seeds: dict[tuple[int, ...], list[tuple[str, ...]]] = defaultdict(list)
    for names, lacking in seeds.items():
        by_seeds[tuple(lacking)].append(names)
    by_domains: dict[tuple[tuple[str, ...], ...], list[int]] = defaultdict(list)
    for seed, names in domains.items():
        by_domains[tuple(names)].append(seed)
    if len(by_domains) < len(by_seeds):
        return [(list(names), lacking) for names, lacking in by_domains.items()]
    return [(names, list(lacking)) for lacking, names in by_seeds.items()]


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
    """A word for the shell, in the quotes that read better."""
    double = "'" in text and not set(text) & set('"$`\\!')
    return f'"{text}"' if double else shlex.quote(text)


def _quoted(name: str, numbers: bool = False) -> str:
    """A name as Hydra reads it; ``numbers``: a number stays a text, as with ``all`` domains."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*|0|[1-9][0-9]*", name)
    if plain and name.lower() not in _KEYWORDS and not (numbers and name.isdigit()):
        return name
    escaped = re.sub(r"(\\*)(?='|$)", lambda found: found[1] * 2, name).replace("'", "\\'")
    return f"'{escaped}'"
