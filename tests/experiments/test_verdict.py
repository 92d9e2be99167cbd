"""What a study says in words, on differences that are made up."""

import pytest

from gga_lightning.experiments.verdict import assess
from gga_lightning.report.methods import Method
from gga_lightning.report.rules import Trial
from gga_lightning.report.statistics import compute_comparison

SPREAD = (-0.004, 0.002, 0.0, 0.003, -0.001)


@pytest.fixture
def verdict(monkeypatch):
    """The lines for rows given by the mean of their accuracies, on five seeds or fewer."""

    def verdict(seeds=5, **means):
        found = {
            label: {
                (Trial(seed, seed), "a"): mean + (label != "erm") * SPREAD[(seed + at) % 5]
                for seed in range(seeds)
            }
            for at, (label, mean) in enumerate(means.items())
        }
        kinds = {"erm": "baseline", "control": "control", "remedy": "plain"}
        methods = [
            Method(
                "erm",
                "none" if label.startswith(("erm", "remedy")) else label,
                label,
                (),
                kinds.get(label.partition("_")[0], "method"),
                base=None if label == "erm" else "erm",
            )
            for label in found
        ]
        monkeypatch.setattr(
            "gga_lightning.report.statistics.apply_rule", lambda rule, runs: next(accuracies)
        )
        monkeypatch.setattr("gga_lightning.report.statistics._seconds", lambda method: 1.0)
        accuracies = iter(found.values())
        return assess(compute_comparison("shapes", "last", methods, ["a"]))

    return verdict


def test_helps_by_the_domains(verdict):
    line, summary = verdict(erm=0.5, new=0.6, control=0.5)
    assert line.startswith("- 'new': it helps (+10.0 points [")
    assert "over 'erm', 5 seeds). It beats its control 'control' (+10.0 points [" in line
    assert summary == "Use 'new'."


def test_helps_as_much_without_the_domains(verdict):
    line, summary = verdict(erm=0.5, new=0.6, control=0.6)
    assert "it helps (+10.0" in line
    assert "Its control 'control' does as much" in line
    assert "the agreement of these domains is not what helps" in line
    assert summary.startswith("Nothing that was tried is shown to be better")


def test_a_control_that_is_worse_than_plain_training_is_none_of_the_remedies(verdict):
    lines = verdict(erm=0.5, new=0.6, control=0.4, remedy=0.55)
    assert lines[-1] == "Use 'new'."
    assert "So does" not in lines[0]


def test_a_plain_remedy_is_as_good(verdict):
    line, summary = verdict(erm=0.5, new=0.6, control=0.5, remedy=0.65)
    assert "So does 'remedy' (+15.0 points [" in line
    assert summary == "Use 'remedy': no method is shown to do more than this plain remedy."


def test_every_control_counts(verdict):
    line, _, summary = verdict(erm=0.5, new=0.6, control=0.5, control_2=0.61, other=0.5)
    assert "It beats its control 'control' (" in line
    assert "Its control 'control_2' does as much" in line
    assert summary.startswith("Nothing")


def test_harms_and_no_effect(verdict):
    harms, nothing, summary = verdict(erm=0.5, bad=0.4, dull=0.5001)
    assert harms.startswith("- 'bad': it harms (-10.0 points [")
    assert nothing.startswith("- 'dull': no effect is shown (+0.0 points [")
    assert summary == (
        "Nothing that was tried is shown to be better than plain training. "
        "Differences below about 0.3 points cannot be seen."
    )


@pytest.mark.parametrize(("seeds", "count"), [(1, "1 seed)"), (4, "4 seeds)")])
def test_too_few_seeds(verdict, seeds, count):
    line, summary = verdict(seeds, erm=0.5, new=0.9, control=0.5)
    assert line.startswith("- 'new': no verdict yet (+40")
    assert f"{count}; it takes 5 seeds." in line
    assert summary == "A verdict takes 5 seeds. The same command continues the study."
