"""All that is to be seen on a GPU, in one table: correctness, time, memory, PASS or FAIL.

    python benchmarks/gpu_check.py                            # on one NVIDIA GPU; minutes
    python benchmarks/gpu_check.py --before ../before/src     # times of another version of ours too
    python benchmarks/gpu_check.py --device cpu --quick       # to see that it runs

Times are milliseconds a candidate, of a searched step by the callback in a Trainer. Every engine
searches the same step with equal weights, in rounds; the table has medians. The paper's step is
`benchmarks/paper_step.py`, once with PyTorch's defaults (TF32 in convolutions) and once in float32.
`graphs` and `eager` compute in float32, `bf16` is `precision="trainer"` under "bf16-mixed" with
graphs. `gradients` are the three domains' gradients alone, in float32.

`benchmarks/gpu_check.sh` runs this and the tests marked `gpu`.
"""

import argparse
import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import torch
from lightning.pytorch import Callback
from models import MODELS
from paper_step import PaperSearch
from search_cost import RADIUS, Search, fit
from torch.nn import functional

from gga_lightning import Walk

CASES = {  # model, samples a domain, candidates a step, rounds
    "mlp 3x32": ("mlp", 32, 250, 3),
    "mnist_cnn 3x32": ("mnist_cnn", 32, 250, 2),
    "resnet18 3x4": ("resnet18", 4, 120, 2),
    "resnet18 3x32": ("resnet18", 32, 80, 2),
    "resnet50 3x32": ("resnet50", 32, 40, 2),
    "vit_tiny 3x32": ("vit_tiny", 32, 60, 2),
}
# the largest ratios that count as passed: to an earlier version, and to the paper's step
OF_BEFORE = {"mlp 3x32": 0.35, "resnet18 3x4": 0.4, "resnet18 3x32": 0.85, "vit_tiny 3x32": 0.6}
OF_PAPER, OF_PAPER_RESNET50, BF16_OF_PAPER = 0.70, 1.0, 0.50
OF_GRADIENTS = 1.15 * 2 / 3  # a rejected candidate needs two of the three domains


class Timed(Callback):
    """Times what the search between its two halves does at each step but the first."""

    def __init__(self, device):
        self.device, self.seconds, self.peaks, self.began = device, [], [], 0.0
        outer = self

        class First(Callback):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                outer.begin()

        self.first = First()

    def begin(self):
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.held = torch.cuda.memory_allocated()
        self.began = time.perf_counter()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.end()

    def end(self):
        if self.device == "cuda":
            torch.cuda.synchronize()
            self.peaks.append(torch.cuda.max_memory_allocated() - self.held)
        self.seconds.append(time.perf_counter() - self.began)


@contextlib.contextmanager
def tf32(convolutions):
    """PyTorch's setting for convolutions: TF32 is the default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = convolutions
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def model_of(case, quick):
    """The model with the case's batch and candidates, and the number of rounds."""
    name, samples, candidates, rounds = CASES[case]
    if quick:
        candidates, rounds = 10, 1
    return replace(MODELS[name], samples=samples, candidates=candidates), rounds


def bare(model, device):
    """A module on the device, and the inputs and targets of its domains."""
    torch.manual_seed(0)
    return model.module().to(device).train(), list(model.batch(device).values())


def ours(case, device, quick, *, graphs=True, precision="32-true", chosen="float32"):
    """Milliseconds a candidate, and MiB over what was held before."""
    model, rounds = model_of(case, quick)
    timed = Timed(device)
    settings = {} if chosen == "float32" else {"precision": chosen}  # which earlier versions lack
    gga = Search(0, rounds + 1, proposal=Walk(RADIUS), num_candidates=model.candidates, **settings)
    gga.cuda_graphs = graphs
    fit(model, device, timed.first, gga, timed, steps=rounds + 1, precision=precision)
    each = [1000 * seconds / model.candidates for seconds in timed.seconds[1:]]
    return statistics.median(each), max(timed.peaks[1:], default=0) / 2**20


