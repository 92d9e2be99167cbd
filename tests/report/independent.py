"""The report's numbers once more, from the metrics files alone, in exact fractions."""

import csv
import math
from fractions import Fraction

from scipy.stats import ttest_1samp


def evaluations(spec):
    """Step to part to accuracy, in order."""
    found = {}
    with (spec.folder / "metrics.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            if line["val/acc"]:
                found[int(line["step"]) + 1] = {
                    name.removesuffix("/acc"): Fraction(value).limit_denominator(1000)
                    for name, value in line.items()
                    if value and name.count("/") == 2
                }
    return found


def mean(values):
    values = list(values)
    return sum(values) / Fraction(len(values))


def first_best(options):
    """The report of the first option with the highest criterion."""
    best = None
    for criterion, reported in options:
        if best is None or criterion > best[0]:
            best = criterion, reported
    return best


def choose(rule, spec, specs):
    """Criterion and reported accuracy of one run, or None."""
    table = evaluations(spec)
    [target] = spec.held_out
    val = {s: mean(row[f"val/{d}"] for d in spec.sources) for s, row in table.items()}
    test = {s: row[f"test/{target}"] for s, row in table.items()}
    oracle = {s: row[f"oracle/{target}"] for s, row in table.items()}
    last = max(table)
    if rule == "training_domain_validation":
        return first_best((val[s], test[s]) for s in table)
    if rule == "oracle":
        return first_best((oracle[s], test[s]) for s in table)
    if rule == "oracle_last":
        return oracle[last], test[last]
    if rule == "last":
        return val[last], test[last]
    others = []
    for source in spec.sources:
        same = [
            other
            for other in specs
            if set(other.held_out) == {target, source}
            and (other.trial, other.hparams_seed) == (spec.trial, spec.hparams_seed)
        ]
        if not same:
            return None
        others.append({s: row[f"test/{source}"] for s, row in evaluations(same[0]).items()})
    steps = [s for s in table if all(s in other for other in others)]
    return first_best((mean(other[s] for other in others), test[s]) for s in steps)


def accuracies(rule, specs):
    """Trial and domain to the chosen accuracy, for the runs of one method."""
    found = {}
    for spec in sorted(specs, key=lambda spec: spec.hparams_seed):
        if len(spec.held_out) == 1:
            option = choose(rule, spec, specs)
            if option is not None:
                found.setdefault((spec.trial, spec.held_out[0]), []).append(option)
    return {cell: first_best(options)[1] for cell, options in found.items()}


def cell(values, domainbed=False):
    """Mean, standard error and sample deviation in percent; the last two None for one value."""
    values = [100 * float(value) for value in values]
    center = sum(values) / len(values)
    if len(values) == 1:
        return center, None, None
    squares = sum((value - center) ** 2 for value in values)
    deviation = math.sqrt(squares / (len(values) - 1))
    spread = math.sqrt(squares / len(values)) if domainbed else deviation
    return center, spread / math.sqrt(len(values)), deviation


def averages(found, domains):
    """The mean over domains of each trial that has all of them."""
    trials = sorted({trial for trial, _ in found})
    return [
        mean(found[trial, domain] for domain in domains)
        for trial in trials
        if all((trial, domain) in found for domain in domains)
    ]


def differences(found, baseline):
    """One a trial, in points, of the trials in which both have all domains that both have."""
    common = found.keys() & baseline.keys()
    domains = {domain for _, domain in common}
    cells = {
        trial: [cell for cell in common if cell[0] == trial]
        for trial in sorted({trial for trial, _ in common})
    }
    return [
        100 * float(mean(found[cell] - baseline[cell] for cell in there))
        for there in cells.values()
        if len(there) == len(domains)
    ]


def interval(values):
    """The t interval of the mean."""
    return ttest_1samp(values, 0.0).confidence_interval(0.95)
