import errno
import fcntl
import io
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gga_lightning.data import cache as module
from gga_lightning.data.cache import DecodedCache, estimate
from gga_lightning.data.decoding import decode

COUNT = 150  # more than one chunk, and one that is not full
HEAD = 72 + 8 * COUNT


def write(path, height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def paths(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(COUNT):
        kind = "png" if index % 3 == 0 else "jpg"
        write(folder / f"{index:03}.{kind}", 5 + index % 7, 4 + index % 4, index)
    return sorted(folder.iterdir())


@pytest.fixture
def file(tmp_path):
    return tmp_path / "caches" / "art.images"


@pytest.fixture
def build(paths, file):
    return lambda **options: DecodedCache.build(paths, file, progress=False, **options)


def assert_holds(cache, paths):
    assert len(cache) == len(paths)
    for index, path in enumerate(paths):
        assert torch.equal(cache[index], decode(path))


def left(file):
    """The names in the cache's folder, but for a killed process's lock."""
    return sorted(path.name for path in file.parent.iterdir() if path.suffix != ".lock")


def refuse_locks(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


class TestContent:
    def test_is_what_decoding_gives(self, build, paths):
        cache = build()
        assert_holds(cache, paths)
        image, plain = cache[1], decode(paths[1])
        assert image.dtype is torch.uint8
        assert image.stride() == plain.stride()
        assert torch.equal(cache[-1], decode(paths[-1]))

    def test_images_are_copies(self, build):
        cache = build()
        before = cache[0]
        cache[0].zero_()
        assert torch.equal(cache[0], before)

    @pytest.mark.parametrize("index", [COUNT, -COUNT - 1])
    def test_index_out_of_range(self, build, index):
        with pytest.raises(IndexError, match=rf"from -{COUNT} to {COUNT - 1}, got {index}"):
            build()[index]

    def test_bounded_by_the_shorter_side(self, tmp_path):
        shapes = {(60, 40): (30, 20), (40, 90): (20, 45), (20, 70): (20, 70), (19, 5): (19, 5)}
        paths = [tmp_path / f"{height}.png" for height, _ in shapes]
        for path, (height, width) in zip(paths, shapes, strict=True):
            write(path, height, width, 0)
        cache = DecodedCache.build(paths, tmp_path / "cache", progress=False, max_side=20)
        assert [tuple(image.shape[1:]) for image in cache] == list(shapes.values())
        assert torch.equal(cache[2], decode(paths[2]))
        smaller = Image.open(paths[0]).resize((20, 30), Image.Resampling.BILINEAR)
        error = cache[0].permute(1, 2, 0).int() - torch.from_numpy(np.array(smaller)).int()
        assert error.abs().max() <= 1
        assert estimate(paths, max_side=20) == (tmp_path / "cache").stat().st_size

    def test_estimate_is_the_size(self, build, paths, file):
        found = estimate(paths)
        assert found == HEAD + sum(decode(path).numel() for path in paths)
        build()
        assert file.stat().st_size == found

    def test_estimate_reads_headers_alone(self, paths, monkeypatch):
        monkeypatch.setattr(module, "decode", None)
        assert estimate(paths) > HEAD

    def test_says_its_size_beforehand(self, paths, file, capsys):
        DecodedCache.build(paths, file)
        out, err = capsys.readouterr()
        assert not out
        assert f"Decoding {COUNT} images into {file}, {file.stat().st_size:,} bytes" in err

    def test_others_may_read_it_as_any_file(self, build, file, tmp_path):
        build()
        (tmp_path / "plain").touch()
        assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode


class TestReuse:
    @pytest.fixture
    def decoded(self, monkeypatch):
        """The paths that were decoded, one after the other."""
        done = []
        monkeypatch.setattr(module, "decode", lambda path: done.append(path) or decode(path))
        return done

    def test_built_once(self, build, paths, decoded):
        build()
        assert sorted(decoded) == list(map(str, paths))
        build()
        assert len(decoded) == COUNT

    def test_changed_file_is_noticed(self, build, paths, decoded):
        before = build()
        write(paths[7], 30, 20, 99)
        after = build()
        assert len(decoded) == 2 * COUNT
        assert_holds(after, paths)
        assert before[7].shape != after[7].shape  # the old one lives on where it is open

    def test_touched_file_is_noticed(self, build, paths, decoded):
        build()
        os.utime(paths[3], (1, 1))
        build()
        assert len(decoded) == 2 * COUNT

    def test_other_lists_are_noticed(self, build, paths, file, decoded):
        build()
        assert_holds(DecodedCache.build(paths[:-1], file, progress=False), paths[:-1])
        assert_holds(DecodedCache.build(paths[::-1], file, progress=False), paths[::-1])
        assert len(decoded) == 3 * COUNT - 1

    def test_another_bound_is_noticed(self, build, decoded):
        build()
        assert build(max_side=4)[1].shape != build()[1].shape
        assert len(decoded) == 3 * COUNT

    def test_another_reading_is_noticed(self, build, paths, file):
        data = Image.Exif()
        data[0x0112] = 6
        Image.new("RGB", (8, 5)).save(paths[1], exif=data)
        assert build()[1].shape == (3, 8, 5)
        assert build(domainbed=True)[1].shape == (3, 5, 8)
        assert file.stat().st_size == estimate(paths, domainbed=True)
        assert build()[1].shape == (3, 8, 5)

    def test_truncated_images_are_for_domainbed_alone(self, build, paths):
        paths[1].write_bytes(paths[1].read_bytes()[:-10])
        with pytest.raises(ValueError, match=f"{paths[1].name}' .* is truncated or damaged"):
            build()
        assert torch.equal(build(domainbed=True)[1], decode(paths[1], domainbed=True))

    def test_moved_images_are_the_same(self, build, paths, file, decoded, tmp_path):
        build()
        shutil.move(tmp_path / "images", tmp_path / "elsewhere")
        moved = [tmp_path / "elsewhere" / path.name for path in paths]
        DecodedCache.build(moved, file, progress=False)
        assert len(decoded) == COUNT

    def test_a_file_that_breaks_off_is_built_anew(self, build, paths, file, decoded):
        build()
        os.truncate(file, file.stat().st_size - 1)
        with pytest.raises(ValueError, match=r"art.images' .* is not a complete cache"):
            DecodedCache(file)
        assert_holds(build(), paths)

    @pytest.mark.parametrize("content", [b"", b"something else", bytes(200)])
    def test_a_foreign_file_is_replaced(self, build, paths, file, content):
        file.parent.mkdir()
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is not a complete cache"):
            DecodedCache(file)
        assert_holds(build(), paths)

    def test_opening_what_is_not_there(self, file):
        with pytest.raises(FileNotFoundError, match=r"art\.images"):
            DecodedCache(file)


class TestFailures:
    def test_full_disk_is_told_beforehand(self, build, paths, file, monkeypatch):
        usage = shutil.disk_usage(file.parent.parent)._replace(free=1234)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        needed = f"{estimate(paths):,}"
        with pytest.raises(OSError, match=rf"needs {needed} bytes .* its disk has 1,234 free"):
            build()
        assert left(file) == []

    def test_disk_that_fills_up(self, build, paths, file, monkeypatch):
        class Full(io.FileIO):
            def write(self, content):
                raise OSError(errno.ENOSPC, "No space left on device")

        def opening(name, mode):
            return (Full if str(name).endswith(".part") else open)(name, mode)

        monkeypatch.setattr(module, "open", opening, raising=False)
        with pytest.raises(OSError, match="No space left"):
            build()
        assert left(file) == []
        monkeypatch.undo()
        assert_holds(build(), paths)

    def test_broken_image_is_named(self, build, paths, file):
        paths[4].write_bytes(b"no image")
        with pytest.raises(ValueError, match=rf"{paths[4].name}' \(8 bytes\) cannot be decoded"):
            build()
        paths[4].write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\5\0\0\0\5\x08\2\0\0\0")
        with pytest.raises(ValueError, match=paths[4].name):
            build()
        assert left(file) == []

    def test_interrupted(self, build, file, monkeypatch):
        def interrupt(path):
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "decode", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build()
        assert left(file) == []

    def test_image_that_is_not_what_its_header_says(self, build, paths, monkeypatch):
        monkeypatch.setattr(module, "decode", lambda path: torch.zeros(3, 2, 2, dtype=torch.uint8))
        with pytest.raises(ValueError, match="5 x 4 by its header and 2 x 2 decoded"):
            build()

    def test_no_paths(self, file):
        with pytest.raises(ValueError, match="`paths` must name at least one"):
            DecodedCache.build([], file)

    def test_bound_below_one(self, build):
        with pytest.raises(ValueError, match="`max_side` must be at least 1 or None, got 0"):
            build(max_side=0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
class TestProcesses:
    fork = multiprocessing.get_context("fork")

    def test_killed_while_building(self, build, paths, file, monkeypatch):
        reached = self.fork.Event()

        def stuck(path):
            if path == str(paths[20]):
                reached.set()
                time.sleep(60)
            return decode(path)

        with monkeypatch.context() as patched:
            patched.setattr(module, "decode", stuck)
            process = self.fork.Process(target=build)
            process.start()
            assert reached.wait(30)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        (unfinished,) = left(file)
        assert unfinished.endswith(".part")
        with pytest.raises(ValueError, match="is not a complete cache"):
            DecodedCache(file.parent / unfinished)
        assert_holds(build(), paths)
        assert [path.name for path in file.parent.iterdir()] == ["art.images"]

    def test_the_second_says_that_it_waits(self, paths, file, monkeypatch, capfd):
        started = self.fork.Event()

        def slow(path):
            started.set()
            time.sleep(0.01)
            return decode(path)

        with monkeypatch.context() as patched:
            patched.setattr(module, "decode", slow)
            process = self.fork.Process(target=DecodedCache.build, args=(paths, file))
            process.start()
            assert started.wait(30)
        assert_holds(DecodedCache.build(paths, file), paths)
        process.join(30)
        said = capfd.readouterr().err
        assert said.count(f"Waiting for another process that builds {file}.") == 1
        assert said.count("Decoding 150 images") == 1

    @pytest.mark.parametrize("locks", [True, False])
    def test_two_building_at_once(self, build, paths, file, monkeypatch, tmp_path, locks):
        log = tmp_path / "log"

        def slow(path):
            with log.open("a") as opened:
                opened.write(".")
            time.sleep(0.005)
            return decode(path)

        monkeypatch.setattr(module, "decode", slow)
        if not locks:
            refuse_locks(monkeypatch)
        processes = [self.fork.Process(target=build) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(30)
            assert process.exitcode == 0
        assert log.stat().st_size == (COUNT if locks else 2 * COUNT)
        assert_holds(DecodedCache(file), paths)
        assert left(file) == ["art.images"]

    def test_disk_without_locks(self, build, paths, monkeypatch):
        refuse_locks(monkeypatch)
        assert_holds(build(), paths)

    @pytest.mark.slow
    def test_spawned_worker(self, build, paths):
        cache = build()
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            (total,) = pool.map(_total, [cache])
        assert total == sum(int(decode(path).sum()) for path in paths)

    def test_pickle_is_small_and_true(self, build, paths, file):
        cache = build()
        pickled = pickle.dumps(cache)
        assert len(pickled) < 500
        assert_holds(pickle.loads(pickled), paths)
        DecodedCache.build(paths[1:], file, progress=False)
        with pytest.raises(ValueError, match="rebuilt from other images"):
            pickle.loads(pickled)


def _total(cache):
    return sum(int(image.sum()) for image in cache)


def test_relative_paths(build, paths, file, tmp_path):
    build()
    before = file.stat().st_mtime_ns
    relative = [Path(os.path.relpath(path)) for path in paths]
    DecodedCache.build(relative, file, progress=False)
    assert file.stat().st_mtime_ns == before
