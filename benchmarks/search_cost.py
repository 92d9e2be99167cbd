"""Time and memory of a searched step, ours against the paper's, interleaved in one run.

    python benchmarks/search_cost.py
    python benchmarks/search_cost.py --models mlp resnet18 --proposals walk --rounds 9
    python benchmarks/search_cost.py --device cuda
    python benchmarks/search_cost.py --before ../before/src     # against another version of ours
    python benchmarks/search_cost.py --buffer                   # a buffer that nothing touches
    python benchmarks/search_cost.py --clock processor          # on a machine that others use

A round searches one step with one engine and then with the other, on equal weights and the same
batch. The table has medians over the rounds, and the median of the rounds' ratios, ours over the
paper's. Ours runs as users run it, as a callback in a Trainer, on a LightningModule.

Memory is the peak over what the process held with the model and the batch made: the resident
set, each engine in a process of its own; on a GPU what torch allocated.

`--before` times searched steps of two versions in processes that alternate, and prints the ratio
of the medians, now over before. With `--clock processor` the times are those that the process had
a core, all threads together: where other programs run too, only these are steady.
"""

import argparse
import copy
import itertools
import json
import os
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
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
clock = CLOCKS["wall"]


class Search(GradientGuidedAnnealing):
    """Without the measurements of rounding errors, two in a window of any length."""

    def _measure_resolution(self, *arguments):
        pass


class Frame(Callback):
    """Times what the callback between :attr:`first` and this one does when a batch begins."""

    def __init__(self, device, before=None):
        self.device, self.before, self.seconds, self.began = device, before, [], 0.0
        self.first = First(self)

    def now(self):
        if self.device == "cuda":
            torch.cuda.synchronize()
        return clock()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step > 0:  # the first round warms up
            self.seconds.append(self.now() - self.began)


class First(Callback):
    def __init__(self, frame):
        self.frame = frame

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.frame.before is not None:
            self.frame.before(trainer, pl_module, batch)
        self.frame.began = self.frame.now()


class PaperRounds:
    """Times the paper's step on a copy of the module."""

    def __init__(self, model, device):
        self.model, self.frame, self.seconds = model, Frame(device), []

    def __call__(self, trainer, pl_module, batch):
        twin = copy.deepcopy(torch.nn.Sequential(pl_module.featurizer, pl_module.classifier))
        paper, batches = PaperSearch(twin, twin[0], RADIUS), list(batch.values())
        began = self.frame.now()
        paper.step(batches, self.model.candidates)
        if trainer.global_step > 0:
            self.seconds.append(self.frame.now() - began)


def searched_steps(model, engine, rounds, device, before=None, buffer=0):
    """Seconds of each searched step."""
    gga = Search(0, rounds + 1, proposal=ENGINES[engine], num_candidates=model.candidates)
    frame = Frame(device, before)
    fit(model, device, frame.first, gga, frame, steps=rounds + 1, buffer=buffer)
    return frame.seconds


