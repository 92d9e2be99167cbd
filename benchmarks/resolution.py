"""What rounding does to the decisions of a search: changes of the cosine beside their errors.

    python benchmarks/resolution.py
    python benchmarks/resolution.py --models resnet18 --radius 1e-4
    python benchmarks/resolution.py --device cuda             # with the GPU's own TF32
    python benchmarks/resolution.py --plot resolution.png
    python benchmarks/resolution.py --guided                  # what guided steps gain instead

For each model and each arithmetic it prints the change of the lowest cosine between the present
point and points drawn at the search's radius (computed in float64, root mean square), and the
error of that change, as `GradientGuidedAnnealing` measures them at the start of its window. Where
the error is the larger one, a search selects rounding errors and not agreement.

On a CPU, TF32 is emulated: what convolutions and matrix products take is rounded to 10 bits, in the
forward and in the backward pass. `tf32 convolutions` is PyTorch's default on NVIDIA GPUs.

With `--guided`, it prints what a guided step of relative length 0.01 gains where its direction and
its score are computed in each arithmetic.
"""

import argparse
import contextlib
import logging
import statistics
import warnings

import torch
from lightning.pytorch import Trainer
from models import MODELS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from gga_lightning import Ball, GradientGuidedAnnealing, Guided

CONVOLUTIONS = ("convolution", "convolution_backward")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
ARITHMETICS = ("float32", "tf32 convolutions", "tf32", "bf16")


class RoundedTo10Bits(TorchDispatchMode):
    """Rounds what some operations take as TF32 does."""

    def __init__(self, operations):
        super().__init__()
        self.operations = operations

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in self.operations:
            args = tuple(map(rounded, args))
        return function(*args, **(kwargs or {}))


def rounded(value):
    if not isinstance(value, torch.Tensor) or value.dtype is not torch.float32 or value.dim() < 2:
        return value  # biases are added in float32
    return ((value.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


@contextlib.contextmanager
def arithmetic(name, device):
    """Computes in TF32 where the name says so."""
    wanted = {"tf32 convolutions": CONVOLUTIONS, "tf32": CONVOLUTIONS + PRODUCTS}.get(name, ())
    if device == "cpu":
        with RoundedTo10Bits(wanted) if wanted else contextlib.nullcontext():
            yield
        return
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = bool(wanted)
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def callback_of(model, name, device, seed, **settings):
    """A search of one step in a Trainer, which computes in an arithmetic."""
    torch.manual_seed(seed)
    gga = GradientGuidedAnnealing(0, 1, precision="trainer", seed=seed, **settings)
    if isinstance(gga.proposal, Guided):
        gga._measure_resolution = lambda *_: None
    trainer = Trainer(
        max_steps=1,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if name == "bf16" else "32-true",
        callbacks=[gga],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module, batch = model.module(), model.batch("cpu")
    with arithmetic(name, device):
        trainer.fit(module, DataLoader([batch], batch_size=None))
    return gga


def measure(model, name, radius, device, seed):
    """One measurement, of three points, by the callback in a Trainer."""
    gga = callback_of(model, name, device, seed, proposal=Ball(radius), num_candidates=1)
    [found] = gga.resolutions
    if not found.points:
        raise RuntimeError(found.reason)
    return found


def guided(options):
    """The gain of a guided step, mean over the seeds, and that in float32."""
    print(f"torch {torch.__version__}, {options.device}, {options.rounds} seeds\n")
    print(f"{'model':10} {'arithmetic':18} {'gain':>9} {'standard error':>15}")
    settings = {"proposal": Guided(0.01, relative=True), "num_candidates": 10}
    for model in options.models:
        for name in ARITHMETICS:
            gains = [
                callback_of(MODELS[model], name, options.device, seed, **settings).records[0].gain
                for seed in range(options.rounds)
            ]
            error = statistics.stdev(gains) / len(gains) ** 0.5
            print(f"{model:10} {name:18} {statistics.fmean(gains):+9.4f} {error:15.4f}", flush=True)


def plot(rows, path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(model for model, *_ in rows))
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    width = 0.8 / (len(ARITHMETICS) + 1)
    for place, name in enumerate(ARITHMETICS):
        errors = [error for _, arithmetic, _, error in rows if arithmetic == name]
        at = [index + (place + 1) * width for index in range(len(models))]
        axes.bar(at, errors, width, label=f"rounding error, {name}", color=f"C{place}")
    changes = [
        statistics.fmean(change for model, _, change, _ in rows if model == own) for own in models
    ]
    axes.bar(range(len(models)), changes, width, label="true change", color="black")
    axes.set_yscale("log")
    axes.set_xticks([index + 0.4 - width / 2 for index in range(len(models))], models)
    axes.set_ylabel("change of the lowest cosine")
    figure.legend(fontsize="small", ncols=3, loc="outside upper center")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["mlp", "mnist_cnn", "resnet18"])
    parser.add_argument("--radius", type=float, default=1e-5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=2, help="seeds, of three points each")
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("--guided", action="store_true", help="gains of guided steps")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if options.guided:
        guided(options)
        return
    print(f"torch {torch.__version__}, {options.device}, radius {options.radius:g}\n")
    print(f"{'model':10} {'arithmetic':18} {'true change':>12} {'error':>9} {'error/change':>13}")
    rows = []
    for model in options.models:
        for name in ARITHMETICS:
            found = [
                measure(MODELS[model], name, options.radius, options.device, seed)
                for seed in range(options.rounds)
            ]
            change, error = (
                statistics.fmean(getattr(one, part) ** 2 for one in found) ** 0.5
                for part in ("change", "error")
            )
            rows.append((model, name, change, error))
            ratio = f"{error / change:.2g}"
            print(f"{model:10} {name:18} {change:12.1e} {error:9.1e} {ratio:>13}", flush=True)
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
