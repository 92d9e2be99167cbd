"""Time of a training step of every algorithm over that of ERM, interleaved in one run.

    python benchmarks/algorithm_cost.py
    python benchmarks/algorithm_cost.py --models mnist_cnn --rounds 15

A round makes one step with each algorithm, on equal batches; the table has the median over the
rounds of the time over ERM's in the same round, with the quarter and three-quarter points. Beside
it are the passes through the network that the method needs (f forward, b backward; ERM needs
f + b), the arithmetic that was counted in a step (multiplications of matrices and convolutions,
over ERM's), and the time over that arithmetic.

Algorithms whose penalty begins after some steps are timed with it on, and GENIE as the optimizer
of ERM. Hooks on the network check that a step makes the passes of the table. `--clock processor`
takes processor time, for a busy machine.

The context network of ARM, of 64 channels at the images' full size, is slow for its
multiplications; so there is a line for its two networks alone, without our code around them.
"""

import argparse
import re
import statistics
import time
import warnings
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from gga_lightning.backbones import MNISTCNN, TorchvisionFeaturizer
from gga_lightning.experiments.train import config_directory

NETWORKS = {
    "mnist_cnn": (MNISTCNN, (1, 28, 28), 10, 32),
    "resnet18": (
        lambda shape: TorchvisionFeaturizer("resnet18", shape, freeze_batchnorm=True),
        (3, 224, 224),
        7,
        4,
    ),
}
DOMAINS = 3
PASSES = {
    "arm": "f + b, and the context network's",
    "cdann": "f + b, and the discriminator's",
    "dann": "f + b, and the discriminator's",
    "gsam": "2 f + 2 b",
    "iga": "f + b, and b through both",
    "miro": "f + b, and f of the pretrained network",
    "sagm": "2 f + 2 b",
    "sagnet": "3 f + 2 b",
    "sam": "2 f + 2 b",
    "selfreg": "f + b, and the projection's",
    "transfer": "3 f + 2 b",
    "urm": "f + b, and the discriminator's",
}
ON = {name: {"anneal_steps": 0} for name in ("irm", "vrex", "fishr", "ib_erm", "rdm")} | {
    "eqrm": {"burnin_steps": 0},
    "ib_irm": {"anneal_steps": 0, "irm_anneal_steps": 0},
}
GENIE = "erm, optimizer=genie"
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def make(name, network):
    """The algorithm after one step in a Trainer, which it keeps for further ones."""
    build, shape, classes, samples = NETWORKS[network]
    with initialize_config_dir(config_directory(), version_base="1.3"):
        config = compose("train", f"algorithm={name}".split(", ")).algorithm
    config.update(ON.get(name, {}))
    facts = {"num_domains": DOMAINS, "input_shape": shape}
    open_ = {key: value for key, value in facts.items() if OmegaConf.is_missing(config, key)}
    seen = get_class(config._target_).featurizer_shape(shape)
    torch.manual_seed(0)
    module = instantiate(config, featurizer=build(seen), num_classes=classes, **open_)
    batch = {
        f"domain {index}": (torch.randn(samples, *shape), torch.randint(classes, (samples,)))
        for index in range(DOMAINS)
    }
    trainer = Trainer(
        max_steps=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader([batch], batch_size=None))
    module.log = lambda *args, **kwargs: None
    module.train()
    return module, batch


def bare_arm(module, batch):
    """What ARM computes, and nothing else."""
    inputs, targets = (torch.cat(parts) for parts in zip(*batch.values(), strict=True))
    maps = module.context(inputs)
    means = torch.cat([part.mean(0, keepdim=True).expand_as(part) for part in maps.chunk(DOMAINS)])
    logits = module.classifier(module.featurizer(torch.cat([inputs, means], 1)))
    (optimizer,) = module.trainer.optimizers
    optimizer.zero_grad()
    cross_entropy(logits, targets).backward()
    optimizer.step()


def step(module, batch):
    loss = module.training_step(batch, 0)
    if module.automatic_optimization:
        (optimizer,) = module.trainer.optimizers
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def timed(clock, function, *args):
    began = CLOCKS[clock]()
    function(*args)
    return CLOCKS[clock]() - began


def arithmetic(function, *args):
    with FlopCounterMode(display=False) as counter:
        function(*args)
    return counter.get_total_flops()


def passes(function, module, batch):
    """How often the batch goes through the network, forward and backward."""
    counted = {"f": 0, "b": 0}
    size = sum(len(targets) for _, targets in batch.values())

    def forward(network, inputs, output):
        counted["f"] += len(output)
        if output.requires_grad:
            output.register_hook(backward)

    def backward(gradient):
        counted["b"] += len(gradient)

    with module.featurizer.register_forward_hook(forward):
        function(module, batch)
    return tuple(number / size for number in counted.values())


def check(name, function, module, batch):
    """Compares the passes in the table with those that are made."""
    stated = re.match(r"(\d*) ?f \+ (\d*) ?b", PASSES.get(name, "f + b"))
    stated = tuple(int(number or 1) for number in stated.groups())
    counted = passes(function, module, batch)
    if counted != stated and name != "iga":  # which goes back once for each domain's gradient
        raise SystemExit(f"{name}: {counted} passes forward and backward, the table says {stated}.")


def table(network, names, rounds, clock):
    made = {name: (step, *make(name, network)) for name in names}
    if "arm" in made:
        made["arm's networks alone"] = (bare_arm, *made["arm"][1:])
    names = list(made)
    for name, own in made.items():
        check(name, *own)
    counted = {name: arithmetic(*own) for name, own in made.items()}
    times = {name: [] for name in names}
    for turn in range(rounds + 1):  # the first warms up
        for name, own in made.items():
            seconds = timed(clock, *own)
            if turn:
                times[name].append(seconds)
    _, shape, _, samples = NETWORKS[network]
    milliseconds = 1000 * statistics.median(times["erm"])
    print(f"\n### {network}: {DOMAINS} x {samples} of {shape}, ERM {milliseconds:.0f} ms, ", end="")
    print(f"{rounds} rounds, {clock} time\n")
    print("| algorithm | passes | arithmetic / ERM's | time / ERM's | time / arithmetic |")
    print("|---|---|---|---|---|")
    for name in names:
        ratios = [own / erm for own, erm in zip(times[name], times["erm"], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        work = counted[name] / counted["erm"]
        print(
            f"| {name} | {PASSES.get(name, 'f + b')} | {work:.2f} | "
            f"{median:.2f} ({low:.2f}-{high:.2f}) | {median / work:.2f} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--algorithms", nargs="+", default=None)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    names = sorted(path.stem for path in (Path(config_directory()) / "algorithm").glob("*.yaml"))
    names.append(GENIE)
    names = ["erm", *(n for n in names if n != "erm" and n in (options.algorithms or names))]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for network in options.models:
        table(network, names, options.rounds, options.clock)


if __name__ == "__main__":
    main()
