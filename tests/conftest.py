"""What all tests share. Helpers to import are in tests/helpers.py."""

import functools
import importlib.metadata
import os
import pickle

import pytest
import torch
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType

# Every new Trainer looks for entry points in the metadata of all installed packages, which takes
# 13 ms. Caching them saves about a tenth of the time of tests that train.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)

# Hydra parses about 25 YAML files each time that it composes a configuration, which gga-train does
# twice. Parsing each file once, and unpickling the result, saves about a third of that.
_parse, _parsed = ConfigRepository.load_config, {}


def _load_config(repository, config_path):
    source = repository._find_object_source(config_path, ObjectType.CONFIG)
    if source is None or source.scheme() not in ("file", "pkg"):
        return _parse(repository, config_path)
    file = os.path.join(source.path, source._normalize_file_name(config_path))
    changed = os.stat(file).st_mtime_ns if source.scheme() == "file" else 0
    key = file, config_path, changed
    if key not in _parsed:
        _parsed[key] = pickle.dumps(_parse(repository, config_path))
    return pickle.loads(_parsed[key])


ConfigRepository.load_config = _load_config


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no NVIDIA GPU"))


@pytest.fixture(autouse=True)
def _fresh_randomness():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_environment():
    before = _variables()
    yield
    after = _variables()
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    assert not changed, f"the test changed these variables of the environment: {changed}"


def _variables():
    # pytest's own, those that Lightning sets when it is imported and by seed_everything, and those
    # of torch.compile
    passing = ("PYTEST_", "PYTORCH_NVML_", "PL_", "TORCHINDUCTOR_", "TRITON_")
    return {name: value for name, value in os.environ.items() if not name.startswith(passing)}


@pytest.fixture(autouse=True)
def _nothing_left_behind(_same_environment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
