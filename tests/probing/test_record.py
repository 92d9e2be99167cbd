import collections
import itertools
import random
import types

import numpy as np
import pytest
import torch
from torch import nn

from gga_lightning.probing.record import Record, digest


class Slotted:
    __slots__ = ("value",)

    def __init__(self):
        self.value = [0]


def counter():
    count = 0

    def add():
        nonlocal count
        count += 1

    return add


HISTORY, COUNT = [], 0


class User:
    """Of the user's own code: class attributes and global variables count."""

    shared = {}  # noqa: RUF012

    def remember(self):
        global COUNT
        HISTORY.append(1)
        COUNT += 1


def holder():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module.meter = types.SimpleNamespace(count=0, values=[1], nested={"a": {"b": [torch.zeros(2)]}})
    module.slotted = Slotted()
    module.array, module.objects = np.zeros(2), np.array([[], {}], dtype=object)
    module.generators = [np.random.default_rng(0), random.Random(0), torch.Generator()]
    module.add = counter()
    module.numbers = itertools.count()
    module.stream = (n for n in [1, 2, 3])
    module.deque, module.set = collections.deque([1]), {1}
    module.user = User()
    module.order = collections.OrderedDict(a=1, b=2)
    module.sparse = torch.eye(2).to_sparse()
    return module


CHANGES = {
    "self.0.weight": lambda m: m[0].weight.data.add_(1),
    "self.0.bias.grad": lambda m: setattr(m[0].bias, "grad", torch.ones(2)),
    "self.1.running_mean": lambda m: m(torch.randn(4, 2)),
    "self.meter.count": lambda m: setattr(m.meter, "count", 1),
    "self.meter.new": lambda m: setattr(m.meter, "new", 1),
    "self.meter.values": lambda m: m.meter.values.append(2),
    "self.meter.nested['a']['b'][0]": lambda m: m.meter.nested["a"]["b"][0].add_(1),
    "self.meter.nested['a']['c']": lambda m: m.meter.nested["a"].update(c=1),
    "self.slotted.value": lambda m: m.slotted.value.append(1),
    "self.slotted": lambda m: setattr(m.slotted, "value", 1),
    "self.array": lambda m: m.array.__setitem__(0, 1),
    "self.generators[0]": lambda m: m.generators[0].random(),
    "self.generators[1]": lambda m: m.generators[1].random(),
    "self.generators[2]": lambda m: torch.rand(1, generator=m.generators[2]),
    "self.add.<locals>.count": lambda m: m.add(),
    "self.numbers": lambda m: next(m.numbers),
    "self.stream": lambda m: next(m.stream),
    "self.deque": lambda m: m.deque.append(2),
    "self.set": lambda m: m.set.add(2),
    "User.shared['a']": lambda m: m.user.shared.update(a=1),
    "tests.probing.test_record.HISTORY": lambda m: HISTORY.append(1),
    "tests.probing.test_record.COUNT": lambda m: m.user.remember(),
    "self.training": lambda m: m.train(False),
    "self.sparse": lambda m: m.sparse.mul_(2),
}


@pytest.mark.parametrize("name", CHANGES)
def test_names_what_changed(name):
    module = holder()
    record = Record({"self": module})
    assert record.changes() == []
    CHANGES[name](module)
    User.shared.clear() if "shared" not in name else None
    assert any(found.startswith(name) for found in record.changes()), record.changes()
    User.shared.clear()


def test_a_change_of_order_counts():
    module = holder()
    record = Record({"self": module})
    module.order.move_to_end("a")
    assert record.changes() == ["self.order"]


def test_weights_changed_to_equal_ones_count():
    module = nn.Linear(2, 2)
    record = Record({"self": module})
    with torch.no_grad():
        module.weight.clamp_(-100, 100)
    assert record.changes() == ["self.weight"]


class TestDigest:
    @pytest.mark.parametrize(
        "dtype",
        [torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.bool, torch.complex64],
    )
    def test_tells_tensors_apart(self, dtype):
        tensor = (torch.randn(7, 3) * 10).clamp(min=0).to(dtype)
        others = [tensor.flip(0), tensor[:6], tensor.T, tensor.clone().fill_(0)]
        assert digest(tensor) == digest(tensor.clone())
        assert all(digest(tensor) != digest(other) for other in others)

    def test_notices_each_bit(self):
        tensor = torch.randn(2**20 + 5)
        for place in (0, 2**19, 2**20 + 4):
            other = tensor.clone()
            other[place] = torch.nextafter(other[place], torch.tensor(10.0))
            assert digest(other) != digest(tensor)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: torch.empty(0),
            lambda: torch.zeros(()),
            lambda: torch.eye(3).to_sparse(),
            lambda: torch.zeros(2, device="meta"),
            lambda: torch.zeros(2, dtype=torch.complex64).conj(),
            lambda: torch.arange(4).expand(3, 4),
        ],
    )
    def test_takes_any_tensor(self, make):
        assert digest(make()) == digest(make())
