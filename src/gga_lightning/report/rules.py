"""The field's model selection rules: which accuracy is reported for each trial and domain.

A trial is a seed of the splits and a seed of everything else. If a trial has several draws of
hyperparameters, the rule chooses the draw as it chooses the checkpoint. Ties go to the lowest
draw and the earliest checkpoint.

Source: Gulrajani & Lopez-Paz, "In Search of Lost Domain Generalization", ICLR 2021. Their oracle
sees the last checkpoint only and is `oracle_last` here; `oracle` is that of SWAD's code.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean

from gga_lightning.report.metric import earliest_best
from gga_lightning.report.results import Run, Trial

__all__ = ["RULES", "Accuracies", "apply_rule", "seeds"]

LEAVE_ONE_OUT = "leave_one_domain_out"

RULES: Mapping[str, str] = {
    "training_domain_validation": "training-domain validation",
    "swad": "SWAD (weights averaged by training-domain validation)",
    LEAVE_ONE_OUT: "leave-one-domain-out validation",
    "oracle": "oracle (best checkpoint on the held-out domain's smaller part)",
    "oracle_last": "oracle (last checkpoint)",
    "last": "last checkpoint",
}

# Rule to the selection that a run stores, and the accuracy that chooses among draws.
_SINGLE = {
    "training_domain_validation": ("training_domain_validation", "val_acc"),
    "swad": ("swad", "val_acc"),
    "oracle": ("oracle", "oracle_acc"),
    "oracle_last": ("last", "oracle_acc"),
    "last": ("last", "val_acc"),
}


Accuracies = Mapping[tuple[Trial, str], float]


def seeds(trials: Iterable[Trial]) -> str:
    """Names trials, such as ``seeds 0-2, 5``; by both numbers if any of them differ."""
    ordered = sorted(trials)
    plural = "s" if len(ordered) > 1 else ""
    if any(trial.split_seed != trial.seed for trial in ordered):
        return f"split/seed{plural} {', '.join(f'{t.split_seed}/{t.seed}' for t in ordered)}"
    ranges: list[str] = []
    for _, grouped in itertools.groupby(enumerate(ordered), lambda pair: pair[1].seed - pair[0]):
        run = [trial.seed for _, trial in grouped]
        ranges.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return f"seed{plural} {', '.join(ranges)}"


def apply_rule(rule: str, runs: Iterable[Run]) -> Accuracies:
    """Applies a model selection rule to the runs of one method; leaves out what lacks runs."""
    single: dict[tuple[Trial, str], list[Run]] = defaultdict(list)
    pairs: dict[tuple[Trial, int, frozenset[str]], Run] = {}
    for run in sorted(runs, key=lambda run: run.hparams_seed):
        if run.single:
            single[run.trial, run.test_domains[0]].append(run)
        elif len(run.test_domains) == 2:
            pairs[run.trial, run.hparams_seed, frozenset(run.test_domains)] = run
    chosen: dict[tuple[Trial, str], float] = {}
    for cell, draws in single.items():
        if rule == LEAVE_ONE_OUT:
            options = [_leave_one_out(run, pairs) for run in draws]
        else:
            options = [_stored(rule, run) for run in draws]
        found = [option for option in options if option is not None]
        if found:
            higher = draws[0].metric.higher_is_better
            criteria = (criterion for criterion, _ in found)
            chosen[cell] = found[earliest_best(criteria, higher_is_better=higher)][1]
    return chosen


def _stored(rule: str, run: Run) -> tuple[float, float] | None:
    """Finds the value that the rule selects by and the one that it reports."""
    name, criterion = _SINGLE[rule]
    chosen = run.selections.get(name)
    return None if chosen is None else (getattr(chosen, criterion), chosen.test_acc)


def _leave_one_out(
    run: Run, pairs: Mapping[tuple[Trial, int, frozenset[str]], Run]
) -> tuple[float, float] | None:
    """Does the same for the step that is best on runs that held out a source domain too."""
    [target] = run.test_domains
    tables: list[dict[int, float]] = []
    for source in run.source_domains:
        pair = pairs.get((run.trial, run.hparams_seed, frozenset((target, source))))
        if pair is None:
            return None
        tables.append({e.step: e.accuracies[f"test/{source}"] for e in pair.evaluations})
    reported = {e.step: e.accuracies[f"test/{target}"] for e in run.evaluations}
    steps = sorted(reported.keys() & set.intersection(*(set(table) for table in tables)))
    if not steps:
        return None
    means = [fmean(table[step] for table in tables) for step in steps]
    best = earliest_best(means, higher_is_better=run.metric.higher_is_better)
    return means[best], reported[steps[best]]
