import collections
import copy
import gc
import random
import weakref

import numpy as np
import pytest
import torch
import torchmetrics
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from gga_lightning.probing.twin import Known, Tripwire, Twin
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


def twin(module, known=None, **settings):
    params = {id(param) for param in module.parameters()}
    return Twin(module, known or Known(), optimized=params, **settings)


class TestTheOriginal:
    def test_does_not_notice(self):
        module = Leaky()
        module(torch.randn(4, 3))
        random_states = torch.get_rng_state(), random.getstate(), np.random.get_state()
        before, params = state(module), copies(module)
        own = twin(module).module
        for _ in range(3):
            own(torch.randn(4, 3))
        torch.set_rng_state(random_states[0])
        random.setstate(random_states[1])
        np.random.set_state(random_states[2])
        assert same(before, state(module))
        assert same(params, copies(module))
        assert own.count == 4

    def test_shares_its_trainable_parameters(self):
        module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        module[1].weight.requires_grad_(False)
        module.alias = module[0].weight.data
        own = twin(module).module
        assert own[0].weight is module[0].weight
        assert own[1].weight is not module[1].weight
        with torch.no_grad():
            module[0].weight.add_(1.0)
        assert torch.equal(own.alias, module.alias)

    def test_is_copied_with_its_structure(self):
        module = nn.Module()
        module.left = module.right = nn.Linear(2, 2)
        module.flat = torch.arange(6.0)
        module.halves = (module.flat[:3], module.flat[3:])
        module.strided = torch.arange(6.0).view(2, 3).T
        module.self = [module]
        own = twin(module).module
        assert own.left is own.right
        assert own.self[0] is own
        own.halves[1].zero_()
        assert own.flat.tolist() == [0, 1, 2, 0, 0, 0]
        assert module.flat.tolist() == [0, 1, 2, 3, 4, 5]
        assert own.strided.stride() == module.strided.stride()


class TestRewind:
    def test_takes_back_everything(self):
        module = Leaky()
        module(torch.randn(4, 3))
        made = twin(module)
        before, outputs = state(made.module), made.module.outputs
        made.module(torch.randn(4, 3))
        made.observe()
        for _ in range(2):
            assert not same(before["plain"], state(made.module)["plain"])
            made.rewind()
            after = state(made.module)
            kept = before.keys() - {"random", "draws"}  # the sandbox's business
            assert all(same(before[part], after[part]) for part in kept)
            assert made.module.outputs is outputs
            made.module(torch.randn(4, 3))

    def test_takes_back_what_only_later_runs_change_once_observed(self):
        module = nn.Linear(2, 2)
        module.notes = {}
        made = twin(module)
        made.observe()
        made.module.notes["late"] = 1
        made.observe()
        made.rewind()
        assert made.module.notes == {}

    def test_leaves_the_parameters_where_they_are(self):
        module = nn.Linear(2, 2)
        made = twin(module)
        with torch.no_grad():
            module.weight.add_(1.0)
        moved = module.weight.detach().clone()
        made.observe()
        made.rewind()
        assert torch.equal(module.weight, moved)

    @pytest.mark.parametrize(
        "change",
        [
            lambda t: t.add_(1),
            lambda t: t.resize_(5),
            lambda t: setattr(t, "data", torch.ones(7)),
            lambda t: setattr(t, "data", t.data.double()),
        ],
    )
    def test_tensors_changed_in_any_way(self, change):
        module = nn.Linear(2, 2)
        module.register_buffer("state", torch.arange(3.0))
        made = twin(module)
        change(made.module.state)
        made.observe()
        made.rewind()
        assert made.module.state.tolist() == module.state.tolist() == [0, 1, 2]
        assert made.module.state.dtype is torch.float32


class TestClosures:
    def test_belong_to_the_copy(self):
        module, count, seen = nn.Linear(2, 2), 0, []

        def hook(layer, inputs, output, kept=seen):
            nonlocal count
            count += 1
            kept.append(layer)

        module.register_forward_hook(hook)
        made = twin(module)
        made.module(torch.ones(1, 2))
        assert (count, seen) == (0, [])
        own = next(iter(made.module._forward_hooks.values()))
        assert own.__closure__[0].cell_contents == 1
        assert own.__defaults__[0] == [made.module]
        made.observe()
        made.rewind()
        assert own.__closure__[0].cell_contents == 0
        assert own.__defaults__[0] == []

    def test_may_refer_to_themselves_and_to_nothing(self):
        module = nn.Linear(2, 2)

        def recursive(n):
            return recursive(n - 1) if n else later

        module.function = recursive
        own = twin(module).module
        later = "found"
        assert module.function(3) == later
        assert own.function is not module.function
        assert own.function.__closure__[1].cell_contents is own.function

    def test_methods_and_references(self):
        module = Leaky()
        module.method, module.append = module.forward, module.outputs.append
        module.parent = weakref.ref(module)
        own = twin(module).module
        assert own.method.__self__ is own
        assert own.parent() is own
        own.append("mine")
        assert "mine" not in module.outputs
        assert own.outputs[-1] == "mine"


class Careful:
    """A class that says how to copy it."""

    def __init__(self):
        self.inside = {"tensor": torch.zeros(3), "list": []}

    def __deepcopy__(self, memo):
        new = Careful.__new__(Careful)
        new.inside = copy.deepcopy(self.inside, memo)
        return new


