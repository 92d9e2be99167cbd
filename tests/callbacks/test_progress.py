"""Live progress inside a searched step."""

import pytest
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar

from gga_lightning import GradientGuidedAnnealing, Walk
from gga_lightning.callbacks import _progress
from tests.helpers import Classifier, combined_loader, trainer


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(_progress, "_SECONDS_BETWEEN_UPDATES", 0.0)
    monkeypatch.setattr(_progress, "_SECONDS_BETWEEN_LINES", 0.0)


def run(*callbacks, **settings):
    gga = GradientGuidedAnnealing(1, 3, proposal=Walk(0.01), num_candidates=5)
    fit = trainer(gga, *callbacks, max_steps=4, **settings)
    fit.fit(Classifier(), combined_loader())
    return gga


def test_tqdm_description_counts_and_goes_back(capsys):
    seen = []

    class Bar(TQDMProgressBar):
        def init_train_tqdm(self):
            bar = super().init_train_tqdm()
            original = bar.set_description_str

            def keep(text, *args, **kwargs):
                seen.append(text)
                original(text, *args, **kwargs)

            bar.set_description_str = keep
            return bar

    run(Bar(), enable_progress_bar=True)
    assert seen[:5] == [f"GGA step 1, candidate {i}/5: " for i in range(1, 6)]
    assert seen[5] == "Epoch 0: "
    assert seen[6].startswith("GGA step 2")


def test_rich_bar_gets_a_line_that_goes_away(capsys):
    bar = RichProgressBar()
    states = []

    class Spied(GradientGuidedAnnealing):
        def _record(self, *args):
            super()._record(*args)
            states.append([(t.description, t.completed, t.visible) for t in bar.progress.tasks])

    gga = Spied(1, 3, proposal=Walk(0.01), num_candidates=5)
    fit = trainer(gga, bar, max_steps=4, enable_progress_bar=True)
    fit.fit(Classifier(), combined_loader())
    (train, search), (_, again) = states
    assert train[0].startswith("Epoch 0")
    assert search == ("GGA step 1", 5, False)
    assert again == ("GGA step 2", 5, False)


def test_lines_without_a_bar(caplog):
    run()
    lines = [r.getMessage() for r in caplog.records if "candidates, min" in r.getMessage()]
    assert len(lines) == 10
    assert lines[0].startswith("GGA step 1: 1 of 5 candidates, min cosine ")


def test_a_bar_of_another_kind(caplog, capsys):
    class Mine(ProgressBar):
        def disable(self):
            pass

    run(Mine(), enable_progress_bar=True)
    assert "GGA: searched 2 steps" in capsys.readouterr().out


def test_a_disabled_bar(caplog):
    run(TQDMProgressBar(refresh_rate=0), enable_progress_bar=True)
    assert any("GGA: searched 2 steps" in r.getMessage() for r in caplog.records)
