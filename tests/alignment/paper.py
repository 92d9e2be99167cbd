"""The paper's search, written down from its description: every decision, nothing else.

An independent check on ours: it concatenates gradients, computes cosines its own way, evaluates
the pooled batch in a pass of its own, and keeps full copies of the parameters.
"""

import itertools

import torch
from torch.nn import functional


def minimum_similarity(network, batches):
    flat = []
    for inputs, targets in batches:
        loss = functional.cross_entropy(network(inputs), targets)
        gradient = torch.autograd.grad(loss, list(network.parameters()))
        flat.append(torch.cat([g.reshape(-1) for g in gradient]))
    cosine = torch.nn.CosineSimilarity(dim=0)
    return min(cosine(a, b).item() for a, b in itertools.combinations(flat, 2))


def search(network, moved, batches, noises):
    """Searches, moving the parameters ``moved`` by each of ``noises`` in turn.

    Returns:
        Indices of the accepted candidates.
    """
    pooled_inputs = torch.cat([inputs for inputs, _ in batches])
    pooled_targets = torch.cat([targets for _, targets in batches])

    def pooled_loss():
        with torch.no_grad():
            return functional.cross_entropy(network(pooled_inputs), pooled_targets).item()

    def load(values):
        for param, value in zip(network.parameters(), values, strict=True):
            param.data.copy_(value)

    def snapshot():
        return [param.data.clone() for param in network.parameters()]

    start = best = snapshot()
    best_similarity, last_accepted_loss = minimum_similarity(network, batches), pooled_loss()
    accepted = []
    for index, noise in enumerate(noises):
        for param, change in zip(moved, noise, strict=True):
            param.data += change
        similarity, loss = minimum_similarity(network, batches), pooled_loss()
        if loss - last_accepted_loss < 0.1 and similarity > best_similarity:
            best_similarity, last_accepted_loss = similarity, loss
            best = snapshot()
            accepted.append(index)
            load(start)
    load(best)
    return accepted
