import functools
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from gga_lightning.experiments.configuration import config_directory
from gga_lightning.experiments.identity import config_hash, data_path, folder_name, settings
from gga_lightning.experiments.sweeps import register
from tests.helpers import on_digits

register()


@functools.cache
def composed(*overrides):
    """The configuration, which no test may change."""
    with initialize_config_dir(config_directory(), version_base="1.3"):
        return compose("train", on_digits(overrides))


@pytest.mark.parametrize(
    "same",
    [
        ("logger=none", "callbacks=none"),
        ("callbacks.conflict.every_n_steps=7",),
        ("data.num_workers=3",),
        ("+trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"),
    ],
)
def test_does_not_depend_on_where_it_logs_and_what_it_shows(same):
    assert config_hash(composed(*same)) == config_hash(composed())


def test_does_not_depend_on_where_a_benchmark_lies():
    places = "data.root=/a", "data.root=/b"
    pacs, own = (
        [config_hash(composed(f"data={data}", place)) for place in places]
        for data in ("pacs", "folders")
    )
    assert pacs[0] == pacs[1]
    assert own[0] != own[1]
    cached = [
        config_hash(composed("data=pacs", f"data.dataset.cache={p}", *places[:1])) for p in "cd"
    ]
    assert cached[0] == cached[1] != pacs[0]


def test_own_data_are_those_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("a/pets", "b/pets"):
        Path(place).mkdir(parents=True)
    Path("link").symlink_to("a")
    same = ("a/pets", f"{tmp_path}/a/pets", "b/../a/pets", "./a/pets/", "link/pets")
    folders = [composed("data=folders", f"data.root={place}") for place in (*same, "b/pets")]
    *hashes, other = map(config_hash, folders)
    assert len(set(hashes)) == 1
    assert other != hashes[0]
    assert {data_path(config) for config in folders[:-1]} == {f"{tmp_path}/a/pets"}
    monkeypatch.chdir("a")
    assert config_hash(composed("data=folders", "data.root=pets")) == hashes[0]
    assert config_hash(composed("data=folders", "data.root=../b/pets")) == other


def test_own_tables_are_those_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ("a/pets.csv", "b/pets.csv", f"{tmp_path}/a/pets.csv")
    one, other, same = (composed("data=table", f"data.dataset.file={file}") for file in files)
    assert config_hash(one) == config_hash(same) != config_hash(other)
    assert data_path(other) == f"{tmp_path}/b/pets.csv"


@pytest.mark.parametrize("data", ["digits", "toy", "pacs", "rotated_mnist"])
def test_benchmarks_and_embedded_data_have_no_path(data):
    root = () if data in ("digits", "toy") else ("data.root=/a",)
    assert data_path(composed(f"data={data}", *root)) is None


@pytest.mark.parametrize("written", ["'45'", "[45]", "['45']"])
def test_does_not_depend_on_how_a_domain_is_written(written):
    same = composed("data.test_domain=45"), composed(f"data.test_domain={written}")
    assert config_hash(same[0]) == config_hash(same[1])


def test_depends_on_what_changes_the_numbers():
    different = (
        (),
        ("seed=1",),
        ("annealing=none",),
        ("data=toy",),
        ("data.test_domain=0",),
        ("callbacks=swad",),
        ("trainer.max_steps=900",),
        ("algorithm.optimizer.lr=0.1",),
        ("hparams=domainbed_small",),
        ("hparams=domainbed_small", "hparams_seed=1"),
    )
    assert len({config_hash(composed(*o)) for o in different}) == len(different)


def test_runs_of_versions_without_pseudo_domains_are_the_same_jobs():
    config = composed()
    earlier = OmegaConf.create(OmegaConf.to_container(config))
    del earlier.data["pseudo_domains"]
    none = composed("data.pseudo_domains=0")
    assert config_hash(earlier) == config_hash(config) == config_hash(none)
    assert config_hash(composed("data.pseudo_domains=3")) != config_hash(config)


def test_a_benchmark_may_name_its_folder_alone():
    config = composed("data=pacs", "data.root=/a")
    own = OmegaConf.create(OmegaConf.to_container(config))
    own.data.dataset.root = "/b"
    del own.data["root"]
    assert config_hash(own) == config_hash(config)


def test_depends_on_what_a_callback_is_set_to_elsewhere():
    def own(*overrides):
        return composed("callbacks=swad", *overrides)

    elsewhere = [own(f"+n={n}", "callbacks.swad.patience=${n}") for n in (1, 6)]
    written = [own(f"callbacks.swad.patience={n}") for n in (1, 6)]
    assert [config_hash(c) for c in elsewhere] == [config_hash(c) for c in written]
    assert config_hash(elsewhere[0]) != config_hash(elsewhere[1])
    assert settings(elsewhere[0])[0]["callbacks.swad.patience"] == 1


def test_a_callback_may_write_into_the_run_folder():
    path = "${hydra:runtime.output_dir}/mine"
    config = composed(f"+callbacks.mine={{_target_: Mine, paths: ['{path}'], size: [1, {{a: 2}}]}}")
    found, _ = settings(config)
    assert found["callbacks.mine.paths"] == [path]
    assert found["callbacks.mine.size"] == [1, {"a": 2}]


def test_another_seed_of_the_batches_is_a_setting():
    assert settings(composed("seed=3", "data.seed=4"))[0]["data.seed"] == 4
    assert "data.seed" not in settings(composed("seed=3", "data.seed=3"))[0]


def test_settings_are_flat_and_without_seeds():
    found, drawn = settings(composed("callbacks=swad", "seed=3"))
    assert drawn == {}
    assert found["annealing.proposal.radius"] == 1e-5
    assert found["backbone.widths"] == [32]
    assert found["callbacks.swad.patience"] == 3
    assert not [n for n in found if n.endswith(("seed", "test_domain"))]
    assert not [n for n in found if n.startswith(("callbacks.checkpoint", "callbacks.conflict"))]
    json.dumps(found)


def test_settings_set_what_is_drawn_apart():
    found, drawn = settings(composed("hparams=domainbed_small", "algorithm=coral"))
    names = {"algorithm.optimizer.lr", "data.batch_size", "algorithm.gamma"}
    assert set(drawn) == names
    assert not names & set(found)
    assert drawn["data.batch_size"] == 64
    kept = settings(composed("hparams=domainbed_small", "hparams_seed=4", "algorithm=coral"))
    assert kept[0] == found
    assert kept[1] != drawn


def test_folder_name():
    config = composed("data.test_domain='Real World/x'", "seed=4")
    name = folder_name(config, {"data": "pacs", "algorithm": "erm", "annealing": None})
    assert name == f"pacs-Real_World_x-erm-None-seed4-{config_hash(config)}"
    long = [composed(f"data.test_domain='{'é' * 200}{end}'") for end in "ab"]
    names = [folder_name(config, {"data": "pacs"}) for config in long]
    assert [len(name.encode()) for name in names] == [255, 255]
    assert [name[-16:] for name in names] == [config_hash(config) for config in long]
    two = composed("data.test_domain=[a,b]")
    assert folder_name(two, {}).startswith("None-a+b-")
