import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from gga_lightning.alignment.score import PairwiseCosines, Score, check_objective


def test_score_of_pairs():
    assert Score.of(2.0, [0.5, -0.5, 0.3], "min") == (2.0, -0.5, pytest.approx(0.1), -0.5)
    assert Score.of(2.0, [0.5, -0.5, 0.3], "mean").objective == pytest.approx(0.1)


def test_score_of_no_pairs():
    with pytest.raises(ValueError, match="at least two domains"):
        Score.of(2.0, [], "min")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_not_finite(value):
    assert not Score.of(value, [0.5], "min").finite
    assert not Score.of(1.0, [0.5, math.nan], "min").finite


def test_objective():
    with pytest.raises(ValueError, match="`objective` must be 'min' or 'mean', got 'median'"):
        check_objective("median")


def test_comparison_in_any_order():
    gradients = [(torch.randn(3, 2), torch.randn(4)) for _ in range(4)]
    flat = [torch.cat([part.flatten() for part in gradient]) for gradient in gradients]
    compared = PairwiseCosines(lambda values: values)
    for index in (2, 0, 3, 1):
        compared.add(index, gradients[index])
    assert compared.settle(torch.tensor([7.0])) == [7.0]
    expected = [
        cosine_similarity(flat[i], flat[j], dim=0).item() for i in range(4) for j in range(i + 1, 4)
    ]
    assert compared.pairs() == pytest.approx(expected, abs=1e-6)
    assert compared.lowest() == pytest.approx(min(expected), abs=1e-6)
    lowest = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)][expected.index(min(expected))]
    assert set(compared.most_conflicting_first()[:2]) == set(lowest)
    assert compared.gradients() == gradients
