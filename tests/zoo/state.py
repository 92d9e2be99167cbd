"""What modules keep, and where."""

import array
import collections
import dataclasses
import itertools
import random
import types
import weakref

import numpy as np
import torch
import torchmetrics
from torch import nn
from torch.nn import functional

from tests.zoo import Small, case, loss_of, numbers, opened, pooled


class Net(Small):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        self.keep(loss, batch)
        return loss * self.factor()

    def factor(self):
        """What the next loss depends on, so that a trace would show in the weights."""
        return 1.0

    def keep(self, loss, batch):
        """Changes the state."""


class Meter:
    """An ordinary Python object."""

    def __init__(self):
        self.total, self.count, self.values = 0.0, 0, []

    def update(self, value):
        self.total, self.count = self.total + value, self.count + 1
        self.values.append(value)


@case("meters with `update`, in a dict of lists")
class Meters(Net):
    def __init__(self):
        super().__init__()
        self.meters = {"loss": [Meter(), Meter()]}

    def keep(self, loss, batch):
        for meter in self.meters["loss"]:
            meter.update(loss.item())

    def factor(self):
        return 1.0 + 0.1 * self.meters["loss"][0].count


@dataclasses.dataclass
class Settings:
    temperature: float = 1.0
    history: list = dataclasses.field(default_factory=list)


@case("a dataclass and a namespace that change")
class Schedules(Net):
    def __init__(self):
        super().__init__()
        self.settings, self.space = Settings(), types.SimpleNamespace(step=0)

    def keep(self, loss, batch):
        self.settings.temperature *= 0.9
        self.settings.history.append(self.settings.temperature)
        self.space.step += 1

    def factor(self):
        return self.settings.temperature * (1 + self.space.step)


class Slotted:
    __slots__ = ("__private", "count", "later")

    def __init__(self):
        self.count, self.__private = 0, 0

    def update(self):
        self.count += 1
        self.__private += 1
        self.later = self.count + self.__private


@case("an object with `__slots__`")
class Slots(Net):
    def __init__(self):
        super().__init__()
        self.slotted = Slotted()

    def keep(self, loss, batch):
        self.slotted.update()

    def factor(self):
        return 1.0 + self.slotted.later


@case("NumPy arrays, replaced and in place")
class Arrays(Net):
    def __init__(self):
        super().__init__()
        self.counts, self.mean = np.zeros(3), np.zeros(())
        self.table = [np.zeros((2, 2)), {"row": np.array(["", ""], dtype=object)}]

    def keep(self, loss, batch):
        self.counts[int(pooled(batch)[1][0])] += 1
        self.mean = 0.9 * self.mean + 0.1 * loss.item()
        self.table[0][0, 0] += 1

    def factor(self):
        return float(self.counts.sum() + self.table[0].sum())


@case("`np.random.Generator`, `RandomState` and `random.Random`")
class Generators(Net):
    def __init__(self):
        super().__init__()
        self.rng, self.older = np.random.default_rng(0), np.random.RandomState(0)
        self.python = {"rng": random.Random(0)}

    def factor(self):
        return self.rng.random() + self.older.rand() + self.python["rng"].random()


@case("a `torch.Generator`, and the global random numbers")
class TorchGenerator(Net):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def factor(self):
        own = torch.rand((), generator=self.generator)
        return own + torch.rand(()) + np.random.rand() + random.random()


@case("metrics in plain dicts and lists")
class HiddenMetrics(Net):
    def __init__(self):
        super().__init__()
        self.metrics = {"train": [torchmetrics.MeanMetric(), torchmetrics.CatMetric()]}
        self.collection = torchmetrics.MetricCollection(
            {"a": torchmetrics.Accuracy("multiclass", num_classes=3)}
        )

    def keep(self, loss, batch):
        for metric in self.metrics["train"]:
            metric(loss.detach())
        inputs, targets = pooled(batch)
        self.collection(self.net(inputs), targets)

    def factor(self):
        return 1.0 + self.metrics["train"][0].compute()


@case("BatchNorm in a plain list")
class HiddenBatchNorm(Net):
    def __init__(self):
        super().__init__()
        self.norms = [nn.BatchNorm1d(8)]

    def training_step(self, batch, batch_idx):
        inputs, targets = pooled(batch)
        shifted = inputs - self.norms[0].running_mean
        return functional.cross_entropy(self.net(self.norms[0](shifted)), targets)


