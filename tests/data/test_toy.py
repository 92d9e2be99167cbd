import pytest
import torch

from gga_lightning.data import Toy


def test_domains():
    toy = Toy(gap=2.0)
    sizes = {name: len(domain) for name, domain in toy.domains.items()}
    assert sizes == {"centre": 250, "right": 250, "left": 1250}
    for name, mean in (("centre", 0.0), ("right", 2.0), ("left", -2.0)):
        inputs, targets = toy.domains[name].tensors
        assert inputs.shape[1:] == toy.input_shape
        assert inputs[:, 1].mean().item() == pytest.approx(mean, abs=0.05)
        assert inputs[:, 1].std().item() == pytest.approx(0.2, abs=0.03)
        for target, centre in ((0, -0.6), (1, 0.6)):
            first = inputs[targets == target, 0]
            assert first.mean().item() == pytest.approx(centre, abs=0.08)
            assert first.std().item() == pytest.approx(0.3, abs=0.05)


def test_is_a_function_of_its_seed():
    first, again, other = (Toy(seed=s).domains["left"].tensors[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("points", [(1, 2), (0, 1, 1)])
def test_wrong_points(points):
    with pytest.raises(ValueError, match="`points` must be three positive numbers, got"):
        Toy(points=points)


def test_classes_are_named_after_the_first_coordinate():
    data = Toy()
    for domain in data.domains.values():
        inputs, targets = domain.tensors
        for number, name in enumerate(data.classes):
            assert (inputs[targets == number, 0].mean() < 0) == (name == "negative")
