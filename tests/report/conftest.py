import csv
import io

import pytest

from gga_lightning.report.cli import main


@pytest.fixture
def report(capsys):
    """Runs the command: exit status, standard output, standard error."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def lines(report):
    """Runs the command for CSV: (data, selection, row, domain) to the numbers."""

    def run(*arguments):
        status, output, _ = report(*arguments, "--format", "csv")
        assert status == 0
        return {
            (line["data"], line["selection"], line["row"], line["domain"]): line
            for line in csv.DictReader(io.StringIO(output))
        }

    return run
