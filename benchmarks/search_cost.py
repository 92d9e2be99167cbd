"""Time and memory of a searched step, ours against the paper's, interleaved in one run.

    python benchmarks/search_cost.py
    python benchmarks/search_cost.py --models mlp resnet18 --rounds 9
    python benchmarks/search_cost.py --device cuda

A round searches one step with one engine and then with the other, on equal weights and the same
batch. The table has medians over the rounds, and the median of the rounds' ratios, ours over the
paper's. Ours runs as users run it, as a callback in a Trainer, on a LightningModule.

Memory is the peak over what the process held with the model and the batch made: the resident
set, each engine in a process of its own; on a GPU what torch allocated.
"""

import argparse
import copy
import itertools
import json
import statistics
import subprocess
import sys
import time
import warnings

import torch
from lightning.pytorch import Callback, Trainer
from models import MODELS
from paper_step import PaperSearch

from gga_lightning import Ball, GradientGuidedAnnealing, Walk

RADIUS = 1e-5
ENGINES = {"walk": Walk(RADIUS), "ball": Ball(RADIUS)}


class Rounds(Callback):
    """Times both engines at each step of a fit."""

    def __init__(self, name, engine, rounds, device):
        self.model = MODELS[name]
        self.gga = GradientGuidedAnnealing(
            0, rounds + 1, proposal=ENGINES[engine], num_candidates=self.model.candidates
        )
        self.device, self.ours, self.papers = device, [], []

    def setup(self, trainer, pl_module, stage):
        self.gga.setup(trainer, pl_module, stage)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        twin = copy.deepcopy(torch.nn.Sequential(pl_module.featurizer, pl_module.classifier))
        paper = PaperSearch(twin, twin[0], RADIUS)
        batches = list(batch.values())
        search = (self.gga._search, trainer, pl_module, batch, batch_idx)
        ours = self.time(*search)
        papers = self.time(paper.step, batches, self.model.candidates)
        if trainer.global_step > 0:  # the first round warms up
            self.ours.append(ours)
            self.papers.append(papers)

    def time(self, function, *args):
        if self.device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        function(*args)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def fit(model, device, *callbacks, steps):
    trainer = Trainer(
        callbacks=list(callbacks),
        max_steps=steps,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    torch.manual_seed(0)
    batch = model.batch("cpu")
    module = model.module()
    trainer.fit(module, Repeat(batch), [])


class Repeat:
    """A loader that yields one batch without end."""

    def __init__(self, batch):
        self.batch = batch

    def __iter__(self):
        while True:
            yield self.batch


def compare(name, engine, rounds, device):
    timed = Rounds(name, engine, rounds, device)
    fit(timed.model, device, timed, steps=rounds + 1)
    ratios = [a / b for a, b in zip(timed.ours, timed.papers, strict=True)]
    each = 1000 / timed.model.candidates
    return {
        "ours": statistics.median(timed.ours) * each,
        "paper": statistics.median(timed.papers) * each,
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
    }


def peak_memory(name, engine, device):
    """MiB over what is held before the step; in this process."""
    model = MODELS[name]
    held = []

    class Once(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                held.append(torch.cuda.memory_allocated())
            else:
                held.append(_resident("VmRSS"))
                with open("/proc/self/clear_refs", "w") as file:
                    file.write("5")  # the peak counts from here
            if engine == "paper":
                network = torch.nn.Sequential(pl_module.featurizer, pl_module.classifier)
                PaperSearch(network, network[0], RADIUS).step(list(batch.values()), 3)
            else:
                self.gga = GradientGuidedAnnealing(0, 1, proposal=ENGINES[engine], num_candidates=3)
                self.gga._search(trainer, pl_module, batch, batch_idx)
            if device == "cuda":
                held.append(torch.cuda.max_memory_allocated())
            else:
                held.append(_resident("VmHWM"))
            trainer.should_stop = True

    fit(model, device, Once(), steps=1)
    before, peak = held
    return (peak - before) / 2**20


def _resident(field):
    """Bytes of this process's memory now (VmRSS) or at its peak (VmHWM), as Linux counts them."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(field))
    return 1024 * int(line.split()[1])


def overhead(device, rounds=400):
    """Time of the callback's hook outside its window, and of a training step, in microseconds."""
    model, hook = MODELS["mnist_cnn"], []

    class Outside(GradientGuidedAnnealing):
        def on_train_batch_start(self, *args):
            began = time.perf_counter()
            super().on_train_batch_start(*args)
            hook.append(time.perf_counter() - began)

    ends = []

    class Ends(Callback):
        def on_train_batch_end(self, *args):
            ends.append(time.perf_counter())

    fit(model, device, Outside(10**6, 10**6 + 1), Ends(), steps=rounds)
    steps = [b - a for a, b in itertools.pairwise(ends[20:])]
    return 1e6 * statistics.median(hook[20:]), 1e6 * statistics.median(steps)


def in_new_process(*arguments):
    command = [sys.executable, __file__, "--one", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    device = arguments.device
    if arguments.one:
        name, engine, device = arguments.one
        print(json.dumps(peak_memory(name, engine, device)))
        return
    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print(f"torch {torch.__version__}, {device} ({where}), {arguments.rounds} rounds\n")
    print(
        f"{'model':10} {'proposal':8} {'ms a candidate: ours':>21} {'paper':>8} {'ratio':>6} "
        f"{'(low-high)':>13} {'peak MiB: ours':>15} {'paper':>7} {'ratio':>6}"
    )
    for name in arguments.models:
        paper = in_new_process(name, "paper", device)
        for engine in ENGINES:
            found = compare(name, engine, arguments.rounds, device)
            memory = in_new_process(name, engine, device)
            spread = f"({found['low']:.2f}-{found['high']:.2f})"
            print(
                f"{name:10} {engine:8} {found['ours']:21.2f} {found['paper']:8.2f} "
                f"{found['ratio']:6.2f} {spread:>13} {memory:15.0f} {paper:7.0f} "
                f"{memory / paper:6.2f}",
                flush=True,
            )
    hook, step = overhead(device)
    print(
        f"\nOutside the window, mnist_cnn: {hook:.1f} us in a step of {step:.0f} us "
        f"({hook / step:.2%})"
    )


if __name__ == "__main__":
    main()
