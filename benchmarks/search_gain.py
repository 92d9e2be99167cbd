"""What the proposals gain: against 250 random candidates, and at equal time.

    python benchmarks/search_gain.py
    python benchmarks/search_gain.py --models mlp --rounds 20

First table: one guided step against 250 random candidates of the same radius, on equal weights
and the same batch, in turns; and the same step with its direction found by a double backward pass
instead of differences of gradients. Second table: every proposal searches for the same time (a
single guided step ends before); the gain on its own batch, a second of search, and the gain of
the same move on a batch that it never saw. Three domains of digits (turned by 0, 30 and 60
degrees), networks trained for 50 steps before; ResNet-18 has random weights and random images.
Figures are medians over the rounds, transferred gains means with their standard error.
"""

import argparse
import contextlib
import copy
import math
import statistics
import time
import warnings
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from gga_lightning import Ball, Climb, Greedy, Guided, Walk
from gga_lightning.alignment.ascent import _pulls
from gga_lightning.alignment.evaluator import DomainEvaluator
from gga_lightning.alignment.search import annealing_search
from gga_lightning.backbones import MLP, MNISTCNN, TorchvisionFeaturizer
from gga_lightning.data import Digits

ACCEPTANCE = Greedy(0.1, reference="start")


class DigitDomains:
    """Batches of three domains of rotated digits."""

    def __init__(self, size=16):
        self.size = size
        domains = Digits("rotation").domains
        self.domains = [domains[name] for name in ("0", "30", "60")]

    def batch(self, generator):
        batch = []
        for domain in self.domains:
            rows = torch.randint(len(domain), (self.size,), generator=generator).tolist()
            pairs = [domain[row] for row in rows]
            batch.append(
                (torch.stack([x for x, _ in pairs]), torch.tensor([int(y) for _, y in pairs]))
            )
        return batch


class RandomImages:
    """Three domains of four random images of 224 x 224."""

    def batch(self, generator):
        return [
            (
                torch.randn(4, 3, 224, 224, generator=generator) + shift,
                torch.randint(7, (4,), generator=generator),
            )
            for shift in (-0.5, 0.0, 0.5)
        ]


@dataclass(frozen=True)
class DoubleBackward(Guided):
    """A guided step whose direction autograd finds, by differentiating the gradients."""

    point: "Point | None" = None

    def candidates(self, place):
        place.ascent = lambda orthogonal: self.point.double_backward()
        yield from super().candidates(place)


MODELS = {
    "mlp": (lambda: MLP((1, 8, 8)), 10, DigitDomains, 50, 1e-4, 0.5),
    "cnn": (lambda: MNISTCNN((1, 8, 8)), 10, DigitDomains, 50, 1e-4, 2.0),
    "resnet18": (
        lambda: TorchvisionFeaturizer("resnet18", freeze_batchnorm=True),
        7,
        RandomImages,
        0,
        1e-5,
        10.0,
    ),
}


ROUNDS = {"mlp": 20, "cnn": 8, "resnet18": 2}


