import errno
import fcntl
import multiprocessing
import os
import signal
import time

import pytest

from gga_lightning.data.locks import alone

fork = multiprocessing.get_context("fork")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "PACS.lock"


def never():
    raise AssertionError("nobody else holds the lock")


def hold(file, entered, leave=None):
    with alone(file, never):
        entered.set()
        assert leave is None or leave.wait(60)
        time.sleep(60 if leave is None else 0)


def test_one_process_at_a_time(file):
    entered, leave, waited = fork.Event(), fork.Event(), []
    process = fork.Process(target=hold, args=(file, entered, leave))
    process.start()
    assert entered.wait(30)

    def waits():
        waited.append(file.exists())
        leave.set()

    with alone(file, waits) as held:
        assert held
        process.join(30)
        assert process.exitcode == 0
    assert waited == [True]
    assert not file.exists()


def test_a_killed_process_blocks_nobody(file):
    entered = fork.Event()
    process = fork.Process(target=hold, args=(file, entered))
    process.start()
    assert entered.wait(30)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert file.exists()
    with alone(file, never) as held:
        assert held
    assert not file.exists()


def add_one(file, count):
    for _ in range(40):
        with alone(file, lambda: None):
            value = int(count.read_text())
            time.sleep(0.0005)
            count.write_text(str(value + 1))


def test_deleting_the_file_lets_no_two_in(file, tmp_path):
    (tmp_path / "count").write_text("0")
    processes = [fork.Process(target=add_one, args=(file, tmp_path / "count")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert (tmp_path / "count").read_text() == "120"
    assert not file.exists()


def test_is_free_after_an_error(file):
    with pytest.raises(KeyboardInterrupt), alone(file, never):
        raise KeyboardInterrupt
    with alone(file, never) as held:
        assert held


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_disks_without_locks(file, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with alone(file, never) as held:
            assert not held


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with alone(tmp_path / "file" / "x.lock", never) as held:
        assert not held
