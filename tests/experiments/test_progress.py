import re

import pytest
from rich.cells import cell_len

from gga_lightning import GradientGuidedAnnealing
from gga_lightning.experiments.progress import ProgressBar
from tests.experiments.test_terminal import terminal
from tests.helpers import Classifier, combined_loader, trainer

__all__ = ["terminal"]  # a fixture


class Validated(Classifier):
    """Has a validation, of batches of a single domain too."""

    def validation_step(self, batch, batch_idx):
        pass


class Chatty(Validated):
    """Shows more metrics than fit on a line."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log_dict({f"metric/{n}": loss.detach() for n in range(9)}, prog_bar=True)
        return loss


def drawn(screen):
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()))


def fit(*callbacks, module, **settings):
    bar = ProgressBar()
    fit = trainer(bar, *callbacks, enable_progress_bar=True, **settings)
    fit.fit(module, combined_loader(), combined_loader())
    return bar


@pytest.mark.parametrize("module", [Validated, Chatty])
@pytest.mark.parametrize("settings", [{"max_steps": 12}, {"max_steps": -1, "max_epochs": 2}])
def test_its_lines_fit(terminal, module, settings):
    screen = terminal(80)
    gga = GradientGuidedAnnealing(2, 8, num_candidates=10)
    bar = fit(gga, module=module(), **settings)
    lines = drawn(screen)
    assert max(map(cell_len, lines)) <= 80
    for words in ("epoch 1", "validation", *(["metric/0 "] if module is Chatty else [])):
        assert any(words in line for line in lines), words
    assert not any("-2" in line for line in lines)
    assert bar.progress is None
    assert lines[-1].strip() == ""


def test_nothing_is_drawn_where_it_is_no_terminal(capsys):
    fit(module=Validated(), max_steps=6)
    assert capsys.readouterr().out == ""


def test_an_error_removes_it(terminal):
    class Broken(Classifier):
        def on_train_batch_end(self, *args):
            raise OSError("broken")

    terminal(80)
    bar = ProgressBar()
    with pytest.raises(OSError, match="broken"):
        trainer(bar, enable_progress_bar=True).fit(Broken(), combined_loader())
    assert bar.progress is None