def paper(case, device, quick, *, convolutions):
    model, rounds = model_of(case, quick)
    module, parts = bare(model, device)
    candidates = max(2, model.candidates // 4)
    network = torch.nn.Sequential(module.featurizer, module.classifier)
    timed = Timed(device)
    with tf32(convolutions):
        PaperSearch(network, network[0], RADIUS).step(parts, 2)
        for _ in range(rounds):
            timed.begin()
            PaperSearch(network, network[0], RADIUS).step(parts, candidates)
            timed.end()
    each = [1000 * seconds / candidates for seconds in timed.seconds]
    return statistics.median(each), max(timed.peaks, default=0) / 2**20


def gradients(case, device, quick):
    """Milliseconds of the domains' gradients, without anything around them."""
    module, parts = bare(model_of(case, quick)[0], device)
    params, timed = list(module.parameters()), Timed(device)
    with tf32(False):
        for _ in range(2 if quick else 6):
            timed.begin()
            for x, y in parts:
                torch.autograd.grad(functional.cross_entropy(module(x), y), params)
            timed.end()
    return 1000 * statistics.median(timed.seconds[1:])


def synchronizations(case, device):
    """How often a step of 20 candidates waits for the GPU."""
    gga = Search(0, 1, proposal=Walk(RADIUS), num_candidates=20)
    found = []
    act = gga._search

    def counted(*arguments):
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = act(*arguments)
        torch.cuda.set_sync_debug_mode("default")
        found.append(sum("synchronizing" in str(each.message) for each in caught))
        return result

    gga._search = counted
    fit(model_of(case, True)[0], device, gga, steps=1)
    return found[0]


def before(case, source, device, quick):
    """The same by another version of ours, in a process of its own."""
    command = [sys.executable, __file__, "--device", device, "--one", case]
    environment = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run(
        command + ["--quick"] * quick, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def row(case, device, quick, source):
    with tf32(True):  # ours turns it off by itself
        graphs, memory = ours(case, device, quick)
        eager, eager_memory = ours(case, device, quick, graphs=False)
        bf16, _ = ours(case, device, quick, precision="bf16-mixed", chosen="trainer")
    theirs, their_memory = paper(case, device, quick, convolutions=True)
    return {
        "graphs": graphs,
        "eager": eager,
        "bf16": bf16,
        "paper": theirs,
        "paper fp32": paper(case, device, quick, convolutions=False)[0],
        "gradients": gradients(case, device, quick),
        "before": before(case, source, device, quick) if source else None,
        "MiB": memory,
        "MiB eager": eager_memory,
        "MiB paper": their_memory,
    }


def verdicts(rows):
    """What each limit says: its words, the value and the limit."""
    for case, found in rows.items():
        if found["before"] is not None and case in OF_BEFORE:
            yield f"{case}: time to before", found["graphs"] / found["before"], OF_BEFORE[case]
        limit = OF_PAPER_RESNET50 if case.startswith("resnet50") else OF_PAPER
        yield f"{case}: float32 to the paper's step", found["graphs"] / found["paper"], limit
        yield f"{case}: bf16 to the paper's step", found["bf16"] / found["paper"], BF16_OF_PAPER
        if case.startswith("resnet50"):
            ratio = found["graphs"] / found["gradients"]
            yield f"{case}: float32 to the gradients alone", ratio, OF_GRADIENTS


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--before", help="the folder src of another version of ours")
    parser.add_argument("--quick", action="store_true", help="few candidates, one round")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if options.one:
        print(json.dumps(ours(options.one, options.device, options.quick)[0]))
        return
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    print(f"torch {torch.__version__}, {name}\n")
    print("milliseconds a candidate, and MiB of a searched step")
    rows = {}
    for case in options.cases:
        found = rows[case] = row(case, options.device, options.quick, options.before)
        if len(rows) == 1:
            print(f"{'case':<16}" + "".join(f"{name:>11}" for name in found))
        values = ("-" if value is None else f"{value:.2f}" for value in found.values())
        print(f"{case:<16}" + "".join(f"{value:>11}" for value in values), flush=True)
    print()
    for words, value, limit in verdicts(rows):
        print(f"{'PASS' if value <= limit else 'FAIL'}  {words}: {value:.2f}, at most {limit:.2f}")
    if options.device == "cuda":
        waits = synchronizations(options.cases[0], options.device)
        print(f"\nwaits for the GPU in a step of 20 candidates, recording included: {waits}")


if __name__ == "__main__":
    main()
