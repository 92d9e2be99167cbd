import gzip
import io
import tarfile
import zipfile

import pytest

from gga_lightning.data.benchmarks.benchmark import DatasetError
from gga_lightning.data.download.archive import BadArchiveError, format_bytes, unpack
from tests.data.loopback import make_tar, make_zip

FILES = {"top/a.txt": b"one", "top/deep/er/b.txt": b"two", "c.txt": b""}


def written(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(("name", "make"), [("x.zip", make_zip), ("x.tar.gz", make_tar)])
def test_unpacks(tmp_path, name, make):
    archive, sizes = tmp_path / name, []
    archive.write_bytes(make(FILES))
    unpack(archive, tmp_path / "out", sizes.append)
    assert written(tmp_path / "out") == FILES
    assert sizes == [3, 6, 6]


def test_a_single_file(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"content"))
    (tmp_path / "list.txt").write_bytes(b"names")
    for name in ("x.gz", "list.txt"):
        unpack(tmp_path / name, tmp_path / "out", lambda _: None)
    assert written(tmp_path / "out") == {"x": b"content", "list.txt": b"names"}


def zip_with(name, mode=0o100644, content=b"evil"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("good.txt", b"good")
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, mode << 16
        archive.writestr(info, content)
    return file.getvalue()


def tar_with(*members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, kind, target in (("good.txt", tarfile.REGTYPE, ""), *members):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, 4
            archive.addfile(info, io.BytesIO(b"evil") if kind == tarfile.REGTYPE else None)
    return file.getvalue()


UNSAFE = {
    "zip up": ("x.zip", lambda out: zip_with("../evil")),
    "zip up inside": ("x.zip", lambda out: zip_with("a/../../evil")),
    "zip backslash": ("x.zip", lambda out: zip_with("..\\evil")),
    "zip absolute": ("x.zip", lambda out: zip_with(f"{out}/evil")),
    "zip drive": ("x.zip", lambda out: zip_with("C:evil")),
    "zip link": ("x.zip", lambda out: zip_with("link", 0o120777, f"{out}".encode())),
    "tar up": ("x.tar.gz", lambda out: tar_with(("../evil", tarfile.REGTYPE, ""))),
    "tar absolute": ("x.tar.gz", lambda out: tar_with((f"{out}/evil", tarfile.REGTYPE, ""))),
    "tar folder up": ("x.tar.gz", lambda out: tar_with(("../evil", tarfile.DIRTYPE, ""))),
    "tar through a link": (
        "x.tar.gz",
        lambda out: tar_with(("a", tarfile.SYMTYPE, f"{out}"), ("a/evil", tarfile.REGTYPE, "")),
    ),
    "tar link": ("x.tar.gz", lambda out: tar_with(("a", tarfile.SYMTYPE, "../../evil"))),
    "tar hard link": ("x.tar.gz", lambda out: tar_with(("a", tarfile.LNKTYPE, f"{out}/mine"))),
    "tar pipe": ("x.tar.gz", lambda out: tar_with(("a", tarfile.FIFOTYPE, ""))),
    "tar device": ("x.tar.gz", lambda out: tar_with(("a", tarfile.CHRTYPE, ""))),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_writes_nothing_outside(tmp_path, case):
    name, make = UNSAFE[case]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_bytes(b"untouched")
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in" / name
    archive.write_bytes(make(outside))
    with pytest.raises(BadArchiveError, match=r"is not safe to unpack: .* (leads out|is a link)"):
        unpack(archive, tmp_path / "in" / "out", lambda _: None)
    assert written(outside) == {"mine": b"untouched"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "outside"]
    assert set(written(tmp_path / "in")) <= {name, "out/good.txt"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(("name", "make"), [("x.zip", make_zip), ("x.tar.gz", make_tar)])
def test_damaged(tmp_path, name, make):
    content = make({"a.txt": bytes(range(256)) * 40, "b.txt": b"x"})
    archive = tmp_path / name
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadArchiveError, match=f"{name} is damaged .*Run the same command again"):
        unpack(archive, tmp_path / "out", lambda _: None)
    archive.write_bytes(b"<html>quota</html>")
    with pytest.raises(BadArchiveError, match="is damaged"):
        unpack(archive, tmp_path / "out", lambda _: None)


def test_too_large_for_the_disk(tmp_path, monkeypatch):
    archive = tmp_path / "x.zip"
    archive.write_bytes(make_zip({"a.txt": bytes(5000)}))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 4000}))
    with pytest.raises(DatasetError, match=r"unpacks to 5 kB, but the disk .* has 4 kB left"):
        unpack(archive, tmp_path / "out", lambda _: None)
    assert not written(tmp_path / "out")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (174e6, "174 MB"),
        (1.1e9, "1.1 GB"),
        (2e13, "20000.0 GB"),
    ],
)
def test_format_bytes(count, text):
    assert format_bytes(count) == text
