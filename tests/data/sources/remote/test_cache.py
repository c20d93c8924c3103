"""The cache of a node: bounded, shared, and right after whatever happened to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from harness.object_store import S3
from pydantic import ValidationError

from raycls.config.load import load_text
from raycls.config.sections.data import CacheConfig, DataConfig, SourceConfig
from raycls.data.rows import fetched
from raycls.data.source import open_pool
from raycls.data.sources.remote import cache as caches
from raycls.data.sources.remote.address import Address
from raycls.data.sources.remote.cache import Cache, entry_of
from raycls.errors import ConfigError

_KB = 4096


def entry(number: int) -> str:
    return entry_of(Address("s3", "bucket", f"{number}.png"), 10, 0)


def taken(folder: Path) -> int:
    """Bytes of the disk that all entries, and what is being written, take."""
    sizes: list[int] = []
    for directory, _, files in os.walk(folder / "objects-1"):
        for name in files:
            try:
                sizes.append(os.stat(os.path.join(directory, name)).st_size)
            except FileNotFoundError:  # moved into place, or deleted, meanwhile
                continue
    return sum(-(-size // 4096) * 4096 for size in sizes)


def value(number: int) -> bytes:
    return np.random.default_rng(number).bytes(2 * _KB - 100)  # two blocks with its trailer


def test_what_is_added_is_read_again_by_any_process(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "a" / "b"), 1 << 20)
    assert cache.read(entry(0)) is None and not cache.has(entry(0))
    for data in (b"", b"x", value(1)):
        cache.add(name := entry_of(Address("s3", "b", str(len(data))), len(data), 5), data)
        assert Cache(cache.folder, 5).read(name) == data
        mapped = cache.mapped(name)
        assert mapped is not None and mapped.to_pybytes() == data
    assert taken(Path(cache.folder)) == 4 * _KB


def test_another_size_or_time_or_server_is_another_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    address = Address("s3", "bucket", "a.png", "endpoint_override=here:1")
    names = [entry_of(address, 5, 7), entry_of(address, 6, 7), entry_of(address, 5, 8)]
    names.append(entry_of(Address("s3", "bucket", "a.png", "endpoint_override=there:1"), 5, 7))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere:1")
    names.append(entry_of(address, 5, 7))
    assert len(set(names)) == 5


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_TOUCHED", 0.0)
    cache = Cache(str(tmp_path), 10 * 2 * _KB)
    for number in range(10):
        cache.add(entry(number), value(number))
        os.utime(cache._path(entry(number)), (number + 1, number + 1))
    assert taken(tmp_path) == 10 * 2 * _KB
    assert cache.read(entry(0)) == value(0) and cache.read(entry(2)) == value(2)
    cache.add(entry(10), value(10))
    assert [number for number in range(11) if cache.has(entry(number))] == [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    cache.add(entry(11), value(11))
    assert [number for number in range(12) if not cache.has(entry(number))] == [1, 3]


def test_an_object_that_is_larger_than_all_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), 2 * _KB)
    cache.add(entry(0), value(0))
    cache.add(entry(1), bytes(2 * _KB))
    assert cache.has(entry(0)) and not cache.has(entry(1)) and taken(tmp_path) == 2 * _KB


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "zeros", "other"])
def test_a_damaged_entry_is_none(tmp_path: Path, damage: str) -> None:
    cache = Cache(str(tmp_path), 1 << 20)
    cache.add(entry(0), value(0))
    cache.add(entry(1), value(1))
    path = Path(cache._path(entry(0)))
    whole = path.read_bytes()
    broken = {
        "cut": whole[:-1],
        "flip": bytes([whole[0] ^ 1]) + whole[1:],
        "empty": b"",
        "zeros": bytes(len(whole)),
        "other": Path(cache._path(entry(1))).read_bytes(),
    }
    path.write_bytes(broken[damage])
    assert cache.read(entry(0)) is None and not path.exists()
    path.write_bytes(broken[damage])
    assert cache.mapped(entry(0)) is None and not path.exists()
    cache.add(entry(0), value(0))
    assert cache.read(entry(0)) == value(0)


@pytest.mark.parametrize("state", [b"", b"12", b"x\n"])
def test_a_sum_that_is_lost_is_counted_anew(tmp_path: Path, state: bytes) -> None:
    cache = Cache(str(tmp_path), 6 * 2 * _KB)
    for number in range(6):
        cache.add(entry(number), value(number))
    (tmp_path / "lock").write_bytes(state)
    for number in range(6, 9):
        cache.add(entry(number), value(number))
        assert taken(tmp_path) <= cache.limit
    assert cache.read(entry(8)) == value(8)


def _add_and_read(folder: str, first: int) -> int:
    """Adds and reads entries in some order; how many were there and wrong."""
    cache, wrong = Cache(folder, 20 * 2 * _KB), 0
    for number in np.random.default_rng(first).integers(0, 60, 150).tolist():
        found = cache.read(entry(number))
        wrong += found is not None and found != value(number)
        if found is None:
            cache.add(entry(number), value(number))
    return wrong


@pytest.mark.slow
def test_threads_and_processes_share_it_within_its_limit(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool, ThreadPoolExecutor(2) as threads:
        running = [each.submit(_add_and_read, str(tmp_path), row) for row, each in enumerate((pool, threads) * 2)]
        cache, most = Cache(str(tmp_path), 20 * 2 * _KB), 0
        while not all(future.done() for future in running):
            with cache._locked():  # else a file that is moved while all are counted is counted twice
                most = max(most, taken(tmp_path))
            time.sleep(0.005)
        assert [future.result() for future in running] == [0] * 4
    assert 0 < most <= 20 * 2 * _KB


_FILLS = """
import sys
sys.path.insert(0, sys.argv[2])
from data.sources.remote.test_cache import _add_and_read
print("on", flush=True)
for first in range(10_000):
    _add_and_read(sys.argv[1], first)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_holds_whole_entries_within_its_limit(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[3])
    for moment in range(6):
        words = [sys.executable, "-c", _FILLS, str(tmp_path), tests]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as filling:
            assert filling.stdout is not None and filling.stdout.readline() == b"on\n"
            time.sleep(0.013 * moment)
            filling.send_signal(signal.SIGKILL)
        assert taken(tmp_path) <= 20 * 2 * _KB
        cache = Cache(str(tmp_path), 20 * 2 * _KB)
        there = [number for number in range(60) if cache.has(entry(number))]
        assert all(cache.read(entry(number)) == value(number) for number in there)
        assert all(cache.has(entry(number)) for number in there)  # none of them was damaged


