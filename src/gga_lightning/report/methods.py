"""Groups runs into methods: an algorithm, an annealing and all other settings."""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gga_lightning.report.results import Run
from gga_lightning.report.runs import Finding

__all__ = ["CONTROLS", "Method", "group_methods", "order_domains", "row_name"]

_UNSET, _DRAWN = "unset", "drawn"

CONTROLS = ("annealing.control", "annealing.modulation", "data.shuffle_domains")

_IDLE = {"data.dataset.cache"}  # without effect on accuracies
_SEEDS = {"seed", "split_seed"}  # `data.seed` is among a run's settings only if it is another one


@dataclass(frozen=True)
class Method:
    """A row of the tables of one data set.

    Attributes:
        algorithm: The base algorithm's name.
        annealing: The annealing's name, ``"none"`` without one.
        label: The row's name, unique in its data set.
        runs: Its runs, sorted by held-out domains, trial and draw of hyperparameters.
        kind: ``"baseline"``, ``"control"``, ``"plain"`` (ERM alone, with other settings than the
            baseline) or ``"method"``.
        settings: Names and values, without seeds; equal for all draws of hyperparameters.
        base: The label of the row that this one is compared with, None if there is none.
    """

    algorithm: str
    annealing: str
    label: str
    runs: tuple[Run, ...]
    kind: str = "method"
    settings: frozenset[tuple[str, str]] = frozenset()
    base: str | None = None

    @property
    def bare(self) -> bool:
        """Whether the label names no setting."""
        return self.label == row_name(self.algorithm, self.annealing)

    @property
    def combination(self) -> str:
        """``algorithm/annealing``, as ``--baseline`` takes it."""
        return f"{self.algorithm}/{self.annealing}"

    @property
    def main_runs(self) -> Sequence[Run]:
        """The runs with one held-out domain; all runs if there are none."""
        return [run for run in self.runs if run.single] or self.runs

    @property
    def shown(self) -> str:
        """The label, with the number of runs that diverged."""
        count = sum(run.diverged is not None for run in self.runs)
        return f"{self.label} ({count} diverged)" if count else self.label


def row_name(algorithm: str, annealing: str) -> str:
    """Names an algorithm with an annealing, such as ``erm + gga``."""
    return algorithm if annealing == "none" else f"{algorithm} + {annealing}"


def group_methods(runs: Iterable[Run]) -> tuple[list[Method], list[Finding]]:
    """Groups the runs of one data set into methods.

    Labels name just enough settings to tell apart the methods of an algorithm and annealing. They
    omit the value that most of these methods share or, without such a value, ``null`` and
    ``false``.

    Args:
        runs: Runs of one data set.

    Returns:
        The methods by label, and the runs that repeat another one's method, domain, trial and
        draw.
    """
    named: dict[tuple[str, str], dict[frozenset[tuple[str, str]], list[Run]]] = defaultdict(dict)
    for run in runs:
        named[run.algorithm, run.annealing].setdefault(_settings(run), []).append(run)
    methods: list[Method] = []
    findings: list[Finding] = []
    for (algorithm, annealing), groups in named.items():
        labels = _labels([dict(settings) for settings in groups])
        for label, (settings, group) in zip(labels, groups.items(), strict=True):
            kept, repeated = _once(group)
            findings += repeated
            text = row_name(algorithm, annealing) + label
            methods.append(Method(algorithm, annealing, text, kept, _kind(kept[0]), settings))
    return sorted(methods, key=lambda method: method.label), findings


def order_domains(runs: Iterable[Run]) -> list[str]:
    """Recovers the order of the domains in the data set.

    Args:
        runs: Runs of one data set. Each lists its source domains in order; the place of its
            held-out domain follows from other runs.

    Returns:
        All domains. Where the runs leave the order open, numbers are sorted by value and names
        alphabetically; all domains are, if the runs contradict each other.
    """
    lists = {run.source_domains for run in runs} | {
        (name,) for r in runs for name in r.test_domains
    }
    before: dict[str, set[str]] = {name: set() for names in lists for name in names}
    for names in lists:
        for earlier, later in itertools.pairwise(names):
            before[later].add(earlier)
    order: list[str] = []
    while len(order) < len(before):
        free = [name for name in before if name not in order and before[name] <= set(order)]
        if not free:
            return sorted(before, key=_natural)
        order.append(min(free, key=_natural))
    return order


def _kind(run: Run) -> str:
    settings = run.settings
    control, modulation, shuffle = (settings.get(name) for name in CONTROLS)
    controlled = control is not None or modulation in {"constant", "agreement"} or shuffle is True
    return "control" if controlled else "method"


