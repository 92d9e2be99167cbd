import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from gga_lightning.experiments.selection import ValidationHistory, ValidationPass, select
from tests.helpers import Classifier, combined_loader, trainer

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


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_history_survives_a_resume(tmp_path):
    class Validates(Classifier):
        def validation_step(self, batch, batch_idx):
            for part in ("val", "oracle", "test"):
                self.log(f"{part}/acc", 0.1 * self.current_epoch, batch_size=1)

    def fit(epochs, **settings):
        history, saved = ValidationHistory(), ModelCheckpoint(tmp_path, save_last=True)
        ran = trainer(history, saved, max_steps=-1, max_epochs=epochs, enable_checkpointing=True)
        ran.fit(Validates(), combined_loader(), combined_loader(), **settings)
        return history.evaluations

    assert [evaluation.step for evaluation in fit(2)] == [6, 12]
    resumed = fit(3, ckpt_path=tmp_path / "last.ckpt")
    assert [evaluation.step for evaluation in resumed] == [6, 12, 18]
    assert [evaluation.val_acc for evaluation in resumed] == pytest.approx([0.0, 0.1, 0.2])
