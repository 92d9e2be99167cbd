import json
import sys

import pytest

from gga_lightning.experiments import study

TOY = ("data=toy", "trainer.max_steps=4", "data.steps_per_epoch=2", "data.test_domain=left")


def arms(*overrides, methods=("voting",)):
    """The arms without what all have in common."""
    shared = 3 + len(overrides)
    return [" ".join(arm[shared:]) for arm in study.arms(overrides, methods)]


def test_arms():
    assert arms("data=toy", methods=["gga_l annealing.gamma=0.1", "coral"]) == [
        "annealing=none",
        "annealing=gga_l annealing.gamma=0.1",
        "annealing=gga_l annealing.gamma=0.1 annealing.control=shuffle_domains",
        "annealing=none algorithm=coral",
        "annealing=none algorithm=coral data.shuffle_domains=true",
        "annealing=none algorithm.optimizer.lr=0.003",
        "annealing=none algorithm.optimizer.weight_decay=0.001",
        "annealing=none trainer.max_steps=1600",
    ]


def test_remedies_follow_from_the_settings():
    found = arms(
        "data=emoji", "algorithm.optimizer.lr=0.01", "algorithm.optimizer.weight_decay=0.02"
    )
    assert found[3:] == [
        "annealing=none algorithm.optimizer.lr=0.03",
        "annealing=none algorithm.optimizer.weight_decay=0.2",
        "annealing=none trainer.max_steps=280",
        "annealing=none data.views=[edges] data.views_as=augmentation",
    ]


def test_voting_ends_after_a_quarter():
    assert arms("data=toy", "trainer.max_steps=40")[1] == "annealing=voting annealing.end_step=10"
    given = arms("data=toy", methods=["voting annealing.end_step=3"])
    assert given[1] == "annealing=voting annealing.end_step=3"


@pytest.mark.parametrize(
    ("overrides", "methods", "words"),
    [
        (["annealing=gga"], ["voting"], "must not set what the study varies itself"),
        (["seed=3"], ["voting"], "'seed=3'; see `--methods`"),
        (["hydra.sweep.dir=here"], ["voting"], "see `--methods`, `--seeds`, `--out`"),
        (["data.batch_size=8,16"], ["voting"], "must have one value each"),
        (["data=toy"], ["votin"], "must be options of `annealing` or `algorithm`, got 'votin'"),
        (["data=toy", "data.batchsize=8"], ["voting"], "batch_size"),
        (["data=toy"], ["voting annealing.gamma=1"], "gamma"),
        (["data=toy"], ["'voting"], "No closing quotation"),
        (["data=toy", "trainer.max_steps=-1"], ["voting"], "`trainer.max_steps` must be at least"),
    ],
)
def test_bad_arguments(overrides, methods, words, capsys, tmp_path):
    arguments = [*overrides, "--methods", *methods, "--out", str(tmp_path / "study")]
    assert study.main(arguments) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("gga-study: ")
    assert words in error
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("option", ["--seeds=0", "--jobs=-1", "--minutes=nan", "--minutes=0"])
def test_bad_numbers(option, capsys):
    assert study.main(["data=toy", option]) == 1
    assert f"`{option.partition('=')[0]}` must be a positive number" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_and_its_continuation(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = sys.argv
    assert study.main([*TOY, "--methods", "voting", "--seeds", "1"]) == 0
    assert sys.argv is before
    output = " ".join(capsys.readouterr().out.split())
    assert "6 arms, up to 1 seeds" in output
    assert "Verdict on toy, by training-domain validation: - 'erm + voting': no verdict" in output
    results = [json.loads(path.read_text()) for path in tmp_path.glob("study/*/result.json")]
    assert sorted(result["steps"] for result in results) == [4, 4, 4, 4, 4, 8]
    assert not list(tmp_path.glob("study/*/checkpoints/*"))

    assert study.main([*TOY, "--methods", "voting", "--seeds", "2"]) == 0
    output = capsys.readouterr().out
    assert output.count("already finished") == 6
    assert len(list(tmp_path.glob("study/*/result.json"))) == 12


def test_the_time_is_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert study.main([*TOY, "--minutes", "1e-9"]) == 1
    output = capsys.readouterr()
    assert "80 jobs were not begun within 1e-09 minutes." in output.out
    assert "no job has ended; give more `--minutes`" in output.err


@pytest.mark.slow
def test_another_algorithm_as_the_base(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    base = (*TOY, "algorithm=coral", "--methods", "voting", "--seeds", "1")
    assert study.main(base) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "points over 'coral', 1 seed)" in output
    assert "- 'coral (" not in output  # a remedy is no method
