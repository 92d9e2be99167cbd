import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gga_lightning.data import libjpeg
from gga_lightning.data.libjpeg import with_complaint

COMPLAINT = b"Corrupt JPEG data: 3 extraneous bytes before marker 0xd9\n"


def write(*lines):
    for line in lines:
        os.write(2, line)


class TestWithComplaint:
    def test_result_and_complaint(self):
        assert with_complaint(lambda: 7) == (7, None)
        assert with_complaint(lambda: write(COMPLAINT)) == (None, COMPLAINT.decode().strip())
        assert with_complaint(lambda: 8) == (8, None)

    def test_other_lines_are_passed_on(self, capfd):
        _, found = with_complaint(lambda: write(b"one\n", COMPLAINT, b"two\n"))
        assert found is not None
        write(b"three\n")
        error = capfd.readouterr().err
        assert [line for line in error.splitlines() if line != "one"] == ["two", "two", "three"]
        assert "Corrupt" not in error

    def test_errors_leave_standard_error_in_place(self, capfd):
        for _ in range(3):
            with pytest.raises(RuntimeError, match="no"):
                with_complaint(lambda: exec('raise RuntimeError("no")'))
        write(b"still here\n")
        assert capfd.readouterr().err == "still here\n"

    def test_threads_hear_only_their_own(self, capfd):
        def decode(bad):
            for _ in range(20):
                os.stat(".")  # lets other threads run
            if bad:
                write(COMPLAINT)
            return bad

        jobs = [index % 5 == 0 for index in range(300)]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda bad: with_complaint(lambda: decode(bad)), jobs))
        assert [(bad, text is not None) for bad, text in found] == [(bad, bad) for bad in jobs]
        assert capfd.readouterr().err == ""

    def test_without_a_standard_error(self, monkeypatch):
        monkeypatch.setattr(libjpeg.sys, "__stderr__", None)
        assert with_complaint(lambda: 7) == (7, None)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_does_not_inherit_the_window(capfd):
    entered, leave = threading.Event(), threading.Event()

    def slow():
        entered.set()
        leave.wait(20)

    thread = threading.Thread(target=lambda: with_complaint(slow))
    thread.start()
    assert entered.wait(20)
    threading.Timer(0.2, leave.set).start()
    child = multiprocessing.get_context("fork").Process(target=_child)
    child.start()  # waits for the window to close
    assert leave.is_set()
    child.join(20)
    thread.join(20)
    assert child.exitcode == 0
    assert capfd.readouterr().err == "from the child\n"


def _child():
    write(b"from the child\n")
    assert with_complaint(lambda: write(COMPLAINT))[1] is not None
    assert with_complaint(lambda: None)[1] is None
