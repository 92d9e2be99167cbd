import csv
import fcntl
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf

from gga_lightning.experiments.checkpoints import LastCheckpoint
from gga_lightning.experiments.jobs import FolderInUse, Job
from tests.helpers import trainer

HOLDS = """
import sys
from pathlib import Path
from gga_lightning.experiments.jobs import Job
with Job(Path(sys.argv[1])).claim("a", []):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path / "run")


def noted(job, name="job.json"):
    return json.loads((job.folder / name).read_text())


class TestClaim:
    def test_notes_whose_the_folder_is(self, job):
        with job.claim("a", ["seed=1"]):
            pass
        with job.claim("a", ["seed=1"]):
            assert noted(job) == {"config_hash": "a", "overrides": ["seed=1"], "starts": []}
        assert job.result() is None
        assert job.find_checkpoint() is None

    def test_refuses_another_jobs_folder_and_leaves_it(self, job):
        with job.claim("a", []):
            job.finish({"config_hash": "a"})
        before = {path.name: path.read_bytes() for path in job.folder.iterdir()}
        said = r"holds another job \(`config_hash` a, here b\)"
        with pytest.raises(ValueError, match=said), job.claim("b", []):
            raise AssertionError
        assert {path.name: path.read_bytes() for path in job.folder.iterdir()} == before

    def test_takes_the_folder_of_a_job_that_never_trained(self, job):
        with pytest.raises(ValueError, match="refused"), job.claim("a", ["seed=1"]):
            raise ValueError("refused")
        with job.claim("b", ["seed=2"]):
            assert noted(job) == {"config_hash": "b", "overrides": ["seed=2"], "starts": []}
            job.go_on(0, SimpleNamespace(loggers=[]))
        with pytest.raises(ValueError, match="holds another job"), job.claim("a", []):
            raise AssertionError

    def test_refuses_a_second_claim_until_the_first_ends(self, job):
        with job.claim("a", []):
            second = Job(job.folder).claim("a", [])
            with pytest.raises(FolderInUse, match=r"another process works in .*run"), second:
                raise AssertionError
        with job.claim("a", []):
            pass

    def test_the_lock_goes_with_a_finished_job_alone(self, job):
        lock = job.folder / ".lock"
        with job.claim("a", []):
            assert lock.exists()
        assert lock.exists()
        with job.claim("a", []):
            job.finish({"config_hash": "a"})
            assert lock.exists()
        assert not lock.exists()
        with job.claim("a", []):  # by one that did not see the result before
            assert job.result() is not None
        assert not lock.exists()

    def test_a_second_process_that_waited_finds_the_result(self, job):
        """It had opened the file that the first one then removed, and holds it."""
        with job.claim("a", []):
            late = (job.folder / ".lock").open("w")
            job.finish({"config_hash": "a"})
        with late:
            fcntl.flock(late, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with Job(job.folder).claim("a", []):
                assert job.result() is not None

    @pytest.mark.slow
    def test_refuses_a_second_process_until_the_first_is_killed(self, job):
        command = [sys.executable, "-c", HOLDS, str(job.folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, **pipes) as first:
            assert first.stdout.readline() == b"held\n"
            said = r"another process works in .*run"
            with pytest.raises(FolderInUse, match=said), job.claim("a", []):
                raise AssertionError
            assert not (job.folder / "failure.json").exists()  # it is the first one's to fail
            first.kill()
        with job.claim("a", []):
            pass

    def test_keeps_an_error_until_the_next_start(self, job):
        with pytest.raises(ZeroDivisionError), job.claim("a", []):
            1 / 0  # noqa: B018
        failure = noted(job, "failure.json")
        assert failure["error"] == "ZeroDivisionError: division by zero"
        assert "test_jobs.py" in failure["traceback"]
        with job.claim("a", []):
            assert not (job.folder / "failure.json").exists()

    def test_an_interruption_is_no_failure(self, job):
        with pytest.raises(KeyboardInterrupt), job.claim("a", []):
            raise KeyboardInterrupt
        assert not (job.folder / "failure.json").exists()
        with job.claim("a", []):  # nor does it keep the folder
            pass

    @pytest.mark.parametrize("name", ["result.json", "job.json"])
    def test_names_a_file_that_cannot_be_read(self, job, name):
        job.folder.mkdir()
        (job.folder / name).touch()
        with pytest.raises(ValueError, match=f"{name} cannot be read .* delete it"):
            (job.result if name == "result.json" else lambda: job.starts)()


def test_the_last_checkpoint_stays_until_the_next_is_whole(tmp_path):
    class Killed(SimpleNamespace):
        def save_checkpoint(self, path, weights_only):
            Path(path).write_text("half")
            raise KeyboardInterrupt

    path = tmp_path / "last.ckpt"
    path.write_text("whole")
    checkpoint = LastCheckpoint(str(path))
    killed = Killed(global_step=5, is_global_zero=True)
    checkpoint.on_validation_end(killed, None)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.on_train_epoch_end(killed, None)
    assert path.read_text() == "whole"


class TestGoOn:
    @pytest.fixture
    def written(self, job):
        """A run folder with rows up to step 29, as a logger leaves it."""
        logger = CSVLogger(job.folder, name="", version="")
        for step in range(0, 30, 5):
            logger.log_metrics({"loss": 1 / (step + 3)}, step)
            if step == 10:
                logger.log_metrics({"acc": 0.1 + 0.2, "note": float("nan")}, step)
        logger.save()
        (job.folder / "checkpoints").mkdir()
        for name in ("last", "oracle-10", "oracle-20", "training_domain_validation-25"):
            (job.folder / f"checkpoints/{name}.ckpt").touch()
        with job.claim("a", []):
            pass
        with (job.folder / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    def restart(self, job, step):
        job.begin()
        logger = CSVLogger(job.folder, name="", version="")
        assert logger.experiment is not None  # deletes what is there
        job.go_on(step, trainer(logger=logger))
        return logger

    def rows(self, job):
        with (job.folder / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    @pytest.mark.filterwarnings("ignore:Experiment logs directory")
    def test_keeps_the_rows_before_and_drops_those_after(self, job, written):
        logger = self.restart(job, 20)
        assert self.rows(job) == [row for row in written if int(row["step"]) < 20]
        assert noted(job)["starts"] == [20]
        logger.log_metrics({"loss": 7.0}, 20)
        logger.save()
        assert [row["step"] for row in self.rows(job)] == ["0", "5", "10", "10", "15", "20"]
        assert not (job.folder / "metrics-earlier.csv").exists()

    @pytest.mark.filterwarnings("ignore:Experiment logs directory")
    def test_loses_nothing_when_a_start_ends_at_once(self, job, written):
        job.begin()
        (job.folder / "metrics.csv").write_text("step\n")  # the new logger's, then it is killed
        self.restart(job, 20)
        assert self.rows(job) == [row for row in written if int(row["step"]) < 20]

    @pytest.mark.filterwarnings("ignore:Experiment logs directory")
    @pytest.mark.parametrize("cut", ["2", "2,", ",,", "0.1,,25", "\n", "x,,y\n", ",,,,,5\n"])
    def test_a_row_cut_off_in_writing_does_not_count(self, job, written, cut):
        with (job.folder / "metrics.csv").open("a") as file:
            file.write(cut)
        self.restart(job, 20)
        assert self.rows(job) == [row for row in written if int(row["step"]) < 20]

    def test_keeps_all_rows_when_none_are_written_any_more(self, job, written):
        job.begin()
        job.go_on(20, trainer(logger=False))
        assert self.rows(job) == written
        assert not (job.folder / "metrics-earlier.csv").exists()

    @pytest.mark.filterwarnings("ignore:Experiment logs directory")
    def test_from_the_beginning(self, job, written):
        self.restart(job, 0)
        assert not (job.folder / "metrics.csv").exists()
        names = [path.name for path in (job.folder / "checkpoints").iterdir()]
        assert names == ["last.ckpt"]

    @pytest.mark.filterwarnings("ignore:Experiment logs directory")
    def test_deletes_checkpoints_of_steps_to_come(self, job, written):
        self.restart(job, 20)
        names = sorted(path.name for path in (job.folder / "checkpoints").iterdir())
        assert names == ["last.ckpt", "oracle-10.ckpt", "oracle-20.ckpt"]


def test_saves_the_configuration(job):
    config = OmegaConf.create({"annealing": {}, "seed": "${oc.env:SEED}"})
    hydra = OmegaConf.create({"overrides": {"task": ["annealing=none"]}})
    with job.claim("a", []):
        job.save_config(config, hydra)
    folder = job.folder / ".hydra"
    assert OmegaConf.load(folder / "config.yaml") == config
    assert OmegaConf.load(folder / "overrides.yaml") == ["annealing=none"]
    assert OmegaConf.load(folder / "hydra.yaml") == {"hydra": hydra}
