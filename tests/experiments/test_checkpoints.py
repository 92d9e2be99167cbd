import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from gga_lightning.experiments.checkpoints import read_checkpoint, replace_file
from gga_lightning.experiments.jobs import Job
from tests.experiments.test_evaluate import run
from tests.helpers import mostly_slow

pytestmark = pytest.mark.filterwarnings("always:(?s).*It is kept as")  # and not an error

SETTINGS = ("data=toy", "annealing=none", "callbacks=checkpoint", "data.steps_per_epoch=5")
LENGTH = "trainer.max_steps=20"


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run."""
    return run(tmp_path_factory.mktemp("runs") / "whole", *SETTINGS, LENGTH)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The same run as a power cut leaves it after step 20."""

    def power_cut(*arguments):
        raise SystemExit

    folder = tmp_path_factory.mktemp("begun") / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Job, "finish", power_cut)
        run(folder, *SETTINGS, LENGTH)
    return folder


def weights(folder):
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


DAMAGES = {
    "empty": lambda path, mark: path.write_bytes(b""),
    "half": lambda path, mark: cut(path, 0.5),
    "all but the end": lambda path, mark: cut(path, 0.99),
    "text": lambda path, mark: path.write_text("not a checkpoint"),
    "other weights": lambda path, mark: torch.save({"w": torch.zeros(3)}, path),
    "a pickle": lambda path, mark: path.write_bytes(pickle.dumps(Payload(mark))),
    "a pickle in a checkpoint": lambda path, mark: torch.save({"state_dict": Payload(mark)}, path),
    "a folder": lambda path, mark: (path.unlink(), path.mkdir()),
    "a link to nothing": lambda path, mark: (path.unlink(), path.symlink_to("nothing")),
}


@pytest.mark.parametrize(
    "damage",
    mostly_slow(DAMAGES, "empty", "other weights", "a pickle in a checkpoint", "a folder"),
)
def test_the_previous_checkpoint_takes_the_place_of_a_damaged_one(
    whole, begun, tmp_path, capsys, damage
):
    folder = shutil.copytree(begun, tmp_path / "run")
    path, mark = folder / "checkpoints" / "last.ckpt", tmp_path / "executed"
    DAMAGES[damage](path, mark)
    run(folder, *SETTINGS, LENGTH)
    errors = " ".join(capsys.readouterr().err.split())
    assert str(path) in errors
    assert "last.ckpt.damaged" in errors
    assert Job(folder).starts == [0, 15]
    assert os.path.lexists(path.with_name("last.ckpt.damaged"))
    for name, value in weights(whole).items():
        assert torch.equal(weights(folder)[name], value)
    assert not mark.exists()


def test_with_no_checkpoint_left_the_training_begins_anew(whole, begun, tmp_path, capsys):
    folder = shutil.copytree(begun, tmp_path / "run")
    for name in ("last", "previous"):
        cut(folder / "checkpoints" / f"{name}.ckpt", 0.5)
    run(folder, *SETTINGS, LENGTH)
    assert Job(folder).starts == [0, 0]
    assert capsys.readouterr().err.count(".damaged") >= 2
    for name, value in weights(whole).items():
        assert torch.equal(weights(folder)[name], value)


def test_a_checkpoint_of_another_job_is_not_taken(begun, tmp_path, capsys):
    other = run(tmp_path / "other", *SETTINGS, LENGTH, "seed=1")
    folder = shutil.copytree(begun, tmp_path / "run")
    shutil.copy(other / "checkpoints" / "last.ckpt", folder / "checkpoints" / "last.ckpt")
    run(folder, *SETTINGS, LENGTH)
    assert "is a checkpoint of another job" in " ".join(capsys.readouterr().err.split())
    assert Job(folder).starts == [0, 15]


def test_a_run_between_two_renamings_resumes(begun, tmp_path):
    folder = shutil.copytree(begun, tmp_path / "run")
    (folder / "checkpoints" / "last.ckpt").unlink()
    run(folder, *SETTINGS, LENGTH)
    assert Job(folder).starts == [0, 15]


def test_a_run_folder_that_was_moved_resumes(whole, begun, tmp_path, capsys):
    place = shutil.copytree(begun, tmp_path / "elsewhere" / "run")
    run(place, *SETTINGS, LENGTH)
    assert Job(place).starts == [0, 20]
    assert "warning" not in capsys.readouterr().err
    found, expected = Job(place).result(), Job(whole).result()
    for name in ("selections", "evaluations"):
        assert found[name] == expected[name]
    kept = sorted(path.name for path in (place / "checkpoints").iterdir())
    assert kept == sorted(path.name for path in (whole / "checkpoints").iterdir())


def test_files_are_synced_before_they_replace_others(tmp_path, monkeypatch):
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    told, fsync, rename = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (told.append("sync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (told.append("rename"), rename(*names)))
    replace_file(tmp_path / "new", tmp_path / "old")
    assert told[:2] == ["sync", "rename"]
    assert (tmp_path / "old").read_text() == "new"


class TestFullDisk:
    @pytest.fixture
    def full(self, monkeypatch):
        """No checkpoint can be written, and no note of it."""

        def no_room(*arguments, **settings):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("torch.save", no_room)
        return no_room

    def test_a_note_is_left(self, tmp_path, capsys, full):
        with pytest.raises(SystemExit):
            run(tmp_path / "run", *SETTINGS, LENGTH)
        assert "No space left" in (tmp_path / "run" / "failure.json").read_text()
        assert "No space left" in capsys.readouterr().err
        assert not list((tmp_path / "run").rglob("*.part"))

    def test_where_no_note_can_be_left_its_place_is_told(self, tmp_path, capsys, full, monkeypatch):
        write = Job._write
        monkeypatch.setattr(
            Job,
            "_write",
            lambda self, name, content: (
                full() if name == "failure.json" else write(self, name, content)
            ),
        )
        with pytest.raises(SystemExit):
            run(tmp_path / "run", *SETTINGS, LENGTH)
        errors = " ".join(capsys.readouterr().err.split())
        assert f"could not be noted in {tmp_path / 'run' / 'failure.json'}" in errors
