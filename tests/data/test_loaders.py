import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from gga_lightning.data import Digits, DomainDataModule, Toy
from gga_lightning.data.loaders import DomainLoaders
from gga_lightning.data.transforms import IMAGENET_MEAN, IMAGENET_STD, EvalTransform, to_float


class Own:
    """A user's data set, without names."""

    name = "own"
    num_classes = 3
    input_shape = (3, 4, 4)

    def __init__(self, **attributes):
        pairs = torch.zeros(5, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 2, 1, 0])
        self.domains = {name: TensorDataset(*pairs) for name in ("b", "a")}
        vars(self).update(attributes)


def loaders(dataset):
    return DomainLoaders(dataset, eval_batch_size=8, num_workers=0)


class Featurizer(nn.Identity):
    normalization = (0.5, 0.25, 0.5), (0.5, 0.5, 0.125)


class TestNames:
    def test_of_data_without_any(self):
        assert loaders(Own()).classes == loaders(Own(classes=None)).classes == ["0", "1", "2"]
        assert loaders(Own()).domains == ["b", "a"]

    def test_of_the_module(self):
        data = DomainDataModule(Toy(points=(9, 9, 9)))
        assert data.classes == ["negative", "positive"]
        assert data.domains == ["centre", "right", "left"]

    @pytest.mark.parametrize("classes", [["cat", "dog", "owl"], ("cat", "dog", "owl"), [1, 2, 3]])
    def test_of_a_data_set_with_names(self, classes):
        assert loaders(Own(classes=classes)).classes == list(map(str, classes))

    @pytest.mark.parametrize("classes", [["cat", "dog"], ["cat", "dog", "cat"], [], 3, "ab"])
    def test_one_for_each_class(self, classes):
        with pytest.raises(ValueError, match="`classes` of the data set 'own' must be 3 different"):
            DomainDataModule(Own(classes=classes))


@pytest.mark.parametrize("domain", ["a", "b"])
def test_class_numbers_are_those_of_evaluation_batches(domain):
    data = DomainDataModule(Own(), domain, eval_batch_size=2)
    (loader,) = data.test_dataloader().values()
    before = torch.cat([targets for _, targets in loader])
    data.class_numbers = [7, 0, 3]
    (loader,) = data.test_dataloader().values()
    after = torch.cat([targets for _, targets in loader])
    assert after.dtype == before.dtype
    assert torch.equal(after, torch.tensor([7, 0, 3])[before])
    for loader in data.val_dataloader().values():
        assert {int(target) for _, targets in loader for target in targets} <= {7, 0, 3}


class TestPreprocessing:
    @pytest.mark.parametrize(
        ("featurizer", "expected"),
        [
            (Featurizer(), ([0.5, 0.25, 0.5], [0.5, 0.5, 0.125])),
            (nn.Identity(), (list(IMAGENET_MEAN), list(IMAGENET_STD))),
            (None, (list(IMAGENET_MEAN), list(IMAGENET_STD))),
        ],
    )
    def test_integers_are_normalized_for_the_featurizer(self, featurizer, expected):
        own = Own(as_uint8=True, eval_transform=EvalTransform(4))
        found = loaders(own).preprocessing(featurizer)
        assert (found["mean"], found["std"]) == expected
        assert (found["size"], found["domainbed"]) == (4, False)

    @pytest.mark.parametrize(
        "attributes",
        [
            {},
            {"eval_transform": to_float},
            {"eval_transform": EvalTransform(4)},  # inputs stay integers
            {"eval_transform": lambda image: image, "as_uint8": True},
        ],
    )
    def test_none_for_what_is_not_known(self, attributes):
        assert loaders(Own(**attributes)).preprocessing(Featurizer()) is None

    @pytest.mark.parametrize("dataset", [Toy(), Digits(), Digits("colour")])
    def test_none_for_what_is_not_images(self, dataset):
        assert loaders(dataset).preprocessing(Featurizer()) is None
