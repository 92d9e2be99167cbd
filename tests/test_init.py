import importlib.metadata
import subprocess
import sys

import pytest

import gga_lightning

WAITS_FOR_NOTHING = """
import sys
import gga_lightning.report.cli
slow = {"torch", "lightning", "hydra", "matplotlib.pyplot"} & set(sys.modules)
assert not slow, slow
"""


@pytest.mark.parametrize("name", gga_lightning.__all__)
def test_public_names_are_there(name):
    assert getattr(gga_lightning, name).__name__ == name


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="'gga_lightning' has no attribute 'Wolk'"):
        gga_lightning.Wolk  # noqa: B018
    assert {*gga_lightning.__all__, "__version__"} == set(dir(gga_lightning))


def test_version():
    assert gga_lightning.__version__ == importlib.metadata.version("gga-lightning")


def test_reports_need_not_wait_for_torch():
    subprocess.run([sys.executable, "-c", WAITS_FOR_NOTHING], check=True)
