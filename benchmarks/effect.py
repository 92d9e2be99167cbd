"""What an annealing does to the accuracy on the held-out domain, paired by seed.

    python benchmarks/effect.py --arms voting voting_shuffled -- \
        data.dataset.shift=shortcut data.test_domain=random

Every arm is a choice of `annealing`, trained by gga-train's own code on the same weights, splits
and batches as the baseline of the same seed. The table has the mean accuracy at the last step and
the mean difference to the baseline with its 95 % bootstrap interval, in points.
"""

import argparse
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from gga_lightning.train import config_directory, train


def accuracy(arm, seed, overrides):
    quiet = ["+trainer.enable_progress_bar=false", "callbacks=none", "logger=none"]
    choices = [f"annealing={arm}", f"seed={seed}", "data.steps_per_epoch=200", *quiet, *overrides]
    with tempfile.TemporaryDirectory() as folder:
        result = train(compose("train", choices), Path(folder), {})
    return 100 * result["selections"]["last"]["test_acc"]


def interval(differences, draws=10_000):
    rows = np.random.default_rng(0).integers(len(differences), size=(draws, len(differences)))
    return np.quantile(np.asarray(differences)[rows].mean(1), [0.025, 0.975])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--baseline", default="none")
    parser.add_argument("--arms", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 10), metavar=("FROM", "TO"))
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for every arm, after --")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    seeds = range(*arguments.seeds)
    arms = [arguments.baseline, *arguments.arms]
    found = {arm: [] for arm in arms}
    with initialize_config_dir(config_directory(), version_base="1.3"):
        for seed in seeds:
            for arm in arms:
                found[arm].append(accuracy(arm, seed, arguments.overrides))
            line = ", ".join(f"{arm} {found[arm][-1]:.1f}" for arm in arms)
            print(f"seed {seed}: {line}", file=sys.stderr, flush=True)
    print(f"{' '.join(arguments.overrides)}, seeds {seeds.start} to {seeds.stop - 1}\n")
    print(f"{'annealing':20} {'held-out':>9} {'difference':>11} {'95 % interval':>18}")
    base = np.asarray(found[arguments.baseline])
    for arm, values in found.items():
        line = f"{arm:20} {np.mean(values):9.1f}"
        if arm != arguments.baseline:
            differences = np.asarray(values) - base
            low, high = interval(differences)
            between = f"[{low:+.1f}, {high:+.1f}]"
            line += f" {differences.mean():+11.1f} {between:>18}"
        print(line)


if __name__ == "__main__":
    main()
