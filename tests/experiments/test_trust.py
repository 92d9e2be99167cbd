import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from gga_lightning.experiments import train
from gga_lightning.experiments.trust import require_trusted
from tests.helpers import mostly_slow

CONFIGURATION = Path(train.config_directory())
OURS = [
    f"{group}={path.stem}"
    for group in ("data", "backbone", "algorithm")
    for path in sorted((CONFIGURATION / group).glob("*.yaml"))
]
PAYLOADS = [
    "torch.load",
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "functools.partial",
    "hydra.utils.call",
    "importlib.import_module",
    "evil",
    # what trusted modules import, or define without it being a class
    "gga_lightning.experiments.train.os.system",
    "gga_lightning.experiments.jobs.os.replace",
    "gga_lightning.experiments.train.subprocess.run",
    "gga_lightning.experiments.evaluate.evaluate",
    "gga_lightning.data.cache.DecodedCache.build",
    "gga_lightning.data.cache.shutil.rmtree",
    "torch.optim.adam.torch.load",
    # names that begin like a trusted one
    "gga_lightning_evil.Payload",
    "torch.optimal.Payload",
    "torch.optim",
    # nothing at all
    "gga_lightning.nothing",
    "",
    None,
    ["torch.optim.Adam"],
]


def composed(*overrides):
    with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
        return compose("train", list(overrides))


def has_root(override):
    group, _, name = override.partition("=")
    return "root: ???" in (CONFIGURATION / group / f"{name}.yaml").read_text()


@pytest.mark.parametrize("override", mostly_slow(OURS, "data=folders", "algorithm=fish"))
def test_every_configuration_of_ours_is_trusted(override):
    if "jacobian" in override:
        pytest.importorskip("torchjd")
    config = composed(override, *(["data.root=DATA"] if has_root(override) else []))
    for group in ("data", "backbone", "algorithm"):
        require_trusted(config[group])


@pytest.mark.parametrize("payload", PAYLOADS, ids=repr)
@pytest.mark.parametrize("place", ["at the top", "nested", "in a list", "interpolated"])
def test_no_other_target_is(payload, place):
    content = {
        "at the top": {"_target_": payload},
        "nested": {"_target_": "torch.optim.Adam", "lr": {"x": {"_target_": payload}}},
        "in a list": {"_target_": "torch.optim.Adam", "_args_": [1, {"_target_": payload}]},
        "interpolated": {"found": payload, "inner": {"_target_": "${found}"}},
    }[place]
    with pytest.raises(ValueError, match="--trust "):
        require_trusted(OmegaConf.create(content))


@pytest.fixture
def a_package(tmp_path, monkeypatch):
    """A user's own package, which leaves a file when it is imported."""
    folder = tmp_path / "my_lab"
    folder.mkdir()
    mark = folder / "imported"
    (folder / "__init__.py").write_text("")
    (folder / "models.py").write_text(
        f"import os\nopen({str(mark)!r}, 'w').close()\nclass Mine: pass\ndef made(): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield mark
    for name in ("my_lab", "my_lab.models"):
        sys.modules.pop(name, None)


def test_what_is_not_trusted_is_not_imported(a_package):
    config = OmegaConf.create({"_target_": "my_lab.models.Mine"})
    with pytest.raises(ValueError, match=r"'my_lab.models.Mine' \(_target_\).*--trust my_lab"):
        require_trusted(config)
    assert not a_package.exists()


@pytest.mark.parametrize("trust", ["my_lab", "my_lab.models"])
def test_a_user_s_own_package_can_be_trusted(a_package, trust):
    require_trusted(OmegaConf.create({"_target_": "my_lab.models.Mine"}), [trust])


def test_its_functions_too(a_package):
    require_trusted(OmegaConf.create({"_target_": "my_lab.models.made"}), ["my_lab"])


@pytest.mark.parametrize("target", ["my_lab.models.os.system", "my_lab.models.os", "my_lab.x.y"])
def test_of_a_trusted_package_only_what_it_defines(a_package, target):
    with pytest.raises(ValueError, match="is not a class of"):
        require_trusted(OmegaConf.create({"_target_": target}), ["my_lab"])


def test_what_is_left_open_is_no_obstacle():
    require_trusted(OmegaConf.create({"_target_": "torch.optim.Adam", "lr": "???"}))
