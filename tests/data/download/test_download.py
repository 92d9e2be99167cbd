import errno
import fcntl
import hashlib
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from rich.console import Console

from gga_lightning.data.benchmarks.benchmark import Archive, Benchmark, DatasetError
from gga_lightning.data.download import transfer as transfer_module
from gga_lightning.data.download.download import download
from tests.data.loopback import PAGE, Route, Server, make_tar, make_zip, plain, troubled

DOMAINS = {"art": 2, "photo": 2}
FILES = {f"pack/{domain}/cat/{n}.jpg": os.urandom(40_000) for domain in DOMAINS for n in range(2)}
CONTENT = make_zip({**FILES, "__MACOSX/pack/._x": b"stray"})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer_module, "_PAUSE", 0.0)
    with Server() as running:
        yield running


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def benchmark(*archives, **facts):
    facts = {
        "key": "pair",
        "title": "Pair",
        "folder": "Pair",
        "domains": DOMAINS,
        "num_classes": 1,
        "licence": "none",
        "homepage": "http://home.invalid",
        "download_size": len(CONTENT),
        "archives": archives,
        **facts,
    }
    return Benchmark(**facts)


def get(facts, root):
    """Downloads, and returns what it said."""
    output = io.StringIO()
    assert download(facts, root, Console(file=output)) == root / "Pair"
    return output.getvalue()


def assert_whole(root):
    found = {
        f"pack/{path.relative_to(root / 'Pair').as_posix()}": path.read_bytes()
        for path in (root / "Pair").rglob("*.jpg")
    }
    assert found == FILES
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["Pair"]


def test_through_all_kinds_of_trouble(server, root):
    said = get(benchmark(troubled(server, "pair.zip", CONTENT)), root)
    assert_whole(root)
    troubles = {"answers 404": 1, "a web page": 2, "a file with MD5": 1, "breaks off": 1}
    assert {trouble: said.count(trouble) for trouble in troubles} == troubles
    assert len(server.asked("pair.zip.page")) == len(server.asked("pair.zip.disguised")) == 1
    assert server.asked("pair.zip.good")[1].startswith("bytes=")


def test_what_is_there_is_not_got_again(server, root):
    facts = benchmark(plain(server, "pair.zip", CONTENT))
    get(facts, root)
    (root / "Pair.unfinished").mkdir()
    assert f"Pair is already in {root / 'Pair'}" in get(facts, root)
    assert len(server.asked("pair.zip")) == 1
    assert_whole(root)


def test_an_empty_folder_is_not_there(server, root):
    (root / "Pair").mkdir(parents=True)
    get(benchmark(plain(server, "pair.zip", CONTENT)), root)
    assert_whole(root)


def test_an_incomplete_folder_is_left_alone(server, root):
    (root / "Pair/art/cat").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"exists, but lacks photo\. Move it away or delete it"):
        get(benchmark(plain(server, "pair.zip", CONTENT)), root)
    assert not server.asked("pair.zip")
    assert (root / "Pair/art/cat").is_dir()


def test_every_failure_and_the_way_by_hand_are_told(server, root):
    sources = (server.url("gone"), server.add("page", Route(PAGE, kind="text/html")))
    facts = benchmark(Archive("pair.zip", sources, md5="abc"))
    with pytest.raises(DatasetError) as caught:
        get(facts, root)
    first, gone, page, by_hand = str(caught.value).splitlines()
    assert first == "No source serves pair.zip at present:"
    assert gone.strip() == f"{sources[0]}: answers 404 Not Found"
    assert page.strip().startswith(f"{sources[1]}: serves a web page")
    assert "get pair.zip (MD5 abc) with a browser" in by_hand
    assert f"put it at {root / 'pair.zip'}" in by_hand
    assert f"`gga-data download pair --root {root}` again" in by_hand
    assert not (root / "Pair").exists()

    (root / "pair.zip").write_bytes(CONTENT)
    said = get(facts, root)
    assert f"Using {root / 'pair.zip'}." in said
    assert "not the known abc: it may be another release" in said
    assert_whole(root)
    assert (root / "pair.zip").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("facts", "trouble"),
    [({"size": 5}, "bytes, expected 5"), ({"md5": "abc"}, "expected abc"), ({}, "no .zip file")],
)
def test_a_wrong_file_is_deleted(server, root, facts, trouble):
    content = CONTENT if facts else b"PK but no more"
    with pytest.raises(DatasetError, match=trouble):
        get(benchmark(plain(server, "pair.zip", content, **facts)), root)
    assert [
        path.name for path in (root / "Pair.unfinished").iterdir() if "version" not in path.name
    ] == []


