"""The search step of the paper's code, written down literally, to measure ours against.

Everything that costs time or memory is as there: gradients with retained graphs, concatenated;
cosines of whole vectors; a pass of its own for the pooled loss, with a graph; noise from
``rand_like``; whole copies of the parameters, and acceptances read to the host.
"""

import itertools

import torch
from torch import nn
from torch.nn import functional

__all__ = ["PaperSearch"]


class PaperSearch:
    """One searched step on (inputs, targets) of each domain, moving the featurizer."""

    def __init__(self, network: nn.Module, featurizer: nn.Module, radius: float) -> None:
        self.network = network
        self.featurizer = featurizer
        self.radius = radius
        self.cosine = nn.CosineSimilarity(dim=0)

    def gradients(self, batches):
        found = []
        for inputs, targets in batches:
            loss = functional.cross_entropy(self.network(inputs), targets)
            gradient = torch.autograd.grad(loss, self.network.parameters(), retain_graph=True)
            found.append(torch.cat([g.flatten() for g in gradient]))
        return found

    def similarity(self, gradients):
        pairs = itertools.combinations(range(len(gradients)), 2)
        return min(self.cosine(gradients[i], gradients[j]) for i, j in pairs)

    def pooled_loss(self, batches):
        inputs = torch.cat([inputs for inputs, _ in batches])
        targets = torch.cat([targets for _, targets in batches])
        return functional.cross_entropy(self.network(inputs), targets).item()

    def perturb(self):
        with torch.no_grad():
            for param in self.featurizer.parameters():
                param.data += (torch.rand_like(param) * 2 - 1) * self.radius

    def copy(self):
        return [param.data.clone() for param in self.network.parameters()]

    def load(self, values):
        with torch.no_grad():
            for param, value in zip(self.network.parameters(), values, strict=True):
                param.data.copy_(value)

    def step(self, batches, candidates):
        """Searches one step with so many candidates, and leaves the parameters at the best."""
        gradients = self.gradients(batches)
        best_similarity, best_loss = self.similarity(gradients), self.pooled_loss(batches)
        start, best = self.copy(), self.copy()
        for _ in range(candidates):
            self.perturb()
            gradients = self.gradients(batches)
            similarity, loss = self.similarity(gradients), self.pooled_loss(batches)
            if loss - best_loss < 0.1 and similarity > best_similarity:
                best_similarity, best_loss = similarity, loss
                best = self.copy()
                self.load(start)
        self.load(best)
