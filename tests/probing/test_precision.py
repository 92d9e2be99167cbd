import subprocess
import sys

import pytest
import torch

from gga_lightning.probing.precision import full_precision

CPU = torch.device("cpu")


def product():
    return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


@torch.autocast("cpu", dtype=torch.bfloat16)
def decorated():
    return product()


class TestAutocast:
    def test_has_no_effect_whoever_opens_it(self):
        kept = torch.autocast("cpu", dtype=torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(CPU):
            assert product() is torch.float32
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert product() is torch.float32
            with kept:
                assert product() is torch.float32
            assert decorated() is torch.float32
            torch.set_autocast_enabled("cpu", True)
            assert product() is torch.float32

    def test_has_its_effect_again_afterwards(self):
        with pytest.raises(ZeroDivisionError), full_precision(CPU):
            _ = 1 / 0
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert product() is torch.bfloat16
        assert product() is torch.float32


SCRIPT = """
import os
import warnings
import torch
from gga_lightning.probing.precision import full_precision

b = torch.backends
SETTINGS = {
    "default": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "matmul": lambda: setattr(b.cuda.matmul, "allow_tf32", True),
    "cudnn": lambda: setattr(b.cudnn, "allow_tf32", False),
    "new convolutions": lambda: setattr(b.cudnn.conv, "fp32_precision", "ieee"),
    "new matmul": lambda: setattr(b.cuda.matmul, "fp32_precision", "tf32"),
    "new, all": lambda: setattr(b, "fp32_precision", "tf32"),
    "mkldnn": lambda: setattr(b.mkldnn.matmul, "fp32_precision", "bf16"),
}
operations = [b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn, b.mkldnn.matmul, b.mkldnn.conv]


def asked(question):
    try:
        return question()
    except RuntimeError:
        return "refused"


def answers():
    return [
        asked(torch.get_float32_matmul_precision),
        asked(lambda: b.cuda.matmul.allow_tf32),
        asked(lambda: b.cudnn.allow_tf32),
        *(operation.fp32_precision for operation in operations),
    ]


if os.fork() == 0:  # PyTorch 2.9.0 warns once, whoever reads the earlier settings
    warnings.simplefilter("error")
    with full_precision(torch.device("cpu")):
        pass
    os._exit(0)
assert os.wait()[1] == 0, "a warning"

for name, change in SETTINGS.items():
    if os.fork() == 0:  # PyTorch does not forget that its old and new settings were mixed
        change()
        before = answers()
        with full_precision(torch.device("cpu")):
            inside = answers()
        assert before == answers(), (name, before, answers())
        assert inside[:3] == ["highest", False, False], (name, inside)
        assert not {"tf32", "bf16"} & set(inside[3:]), (name, inside)
        os._exit(0)
    assert os.wait()[1] == 0, name
"""


@pytest.mark.slow
def test_reduced_products_are_turned_off_and_back_and_can_be_asked_for():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