def test_what_unpacks_to_something_else(server, root):
    facts = benchmark(plain(server, "pair.zip", make_zip({"other/art/cat/1.jpg": b"x"})))
    with pytest.raises(DatasetError, match=r"No folder with art, photo among .*\['other'\]"):
        get(facts, root)
    assert not (root / "Pair").exists()


class TestBadArchives:
    def test_unsafe(self, server, root, tmp_path):
        facts = benchmark(plain(server, "pair.zip", make_zip({**FILES, "../../../evil": b"x"})))
        with pytest.raises(DatasetError, match="is not safe to unpack"):
            get(facts, root)
        assert list(root.rglob("*.jpg")) == []
        assert not list(root.rglob("pair.zip"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]

    def test_damaged_ones_are_got_anew(self, server, root):
        content = make_tar(FILES)
        route = Route(content[: len(content) // 2])
        facts = benchmark(Archive("pair.tar.gz", (server.add("x", route),)))
        with pytest.raises(DatasetError, match="is damaged"):
            get(facts, root)
        assert not (root / "Pair").exists()
        route.content = content
        get(facts, root)
        assert_whole(root)

    def test_damaged_ones_put_there_by_hand_are_kept(self, root):
        root.mkdir()
        (root / "pair.zip").write_bytes(CONTENT[:-300])
        with pytest.raises(DatasetError, match="if you put it there yourself, replace it"):
            get(benchmark(Archive("pair.zip", ())), root)
        assert (root / "pair.zip").exists()


class TestFullDisk:
    def test_is_seen_before(self, server, root, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1e6}))
        facts = benchmark(plain(server, "pair.zip", CONTENT), download_size=100_000_000)
        with pytest.raises(DatasetError, match=r"needs about 200 MB .* has 1 MB left\. Make room"):
            get(facts, root)
        assert not server.asked("pair.zip")

    def test_while_transferring(self, server, root):
        archive = plain(server, "pair.zip", CONTENT)
        mark = hashlib.sha256(archive.sources[0].encode()).hexdigest()[:8]
        part = root / "Pair.unfinished" / f"pair.zip.{mark}"
        part.parent.mkdir(parents=True)
        part.symlink_to("/dev/full")
        with pytest.raises(DatasetError, match=r"disk of .* is full.*resumes from what is in"):
            get(benchmark(archive), root)
        assert not (root / "Pair").exists()
        part.unlink()
        get(benchmark(archive), root)
        assert_whole(root)

    def test_while_unpacking(self, server, root, monkeypatch):
        copies, copy = [], shutil.copyfileobj

        def fill(source, file, length):
            copies.append(file)
            if len(copies) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            copy(source, file, length)

        facts = benchmark(plain(server, "pair.zip", CONTENT))
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "copyfileobj", fill)
            with pytest.raises(DatasetError, match="is full"):
                get(facts, root)
        assert not (root / "Pair").exists()
        assert not list(root.rglob("*.jpg"))
        get(facts, root)
        assert_whole(root)
        assert len(server.asked("pair.zip")) == 1  # the archive itself was kept

    def test_other_troubles_of_the_disk_are_not_called_full(self, server, root, monkeypatch):
        def refuse(*_):
            raise PermissionError(errno.EACCES, "no")

        monkeypatch.setattr(shutil, "copyfileobj", refuse)
        with pytest.raises(PermissionError):
            get(benchmark(plain(server, "pair.zip", CONTENT)), root)
        assert not (root / "Pair").exists()