@pytest.fixture
def photos(tmp_path: Path, s3: S3) -> SourceConfig:
    for row in range(20):
        path = tmp_path / "photos" / ("cat" if row % 2 else "dog") / f"{row:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % row)
    s3.upload(tmp_path / "photos", "photos")
    return SourceConfig(path=s3.uri("photos"))


def read_all(config: DataConfig) -> list[bytes]:
    pool = open_pool(config)
    with fetched(pool.reader, np.arange(20)):
        return [bytes(pool.reader.read(row)) for row in range(20)]


def gets(s3: S3) -> int:
    found = len([path for _, path in s3.proxy.seen if "/photos/" in path])
    s3.proxy.reset()
    return found


def test_the_second_time_there_is_no_request_for_an_object(photos: SourceConfig, s3: S3, tmp_path: Path) -> None:
    config = DataConfig(source=photos, cache=CacheConfig(dir=str(tmp_path / "cache"), limit="1MB"))
    s3.proxy.reset()
    first = read_all(config)
    assert gets(s3) == 40  # a HEAD and a GET each
    assert read_all(config) == first and gets(s3) == 0
    for path in list((tmp_path / "cache" / "objects-1").glob("??/*"))[:3]:
        path.write_bytes(path.read_bytes()[:-1])
    assert read_all(config) == first and gets(s3) == 6
    s3.client.put_object(Bucket="bucket", Key="photos/cat/01.png", Body=b"another")
    again = read_all(config)
    assert gets(s3) == 2 and [data for data in again if data not in first] == [b"another"]


def test_an_object_that_was_changed_since_it_was_listed_is_not_kept(
    photos: SourceConfig, s3: S3, tmp_path: Path
) -> None:
    config = DataConfig(source=photos, cache=CacheConfig(dir=str(tmp_path / "cache"), limit="1MB"))
    reader = open_pool(config).reader
    s3.client.put_object(Bucket="bucket", Key="photos/cat/01.png", Body=b"another")
    assert reader.read(0) == b"another"
    assert not list((tmp_path / "cache" / "objects-1").glob("??/*"))


def test_a_full_disk_costs_requests_and_no_run(
    photos: SourceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = DataConfig(source=photos, cache=CacheConfig(dir=str(tmp_path / "cache"), limit="1MB"))

    def full(self: Cache, entry: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Cache, "_write", full)
    assert len(read_all(config)) == 20
    assert caplog.text.count("No space left on device") == 1


def test_a_folder_that_cannot_be_written_to(photos: SourceConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as raised:
        open_pool(DataConfig(source=photos, cache=CacheConfig(dir=str(tmp_path / "file"), limit="1MB")))
    assert raised.value.where == f"data.cache.dir: {tmp_path / 'file'}"


def test_local_data_says_that_it_is_not_used(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        (tmp_path / "photos" / name).touch()
    config = DataConfig(
        source=SourceConfig(path=str(tmp_path / "photos")), cache=CacheConfig(dir=str(tmp_path / "c"), limit="1GB")
    )
    (note,) = open_pool(config).notes
    assert "data.cache.dir is not used" in note and not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "text, size", [("1B", 1), ("50GB", 50 * 10**9), ("1.5 TiB", 3 * 2**39), ("500MB", 5 * 10**8), ("2KiB", 2048)]
)
def test_limits(text: str, size: int) -> None:
    assert CacheConfig(dir="x", limit=text).bytes == size
    with pytest.raises(ValidationError):
        CacheConfig(dir="x", limit=text[:-1])


def test_the_option_as_it_is_typed() -> None:
    cache = load_text("", "x", ["data.cache={dir: /c, limit: 50GB}"]).run.data.cache
    assert cache == CacheConfig(dir="/c", limit="50GB")
    for wrong in ("data.cache=disk", "data.cache={dir: /c}", "data.cache={dir: /c, limit: 5, more: 1}"):
        with pytest.raises(ConfigError) as raised:
            load_text("", "x", [wrong])
        assert "data.cache" in str(raised.value)
        print(raised.value)
