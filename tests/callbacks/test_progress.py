"""Live progress inside a searched step."""

import itertools
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar

from gga_lightning import GradientGuidedAnnealing, Walk
from gga_lightning.callbacks import _progress
from tests.helpers import Classifier, combined_loader, trainer


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Each look at the clock is a second later, and every update is shown."""
    now = itertools.count()
    monkeypatch.setattr(_progress, "time", SimpleNamespace(monotonic=lambda: next(now)))
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
    # a candidate takes a second, and 10 are the window
    left = ["0:00:09", "0:00:08", "0:00:07", "0:00:06", "0:00:05"]
    assert seen[:5] == [
        f"GGA step 1, candidate {i}/5, {t} left: " for i, t in zip(range(1, 6), left, strict=True)
    ]
    assert seen[5] == "Epoch 0: "
    assert seen[6].startswith("GGA step 2")


def test_rich_bar_gets_a_line_for_the_window_that_goes_away(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    bar = RichProgressBar(console_kwargs={"force_terminal": True})
    states = []

    class Spied(GradientGuidedAnnealing):
        def _record(self, *args):
            super()._record(*args)
            tasks = bar.progress.tasks
            states.append([(t.description, t.completed, t.total, t.visible) for t in tasks])

    gga = Spied(1, 3, proposal=Walk(0.01), num_candidates=5)
    fit = trainer(gga, bar, max_steps=4, enable_progress_bar=True)
    fit.fit(Classifier(), combined_loader())
    (train, search), (_, again) = states
    assert train[0].startswith("Epoch 0")
    assert search == ("GGA step 1", 5, 10, True)
    assert again == ("GGA step 2", 10, 10, False)
    assert gga._progress._trainer is None


def test_lines_where_a_rich_bar_draws_nothing(capsys):
    run(RichProgressBar(), enable_progress_bar=True)
    assert "GGA step 1: 1 of 5 candidates" in capsys.readouterr().out


def test_lines_without_a_bar_become_rarer(caplog):
    run()
    lines = [r.getMessage() for r in caplog.records if "candidates, min" in r.getMessage()]
    assert lines[0].startswith("GGA step 1: 1 of 5 candidates, min cosine ")
    assert lines[0].endswith(" so far, 0:00:09 of the window left")
    assert 2 < len(lines) < 10


@pytest.mark.parametrize(
    ("window", "max_steps", "every", "seconds"),
    [
        ((0, 100), 400, 1, 99),
        ((0, 100), 40, 1, 39),  # training ends before the window
        ((0, 100), 400, 10, 9),
        ((0, 1), 400, 1, 0),
    ],
)
def test_the_time_left_is_that_of_the_whole_window(window, max_steps, every, seconds):
    gga = GradientGuidedAnnealing(*window, num_candidates=1, every_n_steps=every)
    left = gga._steps_left(trainer(max_steps=max_steps), 0)
    progress = _progress.SearchProgress()
    with progress.step(trainer(), 0, 1, left):
        assert (
            progress._time_left(progress._began + 1, 1) == f"0:0{seconds // 60}:{seconds % 60:02}"
        )


def test_of_a_schedule_of_your_own_only_the_steps_time_is_known(caplog):
    class Odd(GradientGuidedAnnealing):
        def should_search(self, step):
            return step % 2 == 1

    gga = Odd(0, 4, proposal=Walk(0.01), num_candidates=4)
    trainer(gga, max_steps=4).fit(Classifier(), combined_loader())
    lines = [r.getMessage() for r in caplog.records if "candidates, min" in r.getMessage()]
    first = [line for line in lines if ": 1 of 4" in line]
    assert len(first) == 2
    assert all(line.endswith("0:00:03 left") for line in first)


def test_a_bar_of_another_kind(caplog, capsys):
    class Mine(ProgressBar):
        def disable(self):
            pass

    run(Mine(), enable_progress_bar=True)
    assert "GGA: searched 2 steps" in capsys.readouterr().out


def test_a_disabled_bar(caplog):
    run(TQDMProgressBar(refresh_rate=0), enable_progress_bar=True)
    assert any("GGA: searched 2 steps" in r.getMessage() for r in caplog.records)
