import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from gga_lightning.data import Digits

SHIFTS = {"rotation": 6, "style": 5, "shortcut": 3, "texture": 3, "colour": 3}
COUNT = 1797


def tensors(shift, seed=0):
    return {name: data.tensors for name, data in Digits(shift, seed=seed).domains.items()}


def dealt(domains, seed=0):
    """The images and digits that each domain gets, dealt again."""
    bunch = load_digits()
    order = np.random.default_rng(seed).permutation(COUNT)
    for part in np.array_split(order, domains):
        yield torch.tensor(bunch.images[part] / 16).float(), torch.tensor(bunch.target[part])


@pytest.mark.parametrize("shift", SHIFTS)
class TestEveryShift:
    def test_shapes(self, shift):
        digits = Digits(shift)
        assert len(digits.domains) == SHIFTS[shift]
        assert sum(len(domain) for domain in digits.domains.values()) == COUNT
        for domain in digits.domains.values():
            inputs, targets = domain.tensors
            assert inputs.dtype is torch.float32
            assert inputs.shape[1:] == digits.input_shape
            assert targets.dtype is torch.int64
            assert 0 <= targets.min() <= targets.max() < digits.num_classes
        assert digits.name == f"digits-{shift}"

    def test_is_a_function_of_its_seed(self, shift):
        first, again, other = tensors(shift), tensors(shift), tensors(shift, seed=1)
        name = next(iter(first))
        assert torch.equal(first[name][0], again[name][0])
        assert not torch.equal(first[name][0], other[name][0])

    def test_leaves_the_global_random_state_alone(self, shift):
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()
        Digits(shift)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1]


def test_rotation():
    domains = tensors("rotation")
    assert list(domains) == ["0", "15", "30", "45", "60", "75"]
    for (degrees, (images, targets)), (plain, digits) in zip(
        domains.items(), dealt(6), strict=True
    ):
        assert torch.equal(targets, digits)
        assert torch.equal(images[:, 0], plain) is (degrees == "0")
    images, plain = domains["45"][0][:, 0], list(dealt(6))[3][0]
    back = torch.rot90(plain, 1, (1, 2))  # a quarter turn is further from an eighth than none is
    assert (images - plain).abs().mean() < (images - torch.rot90(back, 1, (1, 2))).abs().mean()


def test_style():
    domains, plain = tensors("style"), dict(zip(SHIFTS, dealt(5), strict=True))
    images = [part for part, _ in plain.values()]
    found = {name: values[:, 0] for name, (values, _) in domains.items()}
    assert torch.equal(found["plain"], images[0])
    torch.testing.assert_close(found["inverted"], 1 - images[1])
    assert found["blurred"].std() < images[2].std()
    noise = found["noisy"] - images[3]
    assert noise.std().item() == pytest.approx(0.4, rel=0.02)
    assert torch.equal(found["striped"][..., 1::2], images[4][..., 1::2])
    assert found["striped"][..., ::2].min() >= 0.5


def test_shortcut():
    domains = tensors("shortcut")
    for (name, (inputs, targets)), (plain, digits) in zip(domains.items(), dealt(3), strict=True):
        assert torch.equal(targets, digits)
        assert torch.equal(inputs[:, :64], plain.flatten(1))
        slots = inputs[:, 64:].view(-1, 3, 10)
        used = {"first": [1, 0, 0], "second": [0, 1, 0], "random": [1, 1, 1]}[name]
        assert slots.sum(2).unique(dim=0).tolist() == [used]
        if name != "random":
            right = slots[:, used.index(1)].argmax(1) == targets
            assert right.float().mean().item() == pytest.approx(0.91, abs=0.03)
        else:
            rates = [(slots[:, i].argmax(1) == targets).float().mean().item() for i in range(3)]
            assert rates == pytest.approx([0.1] * 3, abs=0.04)


def test_texture():
    domains = tensors("texture")
    assert list(domains) == ["agree_90", "agree_70", "agree_10"]
    patterns = None
    for (name, (images, targets)), (plain, _) in zip(domains.items(), dealt(3), strict=True):
        added = ((images[:, 0] - plain) / 0.5).flatten(1)
        assert added.min() > -1e-5
        assert added.max() < 1 + 1e-5
        if patterns is None:  # nearly all samples of a class carry its pattern
            patterns = torch.stack([added[targets == k].median(0).values for k in range(10)])
        which = torch.cdist(added, patterns).argmin(1)
        share = int(name.removeprefix("agree_")) / 100
        agree = (which == targets).float().mean().item()
        assert agree == pytest.approx(share + (1 - share) / 10, abs=0.05)


def test_colour():
    domains = tensors("colour")
    assert list(domains) == ["flip_10", "flip_20", "flip_90"]
    for (name, (images, labels)), (plain, digits) in zip(domains.items(), dealt(3), strict=True):
        assert torch.equal(images.sum(1), plain)
        channel = images.flatten(2).sum(2).argmax(1)
        assert (images.flatten(2).sum(2).min(1).values == 0).all()
        flips = (labels != (digits >= 5)).float().mean().item()
        assert flips == pytest.approx(0.25, abs=0.05)
        flip = int(name.removeprefix("flip_")) / 100
        assert (channel != labels).float().mean().item() == pytest.approx(flip, abs=0.05)


def test_unknown_shift():
    with pytest.raises(ValueError, match=r"`shift` must be one of \['rotation'.* got 'weather'"):
        Digits("weather")


@pytest.mark.parametrize("shift", SHIFTS)
def test_classes_are_named_after_the_digits(shift):
    data = Digits(shift)
    if shift == "colour":
        assert data.classes == ["0 to 4", "5 to 9"]
    else:
        assert data.classes == list("0123456789")
    assert len(data.classes) == data.num_classes