SCRIPT = """
import os, shutil, signal, sys
from gga_lightning.data.benchmarks.benchmark import Archive, Benchmark
from gga_lightning.data.download.download import download

copies, copy = [], shutil.copyfileobj

def kill(*arguments):
    copies.append(arguments)
    if len(copies) == 3 and sys.argv[3] == "unpacking":
        os.kill(os.getpid(), signal.SIGKILL)
    copy(*arguments)

shutil.copyfileobj = kill
facts = Benchmark(
    key="pair", title="Pair", folder="Pair", domains={"art": 2, "photo": 2}, num_classes=1,
    licence="", homepage="", download_size=1000, archives=(Archive("pair.zip", (sys.argv[2],)),),
)
download(facts, sys.argv[1])
"""


@pytest.mark.slow  # tests above interrupt transferring and unpacking in this process
@pytest.mark.parametrize("when", ["transferring", "unpacking"])
def test_killed(server, root, when):
    stalls = when == "transferring"
    route = Route(CONTENT, pieces=100_000 if stalls else None, stalls=stalls)
    facts = benchmark(Archive("pair.zip", (server.add("pair.zip", route),)))
    command = [sys.executable, "-c", SCRIPT, root, facts.archives[0].sources[0], when]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 90
        while stalls and time.monotonic() < deadline:
            sizes = [path.stat().st_size for path in root.glob("Pair.unfinished/pair.zip.*")]
            if max(sizes, default=0) > 60_000:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.02)
        assert process.wait(90) == -signal.SIGKILL
    assert not (root / "Pair").exists()
    assert list(root.rglob("*.jpg")) == [] if stalls else len(list(root.rglob("*.jpg"))) == 3

    route.pieces, route.stalls, route.asked[:] = None, False, []
    server.released.set()
    stray = root / "Pair.unfinished/unpacked/pack/art/cat/stray.jpg"
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"of the killed run")
    get(facts, root)
    assert_whole(root)
    if stalls:
        assert int(route.asked[0].removeprefix("bytes=").removesuffix("-")) > 60_000
    else:
        assert route.asked == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
class TestTwoAtOnce:
    fork = multiprocessing.get_context("fork")

    def start(self, server, root, **facts):
        """Starts a download that continues only when the server is released."""
        route = Route(CONTENT, pieces=100_000, stalls=True)
        first = benchmark(Archive("pair.zip", (server.add("pair.zip", route),)), **facts)
        process = self.fork.Process(target=download, args=(first, root))
        process.start()
        deadline = time.monotonic() + 60
        while not list(root.glob("Pair.unfinished/pair.zip.*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return first, process, route

    @pytest.mark.parametrize("title", ["Pair", "Another of the same folder"])
    def test_the_second_waits_and_finds_it_done(self, server, root, title):
        first, process, route = self.start(server, root)
        console = Console(file=io.StringIO())
        said, write = [], console.file.write

        def release(text):
            if "Waiting" in text:
                route.pieces = None
                server.released.set()
            said.append(text)
            return write(text)

        console.file.write = release
        download(replace(first, key="other", title=title), root, console)
        process.join(60)
        assert process.exitcode == 0
        assert "".join(said).splitlines() == [
            f"Waiting for another process that downloads {root / 'Pair'}.",
            f"{title} is already in {root / 'Pair'}.",
        ]
        assert_whole(root)
        assert [path.name for path in root.iterdir()] == ["Pair"]
        assert sum(asked is None for asked in route.asked) == 1

    def test_a_killed_one_is_not_waited_for(self, server, root):
        first, process, route = self.start(server, root)
        process.kill()
        process.join()
        assert (root / "Pair.lock").exists()
        route.pieces, route.stalls = None, False
        assert "Waiting" not in get(first, root)
        assert [path.name for path in root.iterdir()] == ["Pair"]

    def test_disks_without_locks(self, server, root, monkeypatch):
        def refuse(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)
        get(benchmark(plain(server, "pair.zip", CONTENT)), root)
        assert_whole(root)


def test_archives_of_several_parts(server, root):
    parts = [
        plain(
            server,
            f"{domain}.tar.gz",
            make_tar({k[5:]: v for k, v in FILES.items() if domain in k}),
        )
        for domain in DOMAINS
    ]
    get(benchmark(*parts), root)
    assert_whole(root)
    assert replace(benchmark(), files=("x/y",)).contents == ("x/y",)
