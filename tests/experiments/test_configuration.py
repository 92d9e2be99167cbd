import pytest
from hydra.errors import InstantiationException, MissingConfigException

from gga_lightning.experiments.configuration import explain


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hydra/launcher/joblib", "`hydra/launcher/joblib` needs a package: pip install 'gga-l"),
        ("hydra/launcher/submitit_slurm", "[submitit]'"),
        ("hydra/sweeper/optuna", "[optuna]'"),
        ("hydra/launcher/basi", "no option `hydra/launcher=basi`. Did you mean `basic`? There are"),
        (
            "experiment/paper/pacs_gg",
            "Did you mean `paper/pacs_gga`? There are: basic, erm_plus_plus, paper/",
        ),
        ("algorithm/coral_", "there is no option `algorithm=coral_`. Did you mean `coral`?"),
    ],
)
def test_options_that_are_not_there(path, message):
    assert message in explain(MissingConfigException("not found", path, ["basic"]))


def test_a_logger_without_its_package():
    error = InstantiationException("Error in call to target\nfull_key: logger.wandb")
    error.__cause__ = ModuleNotFoundError("Requirement 'wandb>=0.12.10' not met.")
    said = "`logger=wandb` needs a package: pip install 'gga-lightning[wandb]'"
    assert explain(error) == said


def test_errors_without_text():
    assert explain(KeyError()) == "KeyError"
    assert explain(ValueError("two\nlines")) == "two lines"