def _settings(run: Run) -> frozenset[tuple[str, str]]:
    """Writes a run's settings as texts; all draws of a hyperparameter search have the same ones."""
    settings = {"data.pseudo_domains": None, **run.settings}  # earlier versions had none
    pairs = {
        name: _text(value)
        for name, value in settings.items()
        if name == "data.seed" or (name not in _IDLE and name.rpartition(".")[2] not in _SEEDS)
    }
    drawn = dict.fromkeys(run.hyperparameters, _DRAWN)
    return frozenset({**pairs, **drawn, "backbone": run.backbone}.items())


def _text(value: Any) -> str:
    """Writes a setting's value; 1 and 1.0 give the same text."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return json.dumps(value)


def _labels(methods: Sequence[Mapping[str, str]]) -> list[str]:
    """Writes, in brackets, the settings that tell methods of the same name apart."""
    names = sorted({name for method in methods for name in method})
    values = {name: [method.get(name, _UNSET) for method in methods] for name in names}
    differing = [n for n in names if len(set(values[n])) > 1 and not _follows(n, values)]
    texts = {n: _shortest(_plain(n), {_plain(other) for other in names}) for n in differing}
    parts: list[list[str]] = [[] for _ in methods]
    for name in sorted(_enough(values, texts)):
        usual = _usual(values[name])
        for part, value in zip(parts, values[name], strict=True):
            if value != usual:
                part.append(f"{texts[name]}={_short_value(value, values[name])}")
    return [f" ({', '.join(part)})" if part else "" for part in parts]


def _enough(values: Mapping[str, Sequence[str]], texts: Mapping[str, str]) -> list[str]:
    """Chooses the controls and the backbone, then the settings that tell most methods apart."""
    chosen = [name for name in texts if name in (*CONTROLS, "backbone")]

    def told_apart(*more: str) -> int:
        return len(set(zip(*(values[name] for name in [*chosen, *more]), strict=True)))

    told = told_apart()
    left = sorted(set(texts) - set(chosen), key=lambda n: (_UNSET in values[n], len(texts[n]), n))
    while left and told_apart(best := max(left, key=told_apart)) > told:
        told = told_apart(best)
        chosen.append(best)
        left.remove(best)
    return chosen


def _usual(values: Sequence[str]) -> str | None:
    """Finds the value that labels omit: that of most methods, or else null or false."""
    [(common, count)] = Counter(values).most_common(1)
    if 2 * count > len(values):
        return common
    return next((value for value in ("null", "false") if value in values), None)


def _follows(name: str, values: Mapping[str, list[str]]) -> bool:
    """Whether a setting follows from the class of the object that it belongs to."""
    parts = _plain(name).split(".")
    owners = [".".join(parts[:end]) for end in range(1, len(parts))]
    kinds = [kind for owner in owners for kind in (owner, f"{owner}._target_") if kind in values]
    if name == "backbone._target_":
        kinds.append("backbone")
    return any(
        len(set(values[kind])) > 1
        and len(set(zip(values[kind], values[name], strict=True))) == len(set(values[kind]))
        for kind in kinds
    )


def _plain(name: str) -> str:
    """Names a setting; the ``_target_`` of an object has the object's name."""
    return name.removesuffix("._target_")


def _shortest(name: str, names: Iterable[str]) -> str:
    """Finds the shortest end of a dotted name that is not also the end of another name."""
    parts = name.split(".")
    tails = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
    others = [f".{other}" for other in names if other != name]
    return next((t for t in tails if not any(o.endswith(f".{t}") for o in others)), name)


def _short_value(value: str, values: Iterable[str]) -> str:
    """Writes a class without its module, unless another value has a class of that name."""
    head, _, tail = value.rpartition(".")
    if not head or not all(part.isidentifier() for part in value.split(".")):
        return value
    clash = any(other != value and other.rpartition(".")[2] == tail for other in values)
    return value if clash else tail


def _once(runs: Iterable[Run]) -> tuple[tuple[Run, ...], list[Finding]]:
    """Keeps the first run of each trial, draw and held-out domains, and reports the others."""
    kept: dict[tuple[Any, ...], Run] = {}
    findings: list[Finding] = []
    for run in runs:
        key = (run.test_domains, run.split_seed, run.seed, run.hparams_seed)
        first = kept.setdefault(key, run)
        if first is not run:
            reason = f"differs from {first.folder} only in settings without effect"
            findings.append(Finding("duplicate", run.folder, reason))
    return tuple(kept[key] for key in sorted(kept)), findings


def _natural(name: str) -> tuple[float, str]:
    """Makes a sort key that orders numbers by value, before all other names."""
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name
