import io
import logging
import sys
import warnings

import pytest
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.progress import Progress
from tqdm import tqdm

from gga_lightning.experiments.terminal import fold, tidy, transcript

pytestmark = pytest.mark.filterwarnings("default")  # not errors, as for users


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Makes the output a terminal; not at once, as pytest sets the streams again after set-up."""

    def terminal(columns):
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        return screen

    return terminal


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("", ""),
        ("one two", "one two"),
        ("one two three", "one two\nthree"),
        ("12345678 9", "12345678\n9"),
        ("a /a/long/path b", "a\n/a/long/path\nb"),
        ("\u5199\u771f \u5199\u771f", "\u5199\u771f\n\u5199\u771f"),  # two columns each
        ("one two\nthree four\n", "one two\nthree\nfour\n"),
    ],
)
def test_fold(text, folded):
    assert fold(text, 8) == folded


class TestTidy:
    def test_a_warning_is_one_line_once(self, capsys):
        with tidy("command"):
            for _ in range(3):
                warnings.warn("of two\n lines", stacklevel=1)
            warnings.warn("another", UserWarning, stacklevel=1)
        said = capsys.readouterr().err
        assert said == "command: warning: of two lines\ncommand: warning: another\n"

    @pytest.mark.parametrize(
        ("module", "category", "visible"),
        [
            ("lightning.pytorch.trainer", FutureWarning, False),
            ("torch", DeprecationWarning, False),
            ("torch.nn", UserWarning, True),
            ("mine", FutureWarning, True),
            ("torchmine", FutureWarning, True),
        ],
    )
    @pytest.mark.filterwarnings("always")
    def test_deprecations_inside_of_libraries_are_left_out(self, capsys, module, category, visible):
        with tidy("command"):
            warnings.warn_explicit("old", category, "file", 1, module=module)
        assert ("command: warning: old" in capsys.readouterr().err) == visible

    def test_hydras_handler_follows_the_stream(self, capsys, tmp_path):
        handler = logging.StreamHandler(sys.stdout)
        logging.getLogger().addHandler(handler)
        with tidy("command"), tidy("command"), transcript(tmp_path / "log"):
            logging.getLogger("mine").warning("of a user's module")
            logging.getLogger("mine").warning("Tip: no")
        logging.getLogger().removeHandler(handler)
        assert capsys.readouterr().out == "of a user's module\n"
        assert (tmp_path / "log").read_text() == "of a user's module\n"

    @pytest.mark.parametrize(
        "line",
        [
            "`weights_only` was not set, defaulting to `False`.",
            "GPU available: False, used: False",
            "\U0001f4a1 Tip: try this",
            "`Trainer.fit` stopped: `max_steps=4` reached.",
            "Restored all states from the checkpoint at /a",
            f"{'-' * 100}\ndistributed_backend=gloo\nAll processes registered.",
        ],
    )
    def test_lightnings_lines_are_left_out(self, capsys, line):
        with tidy("command"):
            rank_zero_info(line)
            rank_zero_info("GGA: searched")
            logging.getLogger("lightning.pytorch.trainer").info(line)
        assert capsys.readouterr().err.replace("INFO: ", "") == "GGA: searched\n"

    def test_hydras_line_is_left_out(self, capsys):
        with tidy("command"):
            sys.stderr.write("Error executing job with overrides: []\n")
            sys.stderr.write("mine\n")
        assert capsys.readouterr().err == "mine\n"

    def test_long_lines_are_folded_on_a_terminal(self, terminal):
        screen = terminal(40)
        with tidy("command"):
            print("word " * 20)
            warnings.warn("word " * 20, stacklevel=1)
        assert max(map(len, screen.getvalue().splitlines())) <= 40

    def test_but_not_in_a_file(self, capsys):
        with tidy("command"):
            print("word " * 40)
        assert len(capsys.readouterr().out.splitlines()) == 1

    def test_all_is_as_before_at_the_end(self):
        handlers = logging.getLogger("lightning.pytorch").handlers
        state = (sys.stdout, sys.stderr, warnings.showwarning, warnings.filters[:])
        streams = [(handler.stream, handler.filters[:]) for handler in handlers]
        with tidy("command"), tidy("command"):
            pass
        assert state == (sys.stdout, sys.stderr, warnings.showwarning, warnings.filters)
        assert streams == [(handler.stream, handler.filters) for handler in handlers]


class TestTranscript:
    def test_has_what_is_printed(self, tmp_path, capsys):
        path = tmp_path / "log"
        for number in (1, 2):
            with tidy("command"), transcript(path):
                print("printed", number)
                print("an error", file=sys.stderr)
                rank_zero_info("logged")
                warnings.warn("warned", stacklevel=1)
                print("no end", end="")
        expected = "printed {}\nan error\nlogged\ncommand: warning: warned\nno end\n"
        said = path.read_text().replace("INFO: ", "")
        assert said == expected.format(1) + expected.format(2)
        assert "printed 2" in capsys.readouterr().out

    def test_a_warning_that_was_printed_is_in_the_next_jobs_too(self, tmp_path, capsys):
        with tidy("command"):
            for name in "ab":
                with tidy("command"), transcript(tmp_path / name):
                    for _ in range(2):
                        warnings.warn("warned", stacklevel=1)
        assert capsys.readouterr().err == "command: warning: warned\n"
        for name in "ab":
            assert (tmp_path / name).read_text() == "command: warning: warned\n"

    def test_is_written_at_once(self, tmp_path, capsys):
        with transcript(tmp_path / "log"):
            print("printed")
            assert (tmp_path / "log").read_text() == "printed\n"

    def test_has_the_error(self, tmp_path, capsys):
        with pytest.raises(ZeroDivisionError), transcript(tmp_path / "log"):
            1 / 0  # noqa: B018
        log = (tmp_path / "log").read_text()
        assert "Traceback" in log
        assert log.endswith("ZeroDivisionError: division by zero\n")
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("bars", [1, 2, 3])
    @pytest.mark.parametrize("transient", [True, False])
    def test_has_no_rich_bars(self, tmp_path, terminal, bars, transient):
        screen = terminal(80)
        with transcript(tmp_path / "log"):
            print("before")
            with Progress(console=Console(), transient=transient, auto_refresh=False) as progress:
                tasks = [progress.add_task(f"bar {number}", total=5) for number in range(bars)]
                for step in range(5):
                    for task in tasks:
                        progress.advance(task)
                        progress.refresh()
                    print(f"[bold]line {step}", file=(sys.stdout, sys.stderr)[step % 2])
            Console().print("[bold]after")
        lines = ["before", *(f"[bold]line {step}" for step in range(5))]
        last = [] if transient else [f"bar {number}" for number in range(bars)]
        found = (tmp_path / "log").read_text().splitlines()
        assert [line.partition(" ━")[0] for line in found] == [*lines, *last, "after"]
        assert "bar 0" in screen.getvalue()

    def test_has_a_tqdm_bars_last_state_only(self, tmp_path, terminal):
        terminal(80)
        with transcript(tmp_path / "log"):
            for _ in tqdm(range(5), file=sys.stdout, mininterval=0):
                pass
            print("after")
        (bar, after) = (tmp_path / "log").read_text().splitlines()
        assert bar.startswith("100%")
        assert after == "after"
