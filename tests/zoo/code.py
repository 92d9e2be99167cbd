"""How modules run their code: closures, hooks, compilers, reparametrizations."""

import functools

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.zoo import Small, case, helpers, loss_of, numbers, pooled

SEEN = []
CALLS = 0


class Net(Small):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        return loss_of(self.net, batch)


@case("a forward hook that captured the module")
class HookWithSelf(Net):
    def __init__(self):
        super().__init__()
        self.activations, self.calls = [], 0

        def hook(layer, inputs, output):
            self.activations.append(output.detach().mean())
            self.calls += 1

        self.net[0].register_forward_hook(hook)

    def training_step(self, batch, batch_idx):
        return loss_of(self.net, batch) * (1 + len(self.activations))


@case("a forward hook that captured a variable, and one by a method")
class HookWithVariables(Net):
    def __init__(self):
        super().__init__()
        count, sizes = 0, []

        def hook(layer, inputs, output, kept=sizes):
            nonlocal count
            count += 1
            kept.append(count)

        self.net[0].register_forward_hook(hook)
        self.net[2].register_forward_hook(self.remember)
        self.count = lambda: count + len(sizes)
        self.means = []

    def remember(self, layer, inputs, output):
        self.means.append(output.mean().item())

    def training_step(self, batch, batch_idx):
        return loss_of(self.net, batch) * (1 + self.count() + len(self.means))


