"""Time to copy a module before each step that is searched, ours and Python's, interleaved.

    python benchmarks/twin_cost.py

The copies share the trainable parameters. The table has medians over the rounds.
"""

import copy
import statistics
import time

import torch
import torchvision
from models import MODELS

from gga_lightning.probing.twin import Known, Twin

MODULES = {
    "mlp": MODELS["mlp"].module,
    "resnet50": torchvision.models.resnet50,
    "vit_b_16": torchvision.models.vit_b_16,
}
ROUNDS = 15


def seconds(make, *arguments):
    began = time.perf_counter()
    make(*arguments)
    return time.perf_counter() - began


def by_python(module):
    copy.deepcopy(module, {id(param): param for param in module.parameters()})


def main():
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, cpu (1 thread), {ROUNDS} rounds\n")
    print(f"{'module':10} {'ms: ours':>9} {'deepcopy':>9} {'ratio':>6}")
    for name, make in MODULES.items():
        module = make()
        rounds = [
            (seconds(Twin, module, Known()), seconds(by_python, module)) for _ in range(ROUNDS + 1)
        ]
        ours, python = (1000 * statistics.median(times) for times in zip(*rounds[1:], strict=True))
        print(f"{name:10} {ours:9.2f} {python:9.2f} {ours / python:6.2f}")


if __name__ == "__main__":
    main()