class Point:
    """A network with the weights of a seed, and the batches of a round."""

    def __init__(self, name, seed):
        make, classes, data, steps, self.radius, self.seconds = MODELS[name]
        torch.manual_seed(seed)
        featurizer = make()
        self.network = nn.Sequential(featurizer, nn.Linear(featurizer.out_features, classes))
        self.moved = list(featurizer.parameters())
        source, generator = data(), torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(self.network.parameters(), 1e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            sum(self.loss(*part) for part in source.batch(generator)).backward()
            optimizer.step()
        self.network.zero_grad()
        self.batch, self.fresh = source.batch(generator), source.batch(generator)
        self.start = copy.deepcopy(self.network.state_dict())

    def loss(self, inputs, targets):
        return functional.cross_entropy(self.network(inputs), targets)

    def evaluator(self, batch):
        losses = [lambda part=part: self.loss(*part) for part in batch]
        return DomainEvaluator(losses, list(self.network.parameters()), module=self.network)

    def search(self, proposal, *, candidates=10**9, seconds=math.inf, objective="min"):
        """Gain, transferred gain, change of the loss and seconds of one search."""
        self.network.load_state_dict(self.start)
        before = [self.evaluator(batch).score(objective) for batch in (self.batch, self.fresh)]
        began = time.perf_counter()

        def until(index, best):
            if time.perf_counter() - began > seconds:
                raise TimeoutError  # the search ends at the best point so far

        with contextlib.suppress(TimeoutError):
            annealing_search(
                self.moved,
                self.evaluator(self.batch),
                proposal=proposal,
                num_candidates=candidates,
                objective=objective,
                acceptance=ACCEPTANCE,
                generator=torch.Generator().manual_seed(0),
                on_candidate=until,
            )
        spent = time.perf_counter() - began
        after = [self.evaluator(batch).score(objective) for batch in (self.batch, self.fresh)]
        gains = [b.objective - a.objective for a, b in zip(before, after, strict=True)]
        return *gains, after[0].loss - before[0].loss, spent

    def double_backward(self):
        params = list(self.network.parameters())
        gradients = self.evaluator(self.batch).gradients()
        total = [torch.zeros_like(param) for param in self.moved]
        for index, pull in _pulls(gradients, "min").items():
            gradient = torch.autograd.grad(self.loss(*self.batch[index]), params, create_graph=True)
            products = torch.autograd.grad(gradient, self.moved, pull)
            total = [old + new for old, new in zip(total, products, strict=True)]
        return total

    def training_step(self):
        """Seconds of an ordinary training step on the joined batch."""
        optimizer = torch.optim.Adam(self.network.parameters(), 1e-3)
        spent = []
        for _ in range(4):
            began = time.perf_counter()
            optimizer.zero_grad()
            sum(self.loss(*part) for part in self.batch).backward()
            optimizer.step()
            spent.append(time.perf_counter() - began)
        self.network.zero_grad()
        return statistics.median(spent[1:])


def guided_against_random(name, rounds):
    print(f"\n{name}: one guided step against 250 random candidates, radius {MODELS[name][4]:g}\n")
    found, costs = {}, []
    for seed in range(rounds):
        point = Point(name, seed)
        radius = point.radius
        training = point.training_step()
        for label, proposal in {
            "walk": Walk(radius),
            "ball": Ball(radius),
            "guided": Guided(radius),
            "guided, orthogonal": Guided(radius, orthogonal=True),
            "double backward": DoubleBackward(radius, point=point),
        }.items():
            found.setdefault(label, []).append(point.search(proposal, candidates=250))
        costs.append(found["guided"][-1][3] / training)
    heads = ("gain", "loss", "seconds", "gain / random", "time / random")
    widths = (10, 9, 9, 14, 14)
    titles = " ".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))
    print(f"{'proposal':20} {titles}")
    for label, results in found.items():
        columns = zip(*results, strict=True)
        gain, _, loss, seconds = (statistics.median(column) for column in columns)
        ratios = ["", ""]
        # against the better of the two random ones, round by round
        if label not in ("walk", "ball"):
            pairs = list(zip(results, found["walk"], found["ball"], strict=True))
            more = statistics.median(g[0] / max(w[0], b[0], 1e-12) for g, w, b in pairs)
            less = statistics.median(min(w[3], b[3]) / g[3] for g, w, b in pairs)
            ratios = [f"{more:.1f}", f"1/{less:.0f}"]
        print(
            f"{label:20} {gain:+10.5f} {loss:+9.4f} {seconds:9.4f} {ratios[0]:>14} {ratios[1]:>14}",
            flush=True,
        )
    cost = statistics.median(costs)
    print(
        f"\nA guided step takes {cost:.1f} training steps; "
        f"100 of them {100 * cost / 5000:.1%} of a training of 5,000."
    )


def at_equal_time(name, rounds):
    seconds = MODELS[name][5]
    print(f"\n{name}: every proposal searches for {seconds:g} s\n")
    radius = MODELS[name][4]
    proposals = {
        f"walk {radius:g}": (Walk(radius), "min"),
        f"ball {radius:g}": (Ball(radius), "min"),
        f"climb {radius:g}": (Climb(radius), "min"),
        "climb .01 relative": (Climb(0.01, relative=True), "min"),
        "climb .01 relative, mean": (Climb(0.01, relative=True), "mean"),
        f"guided {radius:g}": (Guided(radius, steps=1), "min"),
        "guided .01 relative": (Guided(0.01, relative=True, steps=1), "min"),
        "guided .01 relative, orthogonal": (Guided(0.01, relative=True, orthogonal=True), "min"),
        "the same, mean": (Guided(0.01, relative=True, orthogonal=True), "mean"),
        "the same, mean, many steps": (
            Guided(0.01, relative=True, orthogonal=True, steps=10**6),
            "mean",
        ),
    }
    found = {label: [] for label in proposals}
    for seed in range(rounds):
        point = Point(name, 1000 + seed)
        for label, (proposal, objective) in proposals.items():
            found[label].append(point.search(proposal, seconds=seconds, objective=objective))
    heads = ("gain", "seconds", "gain / s", "transferred", "+-", "loss")
    widths = (9, 8, 9, 12, 8, 8)
    titles = " ".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))
    print(f"{'proposal':32} {titles}")
    for label, results in found.items():
        columns = list(zip(*results, strict=True))
        gain, _, loss, spent = (statistics.median(column) for column in columns)
        rate = statistics.median(g / s for g, s in zip(columns[0], columns[3], strict=True))
        mean = statistics.fmean(columns[1])
        error = statistics.stdev(columns[1]) / math.sqrt(rounds) if rounds > 1 else math.nan
        print(
            f"{label:32} {gain:+9.4f} {spent:8.3f} {rate:+9.3f} {mean:+12.4f} {error:8.4f} "
            f"{loss:+8.4f}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in arguments.models:
        rounds = arguments.rounds or ROUNDS[name]
        guided_against_random(name, rounds)
        at_equal_time(name, rounds)


if __name__ == "__main__":
    main()
