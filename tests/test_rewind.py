import collections
import copy
import random

import numpy as np
import torch
import torchmetrics
from torch import nn

from gga_lightning._rewind import Rewind
from tests.helpers import copies, same


class Leaky(nn.Module):
    """Changes everything that a forward pass may change."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
        self.metric = torchmetrics.MeanMetric()
        self.listing = torchmetrics.CatMetric()
        self.count = 0
        self.outputs = [1]
        self.nested = {"a": [torch.zeros(2)], "b": {1}, "c": collections.deque([0])}
        self.queue = torch.zeros(3)
        self.pair = (torch.zeros(1), "text")
        self.draws = torch.Generator().manual_seed(1)
        self.average = collections.defaultdict(float)

    def forward(self, inputs):
        outputs = self.spectral(self.drop(self.norm(inputs)))
        self.metric(outputs.detach().mean())
        self.listing.update(outputs.detach())
        self.count += 1
        self.last = outputs
        self.outputs.append(outputs.detach())
        self.nested["a"][0] += 1
        self.nested["a"].append("more")
        self.nested["b"].add(2)
        self.nested["c"].appendleft(1)
        self.nested["new"] = None
        self.queue = torch.roll(self.queue, 1) + 1
        self.pair[0].add_(1)
        self.average["loss"] += 1.0
        noise = torch.rand(1, generator=self.draws) + random.random() + np.random.rand()
        self.norm.eval()
        return outputs + noise


def state(module):
    names = ("count", "outputs", "nested", "queue", "pair", "average")
    return {
        "buffers": {name: buffer.clone() for name, buffer in module.named_buffers()},
        "plain": copy.deepcopy({name: getattr(module, name) for name in names}),
        "names": sorted(vars(module)),
        "training": module.norm.training,
        "draws": module.draws.get_state(),
        "metric": (module.metric.mean_value.clone(), module.metric.update_count),
        "listing": (list(module.listing.value), module.listing.update_count),
        "random": (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()),
    }


def test_everything_is_put_back():
    module = Leaky()
    module(torch.randn(4, 3))
    before, params = state(module), copies(module)
    queue, outputs = module.queue, module.outputs
    rewind = Rewind(module, torch.device("cpu"))
    for kind in (0, 1, 0):
        rewind.before(kind)
        module(torch.randn(4, 3))
        rewind.after(kind)
    assert not same(before, state(module))
    rewind.restore()
    assert same(before, state(module))
    assert same(params, copies(module))
    assert module.queue is queue
    assert module.outputs is outputs


def run(rewind, kind, module, inputs):
    rewind.before(kind)
    result = module(inputs)
    rewind.after(kind)
    return result.detach()


def test_runs_of_a_kind_are_alike_whatever_runs_between():
    module, inputs = Leaky(), torch.randn(4, 3)
    rewind, counts = Rewind(module, torch.device("cpu")), []
    results = {"a": [], "b": []}
    for kind in "abbaba":
        results[kind].append(run(rewind, kind, module, inputs))
        counts.append(module.count)
    for alike in results.values():
        assert torch.equal(alike[0], alike[1])
        assert torch.equal(alike[0], alike[2])
    assert not torch.equal(results["a"][0], results["b"][0])  # each has masks of its own
    assert counts == [1] * 6


def test_randomness_may_run_on_but_ends_where_it_was():
    module, inputs = nn.Dropout(0.5), torch.ones(64)
    before = torch.get_rng_state()
    rewind = Rewind(module, torch.device("cpu"), redraw_randomness=True)
    results = [run(rewind, 0, module, inputs) for _ in range(2)]
    rewind.restore()
    assert not torch.equal(*results)
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_are_left_alone_however_they_are_held():
    module = nn.Linear(2, 2)
    module.same = [module.weight]
    module.alias = module.weight.data
    module.expanded = torch.zeros(1).expand(3)
    rewind = Rewind(module, torch.device("cpu"))
    with torch.no_grad():
        module.weight.add_(1.0)
    moved = module.weight.detach().clone()
    rewind.restore()
    assert torch.equal(module.weight, moved)


def test_new_attributes_are_taken_away():
    module = nn.Linear(2, 2)
    rewind = Rewind(module, torch.device("cpu"))
    module.extra = 1
    module.register_buffer("late", torch.ones(1))
    rewind.restore()
    assert not hasattr(module, "extra")
    assert not hasattr(module, "late")