@case("`forward` replaced by a lambda")
class LambdaForward(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.forward = lambda inputs: self.net(self.norm(inputs - self.norm.running_mean))

    def training_step(self, batch, batch_idx):
        return loss_of(self, batch)


@case("a bound method and a partial of it as attributes")
class BoundMethods(Net):
    def __init__(self):
        super().__init__()
        self.total = 0
        self.transform, self.scaled = self.count, functools.partial(self.count, by=2)

    def count(self, loss, by=1):
        self.total += by
        return loss * self.total

    def training_step(self, batch, batch_idx):
        return self.scaled(self.transform(loss_of(self.net, batch)))


@case("gradient hooks on parameters")
class GradientHooks(Net):
    def __init__(self):
        super().__init__()
        self.mask = (numbers(8, 8) > 0).float()
        self.net[0].weight.register_hook(lambda gradient: gradient * self.mask)


@case("activation checkpointing")
class Checkpointing(Net):
    def training_step(self, batch, batch_idx):
        inputs, targets = pooled(batch)
        hidden = checkpoint(self.net[:2], inputs, use_reentrant=False)
        return functional.cross_entropy(self.net[2](functional.dropout(hidden)), targets)


@case("a backward pass through gradients")
class GradientPenalty(Net):
    def training_step(self, batch, batch_idx):
        inputs, targets = pooled(batch)
        inputs.requires_grad_()
        loss = functional.cross_entropy(self.net(inputs), targets)
        (gradient,) = torch.autograd.grad(loss, inputs, create_graph=True)
        return loss + gradient.square().sum()


@case("weight normalization and spectral normalization")
class Parametrized(Net):
    def __init__(self):
        super().__init__()
        norms = nn.utils.parametrizations
        norms.weight_norm(self.net[0])
        norms.spectral_norm(self.net[2])


@case("weight and spectral normalization by hooks, as in older PyTorch")
class OlderNorms(Net):
    def __init__(self):
        super().__init__()
        nn.utils.weight_norm(self.net[0])
        nn.utils.spectral_norm(self.net[2])


@case("weights made by another network")
class HyperNetwork(Net):
    def __init__(self):
        super().__init__()
        self.code, self.maker = nn.Parameter(numbers(4)), nn.Linear(4, 24)

    def training_step(self, batch, batch_idx):
        self.weight = self.maker(self.code).view(3, 8)
        return loss_of(lambda inputs: functional.linear(inputs, self.weight), batch)


@case("layers that are frozen and set to evaluation by the step")
class Freezes(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def training_step(self, batch, batch_idx):
        self.norm.eval()
        return loss_of(lambda inputs: self.net(self.norm(inputs)), batch)


@case("a layer made at the first step, and a hook put on and off")
class MakesLayers(Net):
    def training_step(self, batch, batch_idx):
        if not hasattr(self, "scale"):
            self.scale = nn.Parameter(torch.ones(3), requires_grad=False)
        handle = self.net[0].register_forward_hook(lambda *_: None)
        loss = loss_of(lambda inputs: self.net(inputs) * self.scale, batch)
        handle.remove()
        return loss


def eager(module, **settings):
    return torch.compile(module, backend="eager", **settings)


@case("compiled as a whole", fits=eager)
class CompiledWhole(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def training_step(self, batch, batch_idx):
        return loss_of(lambda inputs: self.net(self.norm(inputs)), batch)


@case("a compiled submodule, one compiled in place, and a compiled method")
class CompiledInPart(Net):
    def __init__(self):
        super().__init__()
        self.norm = eager(nn.BatchNorm1d(8))
        self.net.compile(backend="eager")
        self.compute = eager(self._compute)
        self.steps = 0

    def _compute(self, inputs):
        self.steps = self.steps + 1
        return self.net(self.norm(inputs)) * self.steps

    def training_step(self, batch, batch_idx):
        return loss_of(self.compute, batch)


@case("state that `on_train_batch_start` prepares")
class Prepares(Net):
    def on_train_batch_start(self, batch, batch_idx):
        self.weights = {name: 1 / len(inputs) for name, (inputs, _) in batch.items()}
        self.noise = torch.randn(8)

    def training_step(self, batch, batch_idx):
        losses = [
            self.weights[name] * functional.cross_entropy(self.net(inputs + self.noise), targets)
            for name, (inputs, targets) in batch.items()
        ]
        return torch.stack(losses).sum()


@case("a global list of losses", refused="changed `tests.zoo.code.SEEN`")
class GlobalList(Net):
    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        SEEN.append(loss.item())
        return loss


@case("a global counter", refused="changed `tests.zoo.code.CALLS`")
class GlobalCounter(Net):
    def training_step(self, batch, batch_idx):
        global CALLS
        CALLS += 1
        return loss_of(self.net, batch)


@case("a list in the class", refused="changed `ClassList.history`")
class ClassList(Net):
    history = []  # noqa: RUF012

    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        self.history.append(loss.item())
        return loss


@case("a counter of the class", refused="changed `ClassCounter.count`")
class ClassCounter(Net):
    count = 0

    def training_step(self, batch, batch_idx):
        type(self).count += 1
        return loss_of(self.net, batch)


@case("a decorated step that counts", refused="changed `Decorated.training_step.calls`")
class Decorated(Net):
    @helpers.counted
    def training_step(self, batch, batch_idx):
        return loss_of(self.net, batch)


@case(
    "weights clipped in place by the step",
    refused="changes `self.net.0.weight` in place",
)
class Clips(Net):
    def training_step(self, batch, batch_idx):
        with torch.no_grad():
            for param in self.net.parameters():
                param.clamp_(-1, 1)
        return loss_of(self.net, batch)


@case("weights clipped through `.data`", refused="changed `self.net.0.weight`")
class ClipsData(Net):
    def training_step(self, batch, batch_idx):
        for param in self.net.parameters():
            param.data.clamp_(-0.1, 0.1)
        return loss_of(self.net, batch)


@case("gradients accumulated by the step itself", refused="changed `self.net.0.weight.grad`")
class Accumulates(Net):
    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        loss.backward(retain_graph=True)
        return loss


class Twice:
    """Fails the second time that it is asked, wherever its copies are."""

    asked = 0

    def __call__(self):
        Twice.asked += 1
        if Twice.asked % 2 == 0:
            raise RuntimeError("once is enough")


@case("a step that fails the second time", refused="changed `Twice.asked`")
class FailsTwice(Net):
    def __init__(self):
        super().__init__()
        self.once = Twice()

    def training_step(self, batch, batch_idx):
        self.once()
        return loss_of(self.net, batch)
