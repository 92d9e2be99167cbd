"""Objects that Python's own copying loses, shares or breaks."""

import logging
import os
import tempfile
import threading
import types
import weakref

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional

from tests.zoo import case, helpers, loss_of, pooled
from tests.zoo.state import Net

NOT_GIVEN = object()
CONFIG = OmegaConf.create({"loss": {"weight": 0.5}, "sizes": [1, 2]})
PRIOR = torch.distributions.Categorical(probs=torch.ones(3) / 3)
LOGGER = logging.getLogger(__name__)


class Counts(Net):
    """Counts in some place, on which the next loss depends."""

    def factor(self):
        self.add_one()
        return 1.0 + self.number()


@case("views of one NumPy array, and a tensor made from it")
class SharedArrays(Counts):
    def __init__(self):
        super().__init__()
        self.flat = np.zeros(6)
        self.halves = [self.flat[:3], self.flat[3:]]
        self.tensor = torch.from_numpy(self.flat)

    def add_one(self):
        self.halves[1][0] += 1

    def number(self):
        return float(self.flat.sum() + self.tensor.sum())


@case("a NumPy array of lists, and one with an attribute")
class ObjectArrays(Counts):
    def __init__(self):
        super().__init__()
        self.lists = np.empty(3, dtype=object)
        for place in range(3):
            self.lists[place] = []
        self.named = np.zeros(3).view(_Named)
        self.named.info = {"count": 0}

    def add_one(self):
        self.lists[0].append(1)
        self.named.info["count"] += 1
        self.named += 1

    def number(self):
        return len(self.lists[0]) + self.named.info["count"] + float(self.named[0])


class _Named(np.ndarray):
    def __array_finalize__(self, source):
        self.info = getattr(source, "info", None)


@case("an array in a file that is written to", refused="writes to a large NumPy array, or to one")
class ArrayInFile(Counts):
    def __init__(self):
        super().__init__()
        with tempfile.NamedTemporaryFile() as file:
            self.array = np.memmap(file, "f4", "w+", shape=(8,))

    def add_one(self):
        self.array[0] += 1

    def number(self):
        return float(self.array[0])


@case("tensors of classes of their own, expanded, empty and complex ones")
class OddTensors(Counts):
    def __init__(self):
        super().__init__()
        self.own = torch.zeros(3).as_subclass(_OwnTensor)
        self.own_large = torch.zeros(400_000).as_subclass(_OwnTensor)
        self.register_buffer("one", torch.zeros(1))
        self.wide = self.one.expand(8)
        self.lengths = [torch.empty(0), torch.empty(0)]
        self.wave = torch.zeros(3, dtype=torch.complex64).conj()
        self.shape = torch.empty(3, device="meta")
        self.ragged = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(3, 3)])

    def add_one(self):
        self.own += 1
        self.own_large += 1
        self.one += 1
        for place, tensor in enumerate(self.lengths):
            torch.add(torch.ones(2), place, out=tensor.resize_(0))
        self.wave += 1

    def number(self):
        own = (self.own[0] + self.own_large[0]).as_subclass(torch.Tensor)
        lengths = self.lengths[1].sum() - self.lengths[0].sum()
        return own + self.wide.sum() + lengths + self.wave.real.sum() + self.ragged[0].sum()


class _OwnTensor(torch.Tensor):
    pass


@case("functions and marks that are compared by `is`")
class Identities(Net):
    def __init__(self):
        super().__init__()
        self.criterion, self.weight = functional.cross_entropy, NOT_GIVEN

    def training_step(self, batch, batch_idx):
        assert self.criterion is functional.cross_entropy
        x, y = pooled(batch)
        weight = None if self.weight is NOT_GIVEN else self.weight
        return self.criterion(self.net(x), y, weight=weight)


@case("weak references, proxies and containers")
class WeakReferences(Counts):
    def __init__(self):
        super().__init__()
        self.count = 0
        self.parent = types.SimpleNamespace(module=weakref.proxy(self))
        self.method = weakref.WeakMethod(self.increase)
        self.scales = weakref.WeakKeyDictionary({self.net: 2.0})
        self.named = weakref.WeakValueDictionary({"net": self.net})
        self.known = weakref.WeakSet([self.net])

    def increase(self):
        self.count += 1

    def add_one(self):
        self.parent.module.count += 1
        self.method()()

    def number(self):
        assert self.named["net"] is self.net
        assert self.net in self.known
        return self.count * self.scales[self.net]


@case("locks, thread-local values, and views of a dictionary")
class Threading(Counts):
    def __init__(self):
        super().__init__()
        self.lock, self.again, self.local = threading.Lock(), threading.RLock(), threading.local()
        self.local.count = 0
        self.table = {"a": 1.0}
        self.names, self.frozen = self.table.keys(), types.MappingProxyType(self.table)

    def add_one(self):
        with self.lock, self.again:
            self.local.count += 1
            self.table[str(len(self.table))] = 1.0

    def number(self):
        return self.local.count + len(self.names) + self.frozen["a"]


class _Environment:
    def __init__(self):
        self.count = 0


class _Wrapper:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


