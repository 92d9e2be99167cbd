"""With one source domain, every algorithm is defined, or refuses it before it has trained."""

import pytest
import torch
from hydra.utils import get_class
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from gga_lightning.algorithms import GroupDRO, MixStyle
from gga_lightning.backbones import MLP
from gga_lightning.data import Digits, DomainDataModule
from tests.algorithms.test_every_algorithm import NAMES, composed, make
from tests.helpers import domain_batch, mostly_slow, trainer

# What they add to the loss of one domain is neither zero nor undefined.
DEFINED = {
    *("arm", "causirl_coral", "causirl_mmd", "cutmix", "erm", "gsam", "ib_erm", "ib_irm", "irm"),
    *("miro", "mixstyle", "rsc", "sagm", "sagnet", "sam", "sd", "selfreg", "urm"),
}
# With loaders of the user's own, these train: their batches may lack domains.
NOT_SEEN_IN_A_BATCH = {"arith", "mtl"}
WAYS_OUT = r"`data\.pseudo_domains=3` .* `data\.views=\[edges\]`"
QUICK = ("arith", "coral", "dann", "erm", "fish", "group_dro", "irm", "mtl", "vrex")


def one_source():
    dataset = Digits("rotation")
    return DomainDataModule(dataset, list(dataset.domains)[1:], batch_size=8, steps_per_epoch=2)


@pytest.mark.parametrize("name", mostly_slow(NAMES, *QUICK))
def test_trains_or_refuses(name):
    module = make(name)  # with five source domains, which its discriminator tells apart
    before = [param.detach().clone() for param in module.parameters()]
    fit = trainer(max_steps=2, limit_val_batches=0)
    if name in DEFINED:
        fit.fit(module, datamodule=one_source())
        assert fit.global_step == 2
        assert all(param.isfinite().all() for param in module.parameters())
        return
    kind = type(module).__name__
    with pytest.raises(
        MisconfigurationException, match=rf"{kind} needs .* 2 source .*, got \['0'\]. .*{WAYS_OUT}"
    ):
        fit.fit(module, datamodule=one_source())
    if name not in NOT_SEEN_IN_A_BATCH:
        module, batch = make(name), next(iter(one_source().train_dataloader()))
        fit = trainer(max_steps=2, limit_val_batches=0)
        with pytest.raises(MisconfigurationException, match=rf"{kind} needs batches of .*'0'"):
            fit.fit(module, DataLoader([batch], batch_size=None), [])
    assert fit.global_step == 0
    assert all(map(torch.equal, before, module.parameters()))


def test_the_smallest_number_of_domains_is_declared():
    kinds = {name: get_class(composed().every[name]._target_) for name in NAMES}
    assert {name for name, kind in kinds.items() if kind.min_domains == 1} == DEFINED
    assert {kind.min_domains for kind in kinds.values()} == {1, 2}


def test_pseudo_domains_are_enough():
    dataset = Digits("rotation")
    data = DomainDataModule(
        dataset, list(dataset.domains)[1:], batch_size=8, steps_per_epoch=2, pseudo_domains=2
    )
    module, fit = GroupDRO(MLP((1, 8, 8)), 10), trainer(max_steps=2, limit_val_batches=0)
    fit.fit(module, datamodule=data)
    assert list(module.weights) == ["cluster-0", "cluster-1"]


def test_a_small_batch_of_two_domains_is_another_fault():
    batch = {name: (x[:1], y[:1]) for name, (x, y) in domain_batch().items()}
    with pytest.raises(MisconfigurationException, match=r"by domain\). Raise the batch size\.$"):
        make("coral").objective(batch)


def test_styles_of_other_domains():
    """Without another domain, each sample's partner would be of its own."""
    module = MixStyle(MLP((8,)), 3, pairs="domains", probability=1.0)
    with pytest.raises(MisconfigurationException, match=f"MixStyle needs batches of .*{WAYS_OUT}"):
        module.objective({"art": domain_batch()["art"]})
    MixStyle(MLP((8,)), 3, probability=1.0).objective({"art": domain_batch()["art"]})
