import json

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gga_lightning.experiments.checkpoints import LastCheckpoint, SelectedCheckpoint
from gga_lightning.experiments.selection import ValidationHistory, ValidationPass, select
from gga_lightning.report.results import parse_result
from tests.helpers import Classifier, combined_loader, mostly_slow, trainer
from tests.report.folders import Spec, write_run

HISTORY = [
    ValidationPass(50, 0.5, 0.40, 0.41),
    ValidationPass(100, 0.8, 0.60, 0.55),
    ValidationPass(150, 0.8, 0.70, 0.65),
    ValidationPass(200, 0.7, 0.70, 0.60),
]


def test_rules_and_ties_to_the_earliest():
    steps = {rule: found.step for rule, found in select(HISTORY).items()}
    assert steps == {"training_domain_validation": 100, "oracle": 150, "last": 200}


def test_nothing_to_select():
    with pytest.raises(ValueError, match="at least one evaluation, got none"):
        select([])


PARTS = ("val/a", "val/b", "val/c", "oracle/d", "test/d")


class Scripted(Classifier):
    """Logs one number after another as the accuracies of its validation passes."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def validation_step(self, batch, batch_idx):
        values = dict(zip(PARTS, self.rows[self.current_epoch], strict=True))
        values |= {"val/acc": sum(list(values.values())[:3]) / 3}
        for name, value in values.items():
            name = name if name.endswith("/acc") else f"{name}/acc"
            self.log(name, torch.tensor(value), batch_size=1)


def fit(folder, rows, epochs, **settings):
    """Trains for so many epochs of six steps, and gives the history."""
    history, saved = ValidationHistory(), LastCheckpoint(str(folder / "last.ckpt"))
    best = [SelectedCheckpoint(folder, rule) for rule in ("oracle", "training_domain_validation")]
    ran = trainer(history, *best, saved, max_steps=-1, max_epochs=epochs, enable_checkpointing=True)
    ran.fit(Scripted(rows), combined_loader(), combined_loader(), **settings)
    return history.evaluations


def test_history_survives_a_resume(tmp_path):
    rows = [(0.1 * epoch,) * 5 for epoch in range(3)]
    assert [evaluation.step for evaluation in fit(tmp_path, rows, 2)] == [6, 12]
    resumed = fit(tmp_path, rows, 3, ckpt_path=tmp_path / "last.ckpt")
    assert [evaluation.step for evaluation in resumed] == [6, 12, 18]
    assert [evaluation.val_acc for evaluation in resumed] == pytest.approx([0.0, 0.1, 0.2])


def mean_of(*values):
    return (*values, values[0], values[0])


THIRD, TWO = 1 / 3, 2 / 3
HISTORIES = {
    "equal": [mean_of(0.5, 0.5, 0.5)] * 4,
    "equal up to rounding": [
        mean_of(0.1, 0.7, 0.4),
        mean_of(0.4, 0.1, 0.7),
        mean_of(0.7, 0.4, 0.1),
        mean_of(0.4, 0.4, 0.4),
    ],
    "thirds": [mean_of(TWO, TWO, 0.0), mean_of(THIRD, THIRD, TWO), mean_of(0.0, TWO, TWO)],
    "last place of single precision": [mean_of(*[0.5 + k * 6e-8] * 3) for k in range(5)],
    "small steps that add up": [mean_of(*[0.5 + k * 4e-7] * 3) for k in range(8)],
    "rising": [mean_of(*[0.1 * k] * 3) for k in range(4)],
    "falling, then a tie with the best": [mean_of(*[v] * 3) for v in (0.3, 0.9, 0.2, 0.9, 0.1)],
    "of 640 samples": [mean_of(k / 640, (9 - k) / 640, 3 / 640) for k in range(1, 8)],
}


def kept(folder):
    """Rule to the steps of its files, by name and by content."""
    found = {}
    for path in folder.glob("*-*.ckpt"):
        rule, _, step = path.stem.rpartition("-")
        assert torch.load(path, weights_only=True)["global_step"] == int(step)
        found.setdefault(rule, []).append(int(step))
    return found


def reported(folder, evaluations):
    """The steps that gga-report names."""
    spec = write_run(folder, Spec(("d",), domains=("a", "b", "c", "d")))
    result = json.loads((spec.folder / "result.json").read_text())
    names = ("step", "val_acc", "oracle_acc", "test_acc")
    result["evaluations"] = [{"step": e.step, "accuracies": e.accuracies} for e in evaluations]
    result["selections"] = {
        rule: {name: getattr(chosen, name) for name in names}
        for rule, chosen in select(evaluations).items()
    }
    [run] = [parse_result(spec.folder, json.loads(json.dumps(result)))]
    return {rule: found.step for rule, found in run.selections.items()}


@pytest.mark.parametrize("rows", HISTORIES.values(), ids=HISTORIES)
def test_checkpoint_result_and_report_name_the_same_step(tmp_path, rows):
    evaluations = fit(tmp_path, rows, len(rows))
    chosen = {rule: found.step for rule, found in select(evaluations).items()}
    assert reported(tmp_path / "report", evaluations) == chosen
    assert chosen.pop("last") == 6 * len(rows)
    assert kept(tmp_path) == {rule: [step] for rule, step in chosen.items()}


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("equal", 6),
        ("equal up to rounding", 6),
        ("thirds", 6),
        ("last place of single precision", 6),
        ("small steps that add up", 42),
        ("falling, then a tie with the best", 12),
        ("of 640 samples", 6),
    ],
)
def test_the_earliest_wins_a_tie(tmp_path, name, step):
    rows = HISTORIES[name]
    assert select(fit(tmp_path, rows, len(rows)))["training_domain_validation"].step == step


@pytest.mark.parametrize("name", ["equal up to rounding", "small steps that add up", "rising"])
@pytest.mark.parametrize("epochs", mostly_slow([1, 2, 3], 2))
def test_a_resumed_training_keeps_the_same_checkpoints(tmp_path, name, epochs):
    rows = HISTORIES[name]
    fit(tmp_path / "whole", rows, len(rows))
    fit(tmp_path / "resumed", rows, epochs)
    last = tmp_path / "resumed" / "last.ckpt"
    fit(tmp_path / "resumed", rows, len(rows), ckpt_path=last)
    assert kept(tmp_path / "resumed") == kept(tmp_path / "whole")


@pytest.mark.parametrize("after", [0.9, 0.5, 0.1])
def test_what_a_resumed_training_needs_is_kept(tmp_path, after):
    """Killed after a better checkpoint, before ``last.ckpt``; then that step is no better."""

    class Killed(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise SystemExit

    history = ValidationHistory()
    best = SelectedCheckpoint(tmp_path, "oracle")
    parts = [history, Killed(), best, LastCheckpoint(str(tmp_path / "last.ckpt"))]
    ran = trainer(*parts, max_steps=-1, max_epochs=3, enable_checkpointing=True)
    better = Scripted([(0.5,) * 5, (0.8,) * 5, (0.1,) * 5])
    with pytest.raises(SystemExit):
        ran.fit(better, combined_loader(), combined_loader())
    assert sorted(kept(tmp_path)["oracle"]) == [6, 12]
    (tmp_path / "oracle-12.ckpt").unlink()  # as a job does that starts again
    rows = [(0.5,) * 5, (after,) * 5, (0.1,) * 5]
    evaluations = fit(tmp_path, rows, 3, ckpt_path=tmp_path / "last.ckpt")
    assert kept(tmp_path)["oracle"] == [select(evaluations)["oracle"].step]


def test_checkpoints_need_a_history_and_a_rule(tmp_path):
    with pytest.raises(ValueError, match="`rule` must be one of training_.*, oracle, got 'last'"):
        SelectedCheckpoint(tmp_path, "last")
    ran = trainer(SelectedCheckpoint(tmp_path, "oracle"), enable_checkpointing=True)
    with pytest.raises(MisconfigurationException, match="`ValidationHistory`"):
        ran.fit(Scripted([(0.5,) * 5]), combined_loader(), combined_loader())


def test_sanity_checks_and_later_validations_save_nothing(tmp_path):
    history, best = ValidationHistory(), SelectedCheckpoint(tmp_path, "oracle")
    ran = trainer(
        history, best, max_steps=-1, max_epochs=1, enable_checkpointing=True, num_sanity_val_steps=1
    )
    module = Scripted([(0.5,) * 5, (0.9,) * 5])
    ran.fit(module, combined_loader(), combined_loader())
    ran.validate(module, combined_loader(), verbose=False)
    assert kept(tmp_path) == {"oracle": [6]}