@case("a wrapper that passes attributes on, as environments of Gym do")
class Delegates(Counts):
    def __init__(self):
        super().__init__()
        self.environment = _Wrapper(_Environment())

    def add_one(self):
        self.environment.inner.count += 1

    def number(self):
        return self.environment.count


class _AttributeDict(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class _SelfDict(dict):
    def __init__(self, **entries):
        super().__init__(**entries)
        self.__dict__ = self


class _FrozenDict(dict):
    def __setitem__(self, key, value):
        raise TypeError("frozen")

    update = clear = pop = __delitem__ = __setitem__


class _CountingList(list):
    appended = 0

    def append(self, value):
        self.appended += 1
        super().append(value)


@case("dictionaries with attributes, frozen ones, and a list that counts")
class Containers(Counts):
    def __init__(self):
        super().__init__()
        self.dicts = _AttributeDict(count=0), _SelfDict(count=0), _FrozenDict(inner=[0])
        self.counting = _CountingList([1])

    def add_one(self):
        self.dicts[0].count += 1
        self.dicts[1].count += 1
        self.dicts[2]["inner"][0] += 1
        self.counting.append(1)

    def number(self):
        counts = self.dicts[0]["count"] + self.dicts[1]["count"] + self.dicts[2]["inner"][0]
        return counts + self.counting.appended + len(self.counting)


class _Sized(nn.Module):
    def __new__(cls, size):
        return super().__new__(cls)

    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, size)


@case("modules with slots, with `__new__`, and with `__getstate__` that leaves things out")
class OddModules(Counts):
    __slots__ = ("cache",)

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "cache", [2.0])
        self.sized = _Sized(8)
        self.helper = types.SimpleNamespace(count=0)

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "helper"}

    def add_one(self):
        self.helper.count += 1
        self.cache[0] += 1

    def number(self):
        return self.helper.count + self.cache[0] + self.sized.layer.bias.sum().abs()


class _Only:
    instance = None

    def __new__(cls):
        if cls.instance is None:
            cls.instance = super().__new__(cls)
            cls.instance.scale = 2.0
        return cls.instance


class _Folder:
    def __init__(self):
        folder = tempfile.mkdtemp()
        self.path = lambda: folder

    def __del__(self):
        os.rmdir(self.path())


@case("an object of which there is only one, and one that removes its folder when it is freed")
class OddObjects(Net):
    def __init__(self):
        super().__init__()
        self.only, self.folder = _Only(), _Folder()

    def factor(self):
        assert os.path.isdir(self.folder.path())
        return self.only.scale


class _Link:
    def __init__(self, behind):
        self.behind = behind


@case("a chain of 2,000 objects")
class Chain(Counts):
    def __init__(self):
        super().__init__()
        self.head = None
        for _ in range(2000):
            self.head = _Link(self.head)

    def add_one(self):
        self.head = self.head.behind

    def number(self):
        link, count = self.head, 0
        while link is not None:
            link, count = link.behind, count + 1
        return count / 1000

    def on_train_end(self):
        self.head = self.number()


@case("hooks on parameters that keep the norms of gradients, as `wandb.watch` does")
class WatchedGradients(Net):
    def __init__(self):
        super().__init__()
        self.norms = []

    def on_fit_start(self):
        norms = self.norms
        self.handle = self.net.weight.register_hook(lambda grad: norms.append(grad.norm().item()))

    def on_fit_end(self):
        self.handle.remove()
        del self.handle


@case("a forward hook on all modules")
class WatchedModules(Net):
    def __init__(self):
        super().__init__()
        self.calls = []

    def on_fit_start(self):
        calls = self.calls
        register = nn.modules.module.register_module_forward_hook
        self.handle = register(lambda module, inputs, output: calls.append(type(module).__name__))

    def on_fit_end(self):
        self.handle.remove()
        del self.handle


@case("reads a global configuration and a prior, and writes to Python's log")
class Globals(Net):
    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        LOGGER.debug("loss %s", loss.item())
        return loss * CONFIG.loss.weight - PRIOR.log_prob(torch.tensor(1))


@case("a helper that counts in its own module", refused="tests.zoo.helpers.CALLS")
class CountsElsewhere(Net):
    def keep(self, loss, batch):
        helpers.count()


@case("a helper that keeps a history", refused="tests.zoo.helpers.HISTORY")
class SmoothsElsewhere(Net):
    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        return loss * helpers.smooth(loss)


@case("a cache of another module", refused="tests.zoo.helpers.CACHE")
class CachesElsewhere(Net):
    def keep(self, loss, batch):
        helpers.CACHE[len(helpers.CACHE)] = loss.item()


@case("an attribute of another class", refused="Statistics.count")
class CountsInAClass(Net):
    def keep(self, loss, batch):
        helpers.Statistics.count += 1


@case("a decorated function that counts its calls", refused="helpers.halved")
class CountsCalls(Net):
    def training_step(self, batch, batch_idx):
        return helpers.halved(loss_of(self.net, batch))


class _Scaled(torch.autograd.Function):
    calls = 0

    @staticmethod
    def forward(ctx, x):
        _Scaled.calls += 1
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


@case("an autograd function that counts its calls", refused="_Scaled.calls")
class CountsInAutograd(Net):
    def training_step(self, batch, batch_idx):
        return _Scaled.apply(loss_of(self.net, batch))
