"""How long gga-report takes for a large sweep: reading, computing and printing apart.

    python benchmarks/report.py
    python benchmarks/report.py --runs 20000

Makes run folders in a temporary folder: methods on data of six domains, each domain held out and
for some methods each two of them, in several trials, 16 evaluations a run, every fiftieth result
broken off. The table has the time of each part, under all model selection rules.
"""

import argparse
import itertools
import json
import random
import tempfile
import time
from pathlib import Path

from gga_lightning.report.bases import arrange
from gga_lightning.report.formats import to_text
from gga_lightning.report.methods import group_methods, order_domains
from gga_lightning.report.notes import finding_notes, gap_note
from gga_lightning.report.rules import RULES
from gga_lightning.report.runs import read_runs
from gga_lightning.report.statistics import compute_comparison
from gga_lightning.report.tables import accuracy_table, difference_table

DOMAINS = ["0", "15", "30", "45", "60", "75"]
EVALUATIONS = 16
TRIALS = 5
BROKEN = 50


def jobs():
    """Algorithm, annealing, setting, held-out domains and seed, without end."""
    singles = [(domain,) for domain in DOMAINS]
    for setting in itertools.count():
        for algorithm in ("erm", "coral", "vrex", "sam"):
            for annealing in ("none", "gga", "gga_l"):
                pairs = list(itertools.combinations(DOMAINS, 2)) if annealing == "none" else []
                for held_out in singles + pairs:
                    for seed in range(TRIALS):
                        yield algorithm, annealing, setting, held_out, seed


def result(algorithm, annealing, setting, held_out, seed, draw):
    sources = [domain for domain in DOMAINS if domain not in held_out]
    parts = [f"val/{domain}" for domain in sources]
    parts += [f"{part}/{domain}" for part in ("test", "oracle") for domain in held_out]
    evaluations = [
        {"step": 50 * (k + 1), "accuracies": {part: draw.random() for part in parts}}
        for k in range(EVALUATIONS)
    ]

    def summary(evaluation):
        values = {"step": evaluation["step"]}
        for part in ("val", "oracle", "test"):
            found = [v for k, v in evaluation["accuracies"].items() if k.startswith(part)]
            values[f"{part}_acc"] = sum(found) / len(found)
        return values

    averaged = [summary(evaluation) for evaluation in evaluations]
    return {
        "data": "digits-rotation",
        "test_domain": ",".join(held_out),
        "test_domains": held_out,
        "source_domains": sources,
        "algorithm": algorithm,
        "annealing": annealing,
        "backbone": "mlp",
        "seed": seed,
        "split_seed": seed,
        "hparams_seed": 0,
        "hyperparameters": {},
        "steps": 50 * EVALUATIONS,
        "selections": {
            "training_domain_validation": max(averaged, key=lambda a: a["val_acc"]),
            "oracle": max(averaged, key=lambda a: a["oracle_acc"]),
            "last": averaged[-1],
        },
        "evaluations": evaluations,
        "search": None,
        "seconds": 60.0,
        "versions": {"gga-lightning": "0.1.0"},
        "config_hash": f"{draw.getrandbits(64):016x}",
        "overrides": [f"algorithm={algorithm}", f"annealing={annealing}"],
        "settings": {f"group.setting{k}": k for k in range(80)} | {"group.setting0": setting},
    }


def make(root, count):
    draw = random.Random(0)
    for index, job in enumerate(itertools.islice(jobs(), count)):
        folder = root / f"run-{index}"
        folder.mkdir()
        text = json.dumps(result(*job, draw), indent=2)
        (folder / "result.json").write_text(text[: None if index % BROKEN else len(text) // 2])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options.runs)
        times = [time.perf_counter()]
        reading = read_runs([Path(folder)])
        times.append(time.perf_counter())
        methods, _ = group_methods(reading.runs)
        methods = arrange(methods)
        domains = order_domains(reading.runs)
        comparisons = [
            compute_comparison("digits-rotation", rule, methods, domains) for rule in RULES
        ]
        times.append(time.perf_counter())
        parts = finding_notes(reading.findings)
        told = set()
        for comparison in comparisons:
            parts += [accuracy_table(comparison), difference_table(comparison)]
            parts += gap_note(comparison, told)
        text = to_text(part for part in parts if part is not None)
        times.append(time.perf_counter())
    broken = len(reading.findings)
    print(f"{options.runs} run folders, {broken} of them broken, {len(methods)} rows, all rules")
    spans = [later - earlier for earlier, later in itertools.pairwise(times)]
    for name, seconds in zip(("reading", "computing", "printing"), spans, strict=True):
        print(f"{name:<10} {seconds:6.2f} s")
    print(f"{'together':<10} {sum(spans):6.2f} s, {len(text.splitlines()):,} lines")


if __name__ == "__main__":
    main()
