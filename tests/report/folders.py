"""Run folders as gga-train leaves them, made up: accuracies are counts over known sizes."""

import csv
import hashlib
import itertools
import json
import random
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

DOMAINS = ("a", "b", "c", "d")
STEPS = (50, 100, 150, 200)
SIZES = {"val": 20, "oracle": 25, "seen": 25, "test": 40}  # samples of a part


@dataclass
class Spec:
    """One made-up run."""

    held_out: tuple[str, ...] = ("a",)
    algorithm: str = "erm"
    annealing: str = "none"
    seed: int = 0
    split_seed: int | None = None
    hparams_seed: int = 0
    hyperparameters: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    data: str = "shapes"
    domains: tuple[str, ...] = DOMAINS
    backbone: str = "mlp"
    steps: tuple[int, ...] = STEPS
    seconds: float = 10.0
    search: dict | None = None
    swad: bool = False
    groups: bool = False  # splits are by group
    versions: dict = field(default_factory=lambda: {"gga-lightning": "0.1.0", "torch": "2.15.0"})
    levels: int = 0  # how many accuracies there are, for ties; 0: all
    lift: float = 0.0  # how much better the runs of this method are
    folder: Path | None = None

    @property
    def sources(self):
        return tuple(name for name in self.domains if name not in self.held_out)

    @property
    def other(self):
        return "seen" if self.groups else "oracle"

    @property
    def trial(self):
        return (self.seed if self.split_seed is None else self.split_seed, self.seed)

    @property
    def identity(self):
        parts = (self.data, self.held_out, self.algorithm, self.annealing, self.trial)
        rest = (self.hparams_seed, sorted(self.settings.items()), self.backbone)
        return hashlib.sha256(repr((parts, rest)).encode()).hexdigest()[:16]


def search_summary(gain=0.01, transfer=None, seconds=4.0, window=(50, 101)):
    return {
        "steps": window[1] - window[0],
        "candidates": 100,
        "accepted": 7,
        "mean_gain": gain,
        "mean_transfer": transfer,
        "seconds": seconds,
        "window": list(window),
    }


def write_run(root, spec):
    """Leaves the folder of a finished run; the metrics are drawn by the run's identity."""
    draw = random.Random(spec.identity)
    spec.folder = Path(root) / (
        f"{spec.data}-{','.join(spec.held_out)}-{spec.algorithm}-{spec.annealing}"
        f"-seed{spec.seed}-{spec.identity}"
    )
    spec.folder.mkdir(parents=True)
    parts = [f"val/{name}" for name in spec.sources]
    parts += [f"{part}/{name}" for name in spec.held_out for part in ("test", spec.other)]
    evaluations = [
        (step, {part: accuracy(draw, part, spec) for part in parts}) for step in spec.steps
    ]
    write_metrics(spec, evaluations, draw)
    result = result_of(spec, evaluations, draw)
    (spec.folder / "result.json").write_text(json.dumps(result))
    job = {"config_hash": spec.identity, "overrides": result["overrides"], "starts": [0]}
    (spec.folder / "job.json").write_text(json.dumps(job))
    (spec.folder / "checkpoints").mkdir()
    (spec.folder / ".hydra").mkdir()
    return spec


def accuracy(draw, part, spec):
    size = SIZES[part.partition("/")[0]]
    count = draw.randrange(size + 1)
    if spec.levels:
        count = size * draw.randrange(spec.levels + 1) // spec.levels
    return min(size, round(count * (1 - spec.lift) + size * spec.lift)) / size


def means(evaluation, spec):
    step, accuracies = evaluation

    def mean(part, names):
        return sum(accuracies[f"{part}/{name}"] for name in names) / len(names)

    return {
        "step": step,
        "val_acc": mean("val", spec.sources),
        "oracle_acc": mean(spec.other, spec.held_out),
        "test_acc": mean("test", spec.held_out),
    }


def result_of(spec, evaluations, draw):
    averaged = [means(evaluation, spec) for evaluation in evaluations]
    exact = [
        {part: Fraction(value).limit_denominator(1000) for part, value in accuracies.items()}
        for _, accuracies in evaluations
    ]

    def best(part):
        totals = [sum(v for k, v in row.items() if k.startswith(part)) for row in exact]
        return averaged[totals.index(max(totals))]

    selections = {
        "training_domain_validation": best("val/"),
        "oracle": best(f"{spec.other}/"),
        "last": averaged[-1],
    }
    if spec.swad:
        numbers = {name: draw.randrange(41) / 40 for name in ("val_acc", "oracle_acc", "test_acc")}
        selections["swad"] = {"step": spec.steps[-1], **numbers}
    overrides = [
        f"data.test_domain='{spec.held_out[0]}'",
        f"algorithm={spec.algorithm}",
        f"annealing={spec.annealing}",
        f"seed={spec.seed}",
    ]
    if spec.split_seed is not None:
        overrides.append(f"data.split_seed={spec.split_seed}")
    return {
        "data": spec.data,
        "test_domain": ",".join(spec.held_out),
        "test_domains": list(spec.held_out),
        "source_domains": list(spec.sources),
        "algorithm": spec.algorithm,
        "annealing": spec.annealing,
        "backbone": spec.backbone,
        "seed": spec.seed,
        "split_seed": spec.trial[0],
        "hparams_seed": spec.hparams_seed,
        "hyperparameters": spec.hyperparameters,
        "steps": spec.steps[-1],
        "selections": selections,
        "evaluations": [{"step": step, "accuracies": row} for step, row in evaluations],
        "search": spec.search,
        "seconds": spec.seconds,
        "versions": spec.versions,
        "config_hash": spec.identity,
        "overrides": [*overrides, *spec.overrides],
        "settings": {"data.batch_size": 16, "trainer.max_steps": 200, **spec.settings},
    }


def write_metrics(spec, evaluations, draw):
    """As Lightning's CSVLogger: a line has some of the columns."""
    pairs = [f"conflict/{a}-{b}" for a, b in itertools.combinations(spec.sources, 2)]
    lines = [
        {"step": step, "epoch": 0, **{pair: draw.uniform(-1, 1) for pair in pairs}}
        for step in range(0, spec.steps[-1], 10)
    ]
    for epoch, (step, accuracies) in enumerate(evaluations):
        named = {f"{part}/acc": value for part, value in accuracies.items()}
        total = means((step, accuracies), spec)
        named |= {"val/acc": total["val_acc"], "test/acc": total["test_acc"]}
        lines.append({"step": step - 1, "epoch": epoch, "train/loss": "", **named})
    columns = list(dict.fromkeys(name for line in lines for name in line))
    with (spec.folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(lines)


def leave_one_out_specs(domains=DOMAINS, seeds=(0, 1, 2), pairs=True, **settings):
    """A whole sweep: each domain held out, and each two of them."""
    held_out = [(name,) for name in domains]
    held_out += list(itertools.combinations(domains, 2)) if pairs else []
    return [
        Spec(held_out=names, seed=seed, domains=domains, **settings)
        for names in held_out
        for seed in seeds
    ]
