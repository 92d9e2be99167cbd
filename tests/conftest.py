"""What all tests share. Helpers to import are in tests/helpers.py."""

import functools
import importlib.metadata

import pytest
import torch

# Every new Trainer looks for entry points in the metadata of all installed packages, which takes
# 13 ms. Caching them saves about a tenth of the time of tests that train.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)


@pytest.fixture(autouse=True)
def _fresh_randomness():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _nothing_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