def test_what_a_class_copies_itself_is_rewound_too():
    module = nn.Linear(2, 2)
    module.careful = Careful()
    made = twin(module)
    made.module.careful.inside["tensor"].add_(1)
    made.module.careful.inside["list"].append(1)
    made.observe()
    made.rewind()
    assert made.module.careful.inside["tensor"].sum() == 0
    assert made.module.careful.inside["list"] == []
    assert module.careful.inside["list"] == []


class Cannot:
    def __reduce_ex__(self, protocol):
        raise TypeError("cannot")


class TestWhatCannotBeCopied:
    @pytest.mark.parametrize(
        "use",
        [
            lambda value: value(),
            lambda value: next(value),
            lambda value: value.write("x"),
            lambda value: value["x"],
            lambda value: len(value),
            lambda value: bool(value),
            lambda value: value.__enter__(),
            lambda value: setattr(value, "x", 1),
        ],
    )
    def test_is_refused_when_it_is_used(self, use):
        module = nn.Linear(2, 2)
        module.deep = {"here": [Cannot()]}
        found = twin(module).module.deep["here"][0]
        assert isinstance(found, Tripwire)
        message = (
            r"uses `self\.deep\['here'\]\[0\]` \(Cannot\), which cannot be copied.*domain_loss="
        )
        with pytest.raises(MisconfigurationException, match=message):
            use(found)

    def test_parameters_of_a_module_that_copies_itself(self):
        class Copies(nn.Linear):
            def __deepcopy__(self, memo):
                return Copies(2, 2)

        with pytest.raises(MisconfigurationException, match="`0.weight` cannot be shared"):
            twin(nn.Sequential(Copies(2, 2)))


class TestLargeValues:
    @pytest.fixture
    def module(self):
        module = nn.Linear(2, 2)
        module.register_buffer("constant", torch.zeros(600, 600))
        module.register_buffer("changing", torch.zeros(600, 600))
        module.frozen = nn.Parameter(torch.zeros(600, 600), requires_grad=False)
        module.array = np.zeros((600, 600))
        return module

    def learned(self, module):
        known = Known()
        trial = twin(module, known, trial=True)
        trial.module.changing[0, 0] += 1
        trial.observe()
        trial.learn()
        return known

    def test_are_shared_if_they_do_not_change(self, module):
        known = self.learned(module)
        assert module.changing.sum() == 0  # restored
        own = twin(module, known).module
        shared = {n for n in ("constant", "changing", "frozen") if same_memory(own, module, n)}
        assert shared == {"constant", "frozen"}
        assert np.shares_memory(own.array, module.array)
        own.frozen.data = torch.ones(1)  # swapping memory is still the copy's own business
        assert module.frozen.numel() == 360_000

    def test_are_watched(self, module):
        made = twin(module, self.learned(module))
        made.module.constant.add_(1)
        with pytest.raises(MisconfigurationException, match=r"changed `self\.constant` in place"):
            made.observe()

    def test_arrays_cannot_be_written_to(self, module):
        made = twin(module, self.learned(module))
        assert made.read_only_names() == "`self.array`"
        with pytest.raises(ValueError, match="read-only"):
            made.module.array[0] = 1

    def test_changes_through_data_are_found_in_a_sample(self, module):
        made = twin(module, self.learned(module))
        made.check_sample()
        made.module.frozen.data.mul_(0.9).add_(0.1)
        made.observe()
        with pytest.raises(MisconfigurationException, match=r"self\.frozen`.* through `\.data`"):
            made.check_sample()

    def test_are_copied_before_anything_is_known(self, module):
        assert not same_memory(twin(module).module, module, "constant")

    def test_changes_behind_autograds_back_are_learned(self):
        module, known = nn.Linear(2, 2), Known()
        module.register_buffer("small", torch.zeros(3))
        trial = twin(module, known, trial=True)
        trial.module.small.data.add_(1)
        trial.observe()
        trial.learn()
        made = twin(module, known)
        made.module.small.data.add_(1)
        made.observe()
        made.rewind()
        assert made.module.small.sum() == 0


def same_memory(left, right, name):
    return getattr(left, name).data_ptr() == getattr(right, name).data_ptr()


def test_an_average_that_nothing_optimizes_is_copied():
    module, known = nn.Module(), Known()
    module.net, module.average = nn.Linear(2, 2), nn.Linear(2, 2)
    before = module.average.weight.detach().clone()
    trial = Twin(module, known, optimized={id(p) for p in module.net.parameters()}, trial=True)
    trial.module.average.weight.data.lerp_(module.net.weight.data, 0.1)
    trial.observe()
    trial.learn()
    made = Twin(module, known)
    assert made.module.average.weight is not module.average.weight
    assert made.module.average.bias is module.average.bias
    assert torch.equal(module.average.weight, before)


def test_memory_is_freed_at_once():
    module = nn.Linear(2, 2)
    module.register_buffer("big", torch.zeros(1000))
    module.forward = lambda inputs: module.weight @ inputs  # a cycle
    made = twin(module)
    big = weakref.ref(made.module.big)
    gc.disable()
    try:
        made.discard()
        del made
        assert big() is None
    finally:
        gc.enable()


def test_logs_are_silenced_unless_they_are_the_modules_own():
    from tests.helpers import Classifier

    module = Classifier()
    own = twin(module).module
    assert own.log("name", 1.0) is None
    assert "log" not in vars(module)
    module.log = []
    assert twin(module).module.log == []
