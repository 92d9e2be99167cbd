import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from gga_lightning import GradientConflictMonitor
from tests.helpers import Classifier, Flat, combined_loader, trainer


def run(monitor, **settings):
    fit = trainer(monitor, **settings)
    fit.fit(Classifier(), combined_loader())
    return fit


def test_looks_every_n_steps_from_the_first():
    monitor = GradientConflictMonitor(every_n_steps=2)
    run(monitor)
    assert [record.step for record in monitor.records] == [0, 2, 4]
    assert monitor.records[0].domains == ("art", "photo", "sketch")
    cosines = monitor.records[0].cosines
    assert torch.equal(cosines, cosines.T)
    torch.testing.assert_close(cosines.diagonal(), torch.ones(3, dtype=torch.float64))


def test_once_a_step_under_accumulation():
    monitor = GradientConflictMonitor(every_n_steps=1)
    run(monitor, accumulate_grad_batches=3, max_steps=2)
    assert [record.step for record in monitor.records] == [0, 1]


def test_logs_each_look_once_whatever_the_logging_interval(tmp_path):
    monitor = GradientConflictMonitor(every_n_steps=2)
    run(monitor, logger=CSVLogger(tmp_path), log_every_n_steps=50)
    header, *rows = [
        line.split(",")
        for line in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    ]
    table = [dict(zip(header, row, strict=True)) for row in rows]
    logged = [row for row in table if row["conflict/min"]]
    assert [int(row["step"]) for row in logged] == [0, 2, 4]
    for row, record in zip(logged, monitor.records, strict=True):
        pairs = {
            f"conflict/{record.domains[i]}-{record.domains[j]}": record.cosines[i, j].item()
            for i, j in ((0, 1), (0, 2), (1, 2))
        }
        assert {name: float(row[name]) for name in pairs} == pytest.approx(pairs)
        values = list(pairs.values())
        assert float(row["conflict/min"]) == pytest.approx(min(values))
        assert float(row["conflict/mean"]) == pytest.approx(sum(values) / 3)
        assert float(row["conflict/share"]) == sum(value < 0 for value in values) / 3


def test_latest_values_are_in_callback_metrics():
    monitor = GradientConflictMonitor(every_n_steps=2)
    fit = run(monitor)
    lowest = min(monitor.records[-1].cosines.flatten().tolist())
    assert fit.callback_metrics["conflict/min"].item() == pytest.approx(lowest)


def test_parameters_choose_whose_gradients():
    whole, head = GradientConflictMonitor(6), GradientConflictMonitor(6, parameters="head")
    fit = trainer(whole, head)
    fit.fit(Classifier(), combined_loader())
    assert not torch.allclose(whole.records[0].cosines, head.records[0].cosines)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_records_survive_a_resume(tmp_path):
    def fit(epochs, **settings):
        monitor = GradientConflictMonitor(4)
        saved = ModelCheckpoint(tmp_path, save_last=True)
        ran = trainer(monitor, saved, max_steps=-1, max_epochs=epochs, enable_checkpointing=True)
        torch.manual_seed(0)
        ran.fit(Classifier(), combined_loader(), **settings)
        return monitor.records

    first = fit(1)
    second = fit(2, ckpt_path=tmp_path / "last.ckpt")
    assert [record.step for record in second] == [0, 4, 8]
    assert torch.equal(first[0].cosines, second[0].cosines)


def test_wrong_interval():
    with pytest.raises(ValueError, match="`every_n_steps` must be an integer of at least 1, got 0"):
        GradientConflictMonitor(0)


def test_shuffled_domains():
    plain, control = (GradientConflictMonitor(1, control=c) for c in (None, "shuffle_domains"))
    fit = trainer(plain, control)
    fit.fit(Flat(), combined_loader())
    means = [sum(r.cosines.mean().item() for r in monitor.records) for monitor in (plain, control)]
    assert means[1] > means[0]
    assert plain.state_key != control.state_key
