"""The sheet of held-out pictures that a training leaves."""

import pytest
import torch
from PIL import Image

from gga_lightning.algorithms import ERM
from gga_lightning.backbones import MNISTCNN
from gga_lightning.data import Digits, DomainDataModule, Emoji
from gga_lightning.experiments.pictures import PredictionSheet, _half_wrong
from tests.helpers import trainer


def fit(callback, data):
    module = ERM(MNISTCNN(data.input_shape), data.num_classes)
    trainer(callback, max_steps=2, limit_val_batches=1).fit(module, datamodule=data)
    return module


def emoji():
    data = Emoji(domains=("noto", "openmoji", "emojione-mono"), image_size=16)
    settings = {"batch_size": 2, "eval_batch_size": 16, "steps_per_epoch": 2}
    return DomainDataModule(data, holdout_fraction=0.4, **settings)


def test_is_a_picture_in_the_run_folder(tmp_path):
    module = fit(PredictionSheet(tmp_path), emoji())
    with Image.open(tmp_path / "predictions.png") as sheet:
        assert sheet.width > 1000
    assert module.training  # as fit leaves it


def test_changes_nothing_in_the_training(tmp_path):
    states = []
    for callbacks in ([], [PredictionSheet(tmp_path)]):
        torch.manual_seed(0)
        data = emoji()
        module = ERM(MNISTCNN(data.input_shape), data.num_classes)
        trainer(*callbacks, max_steps=2, limit_val_batches=1).fit(module, datamodule=data)
        states.append((module.state_dict(), torch.get_rng_state()))
    torch.testing.assert_close(states[0][0], states[1][0], rtol=0, atol=0)
    assert torch.equal(states[0][1], states[1][1])


def test_is_not_made_of_other_inputs(tmp_path):
    fit(PredictionSheet(tmp_path), DomainDataModule(Digits(), batch_size=2, steps_per_epoch=2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_is_not_made_without_our_data_module(tmp_path):
    data = emoji()
    module = ERM(MNISTCNN(data.input_shape), data.num_classes)
    settings = {"max_steps": 1, "limit_val_batches": 0}
    trainer(PredictionSheet(tmp_path), **settings).fit(module, Batches(data))
    assert list(tmp_path.iterdir()) == []


class Batches(torch.utils.data.DataLoader):
    def __init__(self, data):
        pictures = torch.rand(4, *data.input_shape), torch.zeros(4, dtype=torch.long)
        super().__init__([{"a": pictures, "b": pictures}], batch_size=None)


@pytest.mark.parametrize(
    ("right", "count", "shown"),
    [(100, 24, (12, 12)), (250, 24, (18, 6)), (3, 24, (3, 21)), (0, 24, (0, 24)), (256, 4, (4, 0))],
)
def test_half_are_wrong_where_there_are_as_many(right, count, shown):
    answers = torch.arange(256) < right
    chosen = _half_wrong(answers, count)
    assert (int(answers[chosen].sum()), int((~answers[chosen]).sum())) == shown
    assert len(chosen.unique()) == count


def test_count_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="`count` must be at least 1, got 0"):
        PredictionSheet(tmp_path, count=0)