@case("counters: `Counter`, `defaultdict`, `OrderedDict`, `set`, `deque`")
class Counters(Net):
    def __init__(self):
        super().__init__()
        self.counter = collections.Counter()
        self.losses = collections.defaultdict(list)
        self.order = collections.OrderedDict(a=1)
        self.seen, self.last = set(), collections.deque(maxlen=2)

    def keep(self, loss, batch):
        self.counter.update(pooled(batch)[1].tolist())
        self.losses["train"].append(loss.item())
        self.order[len(self.order)] = loss.detach()
        self.order.move_to_end("a")
        self.seen.add(len(self.seen))
        self.last.append(loss.item())

    def factor(self):
        return 1.0 + len(self.losses["train"]) + len(self.seen) + self.counter[0]


@case("a loss balanced by its own running mean")
class RunningMean(Net):
    def __init__(self):
        super().__init__()
        self.mean = 1.0

    def keep(self, loss, batch):
        self.mean = 0.9 * self.mean + 0.1 * loss.item()

    def factor(self):
        return 1 / self.mean


@case("the best loss so far")
class BestLoss(Net):
    def __init__(self):
        super().__init__()
        self.best = float("inf")

    def keep(self, loss, batch):
        if loss < self.best:
            self.best, self.at = loss.item(), self.global_step


@case("outputs kept with their graph")
class KeepsGraph(Net):
    def __init__(self):
        super().__init__()
        self.outputs, self.last = [], None

    def keep(self, loss, batch):
        self.last = self.net(pooled(batch)[0])
        self.outputs.append(loss)


@case("buffers that are replaced, and views of them")
class Buffers(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("history", torch.zeros(6))
        self.flat = torch.zeros(6)
        self.halves = [self.flat[:3], self.flat[3:]]
        self.alias = self.net.weight.data

    def keep(self, loss, batch):
        self.history = torch.roll(self.history, 1)
        self.history[0] = loss.detach()
        self.halves[1] += 1
        self.register_buffer("late", torch.ones(1))

    def factor(self):
        return 1.0 + self.flat.sum() + self.history.sum().item()


@case("a buffer of more than a megabyte that changes")
class MemoryBank(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("bank", numbers(40_000, 8))
        self.where = 0

    def keep(self, loss, batch):
        inputs, _ = pooled(batch)
        self.bank[self.where : self.where + len(inputs)] = inputs
        self.where += len(inputs)

    def factor(self):
        return 1.0 + self.bank[:16].sum().item() / 100


@case("a buffer of more than a megabyte that nothing touches, a list of many names")
class LargeConstants(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", numbers(40_000, 8))
        self.names = [f"{n}.png" for n in range(12_000)]

    def factor(self):
        return 1.0 + self.table[0, 0] * len(self.names)


@case("LightningModule.hparams that change")
class Hyperparameters(Net):
    def __init__(self, beta=1.0):
        super().__init__()
        self.save_hyperparameters()

    def keep(self, loss, batch):
        self.hparams.beta *= 0.5

    def factor(self):
        return self.hparams["beta"]


@case("an optimizer inside the module")
class InnerOptimizer(Net):
    def __init__(self):
        super().__init__()
        self.log_alpha = torch.zeros((), requires_grad=True)
        self.inner = torch.optim.Adam([self.log_alpha], lr=0.1)

    def keep(self, loss, batch):
        self.inner.zero_grad()
        (self.log_alpha * loss.detach()).backward()
        self.inner.step()

    def factor(self):
        return self.log_alpha.exp().detach()


class Parent:
    def __init__(self, module):
        self.module = weakref.ref(module)
        self.calls = 0


@case("a helper that knows the module by a weak reference, and one that knows it directly")
class BackReferences(Net):
    def __init__(self):
        super().__init__()
        self.helper = Parent(self)
        self.owner = types.SimpleNamespace(module=[self])
        self.count = 0

    def keep(self, loss, batch):
        self.helper.module().count += 1
        self.owner.module[0].count += 1

    def factor(self):
        return 1.0 + self.count


@case("an array of Python's own", refused="changes `self.numbers` (array)")
class PythonArray(Net):
    def __init__(self):
        super().__init__()
        self.numbers = array.array("d", [0.0])

    def keep(self, loss, batch):
        self.numbers[0] += 1


@case("an iterator that is advanced", refused="changes `self.cycle` (list_iterator)")
class Iterator(Net):
    def __init__(self):
        super().__init__()
        self.cycle = itertools.cycle([1.0, 2.0])

    def factor(self):
        return next(self.cycle)


def warm_up():
    for step in itertools.count():
        yield min(1.0, step / 10)


@case("a generator that is advanced", refused="uses `self.schedule` (generator)")
class GeneratorFunction(Net):
    def __init__(self):
        super().__init__()
        self.schedule = warm_up()

    def factor(self):
        return next(self.schedule)


@case("a generator that is not used in the step")
class IdleGenerator(Net):
    def __init__(self):
        super().__init__()
        self.schedule, self.file = warm_up(), opened(__file__)
