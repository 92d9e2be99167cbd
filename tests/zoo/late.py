"""State that the first evaluation of a fit does not change, or does not change everywhere."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.zoo import case, loss_of, pooled
from tests.zoo.state import Net

LARGE = 40_000  # rows of 8 numbers, more than a megabyte


class Teacher(Net):
    """Averages its weights through `.data`, which PyTorch does not count as a change."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.net.bias)
        self.teacher = nn.Linear(8, 3).requires_grad_(False)
        self.teacher.load_state_dict(self.net.state_dict())
        self.late = False

    def training_step(self, batch, batch_idx):
        if self.global_step > 0 or not self.late:
            for old, new in zip(self.teacher.parameters(), self.net.parameters(), strict=True):
                old.data.mul_(0.9).add_(new.data, alpha=0.1)
        x, y = pooled(batch)
        out = self.net(x)
        return functional.cross_entropy(out, y) + (out - 3 * self.teacher(x)).square().mean()


@case("a teacher averaged through `.data`, of zeros at first")
class ZeroTeacher(Teacher):
    pass


@case("a teacher averaged through `.data` from the second step on")
class LateTeacher(Teacher):
    def __init__(self):
        super().__init__()
        self.late = True


@case(
    "the same with a teacher of over a megabyte",
    refused="changed one of `self.teacher.weight`, through `.data`",
)
class LateLargeTeacher(LateTeacher):
    def __init__(self):
        super().__init__()
        self.net, self.teacher = nn.Linear(8, LARGE), nn.Linear(8, LARGE).requires_grad_(False)

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) / LARGE


@case("parameters normalized through `.data` from the second step on", refused="`self.net.weight`")
class LateNormalization(Net):
    def keep(self, loss, batch):
        if self.global_step > 0:
            self.net.weight.data = functional.normalize(self.net.weight.data)


@case("counts losses above a limit, as only some candidates have them")
class Outliers(Net):
    def __init__(self):
        super().__init__()
        self.count = 0

    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        scaled = loss / (1 + self.count)
        if loss.item() > 1.1:
            self.count += 1
        return scaled


@case("keeps the lowest loss so far")
class LowestLoss(Net):
    def __init__(self):
        super().__init__()
        self.lowest = 1.2

    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        scaled = loss * (1 + self.lowest)
        self.lowest = min(self.lowest, loss.item())
        return scaled


@case("a state for each domain, changed through `.data`")
class DomainPrototypes(Net):
    def __init__(self):
        super().__init__()
        self.prototypes = {name: torch.zeros(3) for name in "ab"}

    def training_step(self, batch, batch_idx):
        losses = []
        for name, (x, y) in batch.items():
            out = self.net(x)
            self.prototypes[name].data.mul_(0.9).add_(out.detach().mean(0), alpha=0.1)
            near = (out.mean(0) - self.prototypes[name]).square().sum()
            losses.append(functional.cross_entropy(out, y) + near)
        return sum(losses)


@case("large arrays and buffers for each domain")
class DomainBanks(Net):
    def __init__(self):
        super().__init__()
        self.arrays = {name: np.zeros((LARGE, 8)) for name in "ab"}
        for name in "ab":
            self.register_buffer(f"bank_{name}", torch.zeros(LARGE, 8))

    def keep(self, loss, batch):
        for name, (x, _) in batch.items():
            self.arrays[name][: len(x)] += x.numpy()
            getattr(self, f"bank_{name}")[: len(x)] += x


@case(
    "a large array that is written to from the second step on",
    refused="writes to a large NumPy array, or to one in a file",
)
class LateArray(Net):
    def __init__(self):
        super().__init__()
        self.forgotten = np.zeros(200_000)

    def keep(self, loss, batch):
        if self.global_step > 0:
            self.forgotten[:8] += 1


@case("a large array that is read, as a tensor too")
class LargeTable(Net):
    def __init__(self):
        super().__init__()
        self.table = np.ones((LARGE, 8))

    def factor(self):
        return torch.from_numpy(self.table[:8]).mean() + self.table[-1, 0]


@case("a list for each of 20,000 samples")
class SampleLosses(Net):
    def __init__(self):
        super().__init__()
        self.losses = [[] for _ in range(20_000)]

    def keep(self, loss, batch):
        self.losses[self.global_step].append(loss.item())

    def factor(self):
        return 1 + len(self.losses[self.global_step])


@case("a sparse matrix that decays from the second step on")
class SparseDecay(Net):
    def __init__(self):
        super().__init__()
        self.graph = torch.eye(8).to_sparse()

    def factor(self):
        if self.global_step > 0:
            self.graph.mul_(0.9)
        return self.graph.to_dense().sum()


@case("a sparse matrix that is constant and large")
class SparseGraph(Net):
    def __init__(self):
        super().__init__()
        rows = torch.arange(2000)
        graph = torch.sparse_coo_tensor(torch.stack([rows, rows]), torch.ones(2000), (2000, 2000))
        self.graph = graph.coalesce()
        self.embedding = nn.Embedding(2000, 8)

    def training_step(self, batch, batch_idx):
        x, y = pooled(batch)
        neighbours = torch.sparse.mm(self.graph, self.embedding.weight)
        return functional.cross_entropy(self.net(x + neighbours[: len(x)]), y)


@case("embeddings computed in inference mode")
class TextEmbeddings(Net):
    def __init__(self):
        super().__init__()
        with torch.inference_mode():
            self.text = torch.randn(LARGE, 8), torch.randn(40, 8)

    def factor(self):
        return 1 + sum(text[:3].clone().mean().abs() for text in self.text)


@case("an optimizer of its own, which steps every second time")
class AccumulatedGradients(Net):
    def __init__(self):
        super().__init__()
        self.log_alpha = torch.zeros((), requires_grad=True)
        self.optimizer = torch.optim.SGD([self.log_alpha], lr=0.5)
        self.count = 0

    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        self.count += 1
        (self.log_alpha * loss.detach()).backward()
        if self.count % 2 == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss * self.log_alpha.exp().detach()