def fit(model, device, *callbacks, steps, buffer=0, precision="32-true"):
    trainer = Trainer(
        callbacks=list(callbacks),
        max_steps=steps,
        precision=precision,
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
    if buffer:
        module.register_buffer("table", torch.zeros(buffer // 4))
    trainer.fit(module, Repeat(batch), [])


class Repeat:
    """A loader that yields one batch without end."""

    def __init__(self, batch):
        self.batch = batch

    def __iter__(self):
        while True:
            yield self.batch


def compare(name, engine, rounds, device):
    model = MODELS[name]
    paper = PaperRounds(model, device)
    ours = searched_steps(model, engine, rounds, device, paper)
    ratios = [a / b for a, b in zip(ours, paper.seconds, strict=True)]
    each = 1000 / model.candidates
    return {
        "ours": statistics.median(ours) * each,
        "paper": statistics.median(paper.seconds) * each,
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
    }


def peak_memory(name, engine, device):
    """MiB over what is held before the step; in this process."""
    model = MODELS[name]
    held = []

    class Begins(Callback):
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

    class Ends(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            gpu = device == "cuda"
            held.append(torch.cuda.max_memory_allocated() if gpu else _resident("VmHWM"))
            trainer.should_stop = True

    callbacks = [Begins(), Ends()]
    if engine != "paper":
        gga = Search(0, 1, proposal=ENGINES[engine], num_candidates=3)
        callbacks.insert(1, gga)
    fit(model, device, *callbacks, steps=1)
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


def in_new_process(*arguments, source=None):
    name = next(name for name, kind in CLOCKS.items() if kind is clock)
    command = [sys.executable, __file__, "--clock", name, "--one", *map(str, arguments)]
    own = {} if source is None else {"PYTHONPATH": str(source)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **own}
    )
    return json.loads(done.stdout.splitlines()[-1])


def one(what, *arguments):
    """What a process of its own computes."""
    if what == "memory":
        return peak_memory(*arguments)
    name, engine, rounds, device, buffer = arguments
    return searched_steps(MODELS[name], engine, int(rounds), device, buffer=int(buffer))


def against_paper(arguments):
    print(
        f"{'model':10} {'proposal':8} {'ms a candidate: ours':>21} {'paper':>8} {'ratio':>6} "
        f"{'(low-high)':>13} {'peak MiB: ours':>15} {'paper':>7} {'ratio':>6}"
    )
    for name in arguments.models:
        paper = in_new_process("memory", name, "paper", arguments.device)
        for engine in arguments.proposals:
            found = compare(name, engine, arguments.rounds, arguments.device)
            memory = in_new_process("memory", name, engine, arguments.device)
            spread = f"({found['low']:.2f}-{found['high']:.2f})"
            print(
                f"{name:10} {engine:8} {found['ours']:21.2f} {found['paper']:8.2f} "
                f"{found['ratio']:6.2f} {spread:>13} {memory:15.0f} {paper:7.0f} "
                f"{memory / paper:6.2f}",
                flush=True,
            )
    hook, step = overhead(arguments.device)
    print(
        f"\nOutside the window, mnist_cnn: {hook:.1f} us in a step of {step:.0f} us "
        f"({hook / step:.2%})"
    )


def alternate(arguments, left, right):
    """Medians of the searched steps of two settings, in processes that alternate."""
    steps = ([], [])
    for _ in range(arguments.rounds):
        for found, (source, *setting) in zip(steps, (left, right), strict=True):
            found += in_new_process("steps", *setting, source=source)
    return [statistics.median(found) for found in steps]


def against_before(arguments):
    print(f"{'model':10} {'proposal':8} {'ms a step: before':>18} {'now':>9} {'now / before':>13}")
    for name in arguments.models:
        for engine in arguments.proposals:
            setting = (name, engine, 3, arguments.device, 0)
            before, now = alternate(arguments, (arguments.before, *setting), (None, *setting))
            print(
                f"{name:10} {engine:8} {1000 * before:18.1f} {1000 * now:9.1f} "
                f"{now / before:13.3f}",
                flush=True,
            )


def with_buffer(arguments):
    size = 200_000_000
    print(f"{'model':10} {'ms a step: without':>19} {'with 200 MB':>12} {'with / without':>15}")
    for name in arguments.models:
        plain, large = ((None, name, "walk", 3, arguments.device, n) for n in (0, size))
        without, held = alternate(arguments, plain, large)
        print(
            f"{name:10} {1000 * without:19.1f} {1000 * held:12.1f} {held / without:15.3f}",
            flush=True,
        )


def main():
    global clock
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--proposals", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--before", help="folder of another version's packages")
    parser.add_argument("--buffer", action="store_true")
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    device, clock = arguments.device, CLOCKS[arguments.clock]
    if arguments.one:
        print(json.dumps(one(*arguments.one)))
        return
    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print(
        f"torch {torch.__version__}, {device} ({where}), {arguments.rounds} rounds, "
        f"{arguments.clock} time\n"
    )
    if arguments.before:
        against_before(arguments)
    elif arguments.buffer:
        with_buffer(arguments)
    else:
        against_paper(arguments)


if __name__ == "__main__":
    main()
