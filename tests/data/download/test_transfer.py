import errno
import inspect
import sys
import types

import pytest

from gga_lightning.data.download import transfer as module
from gga_lightning.data.download.transfer import SourceError, transfer
from tests.data.loopback import PAGE, Route, Server

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    with Server() as running:
        yield running


def get(url, part):
    seen = []
    transfer(url, part, lambda done, total: seen.append((done, total)))
    return seen


class TestWeb:
    def test_whole(self, server, tmp_path):
        part = tmp_path / "part"
        seen = get(server.add("x", Route(CONTENT)), part)
        assert part.read_bytes() == CONTENT
        assert seen[-1] == (len(CONTENT), len(CONTENT))
        assert server.asked("x") == [None]

    def test_goes_on_where_it_broke_off(self, server, tmp_path):
        part = tmp_path / "part"
        get(server.add("x", Route(CONTENT, pieces=10_000)), part)
        assert part.read_bytes() == CONTENT
        asked = server.asked("x")
        assert asked == [None, *(f"bytes={10_000 * n}-" for n in range(1, 11))]

    def test_a_later_run_goes_on(self, server, tmp_path):
        part, route = tmp_path / "part", Route(CONTENT, pieces=0)
        url = server.add("x", route)
        part.write_bytes(CONTENT[:777])
        part.with_name("part.version").write_text('"1"')
        with pytest.raises(SourceError, match=r"breaks off \(at 777 of 102,400 bytes\); a new run"):
            get(url, part)
        assert part.read_bytes() == CONTENT[:777]
        route.pieces, route.asked[:] = None, []
        get(url, part)
        assert part.read_bytes() == CONTENT
        assert server.asked("x") == ["bytes=777-"]

    @pytest.mark.parametrize("known", ['"0"', None])
    def test_another_version_is_got_anew(self, server, tmp_path, known):
        part = tmp_path / "part"
        part.write_bytes(b"of another file")
        if known:
            part.with_name("part.version").write_text(known)
        get(server.add("x", Route(CONTENT)), part)
        assert part.read_bytes() == CONTENT

    def test_a_server_without_ranges(self, server, tmp_path):
        part = tmp_path / "part"
        part.write_bytes(CONTENT[:777])
        part.with_name("part.version").write_text('"1"')
        get(server.add("x", Route(CONTENT, ranges=False)), part)
        assert part.read_bytes() == CONTENT

    def test_gives_a_source_up_that_gets_no_further(self, server, tmp_path):
        url = server.add("x", Route(CONTENT, ranges=False, pieces=500))
        with pytest.raises(SourceError, match="breaks off"):
            get(url, tmp_path / "part")
        assert len(server.asked("x")) == module._TRIES

    @pytest.mark.parametrize("there", [len(CONTENT), len(CONTENT) + 5])
    def test_a_part_that_is_all_or_more(self, server, tmp_path, there):
        part = tmp_path / "part"
        part.write_bytes((CONTENT + b"extra")[:there])
        part.with_name("part.version").write_text('"1"')
        get(server.add("x", Route(CONTENT)), part)
        assert part.read_bytes() == CONTENT
        assert len(server.asked("x")) == (1 if there == len(CONTENT) else 2)

    def test_no_length_no_version(self, server, tmp_path):
        part = tmp_path / "part"
        get(server.add("x", Route(CONTENT, version=None, length=False)), part)
        assert part.read_bytes() == CONTENT
        assert not part.with_name("part.version").exists()

    def test_page_leaves_the_part_alone(self, server, tmp_path):
        part = tmp_path / "part"
        part.write_bytes(b"half")
        part.with_name("part.version").write_text('"1"')
        url = server.add("x", Route(PAGE, kind="text/html", ranges=False))
        with pytest.raises(SourceError, match="serves a web page, of a quota or an error"):
            get(url, part)
        assert part.read_bytes() == b"half"

    @pytest.mark.parametrize("status", [403, 404, 429, 500])
    def test_errors_are_not_tried_again(self, server, tmp_path, status):
        url = server.add("x", Route(b"no", status))
        with pytest.raises(SourceError, match=f"answers {status}"):
            get(url, tmp_path / "part")
        assert len(server.asked("x")) == 1
        assert not (tmp_path / "part").exists()

    def test_nobody_there(self, tmp_path):
        with Server() as gone:
            url = gone.url("x")
        with pytest.raises(SourceError, match="cannot be reached"):
            get(url, tmp_path / "part")


class TestDrive:
    URL = "https://drive.google.com/uc?id=abc"

    def with_gdown(self, monkeypatch, download):
        monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=download))

    def test_goes_by_gdown(self, monkeypatch, tmp_path):
        def download(url, output, *, progress, **settings):
            assert url == self.URL
            assert settings["resume"]
            with open(output, "wb") as file:
                file.write(CONTENT)
            progress(len(CONTENT), None)

        self.with_gdown(monkeypatch, download)
        assert get(self.URL, tmp_path / "part") == [(len(CONTENT), None)]
        assert (tmp_path / "part").read_bytes() == CONTENT

    def test_a_quota(self, monkeypatch, tmp_path):
        def download(*_, **__):
            raise RuntimeError("Failed to retrieve file url:\n\n\tToo many users")

        self.with_gdown(monkeypatch, download)
        with pytest.raises(SourceError, match=r"^Failed to retrieve file url: Too many users$"):
            get(self.URL, tmp_path / "part")

    def test_nothing(self, monkeypatch, tmp_path):
        self.with_gdown(monkeypatch, lambda *_, **__: None)
        with pytest.raises(SourceError, match="serves no file"):
            get(self.URL, tmp_path / "part")

    def test_a_full_disk_is_not_the_sources_fault(self, monkeypatch, tmp_path):
        def download(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        self.with_gdown(monkeypatch, download)
        with pytest.raises(OSError, match="No space"):
            get(self.URL, tmp_path / "part")

    def test_without_gdown(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "gdown", None)
        with pytest.raises(SourceError, match=r"pip install 'gga-lightning\[download\]'"):
            get(self.URL, tmp_path / "part")

    def test_the_real_gdown_takes_our_arguments(self, monkeypatch, tmp_path):
        gdown = pytest.importorskip("gdown")
        signature, calls = inspect.signature(gdown.download), []

        def download(*args, **settings):
            signature.bind(*args, **settings)
            calls.append(args)
            (tmp_path / "part").write_bytes(b"x")

        monkeypatch.setattr(gdown, "download", download)
        get(self.URL, tmp_path / "part")
        assert calls == [(self.URL, str(tmp_path / "part"))]
