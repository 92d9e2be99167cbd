"""What all tests share. Helpers to import are in tests/helpers.py."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _fresh_randomness():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _nothing_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
