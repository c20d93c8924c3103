"""Sources of few large files give the same samples from an object store, with a cache and without."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from harness.object_store import S3
from harness.tars import write_shard
from PIL import Image
from pyarrow import parquet

from raycls.config.load import load_text
from raycls.config.sections.data import CacheConfig, DataConfig, SourceConfig
from raycls.data.rows import fetched
from raycls.data.source import Pool, open_pool
from raycls.data.sources.recognised import recognised
from raycls.errors import DataError, OutageError
from raycls.run.storage import retry
from raycls.session.packing import pack


def _png(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4 + level % 3, 5), (level, 2 * level % 256, 7)).save(stream, "PNG")
    return stream.getvalue()


def write_parquet(folder: Path) -> tuple[str, str]:
    for split, levels in (("train", range(6)), ("test", range(6, 9))):
        images = pa.array([{"bytes": _png(level), "path": f"{level}.png"} for level in levels])
        table = pa.table({"image": images, "label": [("cat", "dog")[level % 2] for level in levels]})
        folder.mkdir(exist_ok=True)
        parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet", row_group_size=2)
    return "parquet", ""


def write_alone(folder: Path) -> tuple[str, str]:
    write_parquet(folder)
    return "parquet", "/train-00000-of-00001.parquet"


def write_arrays(folder: Path, save: Callable[..., None] = np.savez) -> tuple[str, str]:
    folder.mkdir()
    draw = np.random.default_rng(0)
    arrays = {
        "train_images": draw.integers(0, 256, (400, 30, 31, 3), dtype=np.uint8),  # over a mebibyte
        "train_labels": np.arange(400) % 3,
        "test_images": draw.integers(0, 256, (5, 30, 31, 3), dtype=np.uint8),
        "test_labels": np.arange(5) % 3,
        "classes": np.array(["zebra", "ant", "bee"]),
    }
    save(folder / "data.npz", **arrays)
    return "arrays", "/data.npz"


def write_compressed(folder: Path) -> tuple[str, str]:
    return write_arrays(folder, np.savez_compressed)


def write_cifar(folder: Path) -> tuple[str, str]:
    folder.mkdir()
    names = [b"ship", b"cat", b"dog"]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}))
    for number, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": [0, 1, 2, 1]}))
    return "cifar", ""


def _write_packed(folder: Path, **options: Any) -> tuple[str, str]:
    photos = folder.parent / "unpacked"
    for level in range(20):
        path = photos / ("cat" if level % 2 else "dog") / f"{level}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png(level))
    run = load_text("", "c.yaml", [f"data.source.path={photos}", "scale.workers=0"]).run
    pack.pack(run, pack.Request(str(folder), **options), join=lambda *_: None, say=lambda text: None)
    return "packed", ""


def write_packed_parquet(folder: Path) -> tuple[str, str]:
    return _write_packed(folder, form="parquet", processes=1)


def write_packed_arrow(folder: Path) -> tuple[str, str]:
    return _write_packed(folder, size=4, quality=0, processes=1)


def tar_samples(levels: range) -> list[dict[str, Any]]:
    return [{"__key__": f"{level:04d}", "png": _png(level), "json": {"label": level % 3}} for level in levels]


def write_tars(folder: Path) -> tuple[str, str]:
    for number in range(2):
        write_shard(folder / f"train-{number}.tar", tar_samples(range(9 * number, 9 * number + 9)))
    write_shard(folder / "test-0.tar", tar_samples(range(18, 22)))
    return "webdataset", ""


def write_pattern(folder: Path) -> tuple[str, str]:
    write_tars(folder)
    return "webdataset", "/{train-1,test-0}.tar"


def write_tar(folder: Path) -> tuple[str, str]:
    write_tars(folder)
    return "webdataset", "/train-0.tar"


def as_bytes(value: bytes | np.ndarray) -> bytes:
    return value if isinstance(value, bytes) else value.tobytes() + str(value.shape).encode()


def content(pool: Pool) -> list[bytes]:
    return [as_bytes(pool.reader.read(row)) for row in range(len(pool.labels))]


def facts(pool: Pool) -> object:
    splits = {name: np.asarray(rows).tolist() for name, rows in (pool.splits or {}).items()}
    return pool.classes, pool.labels.tolist(), list(pool.keys), splits, content(pool)


WRITERS = (
    write_parquet, write_alone, write_arrays, write_compressed, write_cifar, write_packed_parquet, write_packed_arrow,
    write_tars, write_pattern, write_tar,
)  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
def test_a_source_behind_an_address_is_what_it_is_here(
    tmp_path: Path, s3: S3, write: Callable[[Path], tuple[str, str]]
) -> None:
    name, below = write(tmp_path / "data")
    s3.upload(tmp_path / "data", "some/data")
    here = open_pool(DataConfig(source=SourceConfig(name=name, path=f"{tmp_path / 'data'}{below}")))
    source = SourceConfig(name=name, path=s3.uri(f"some/data{below}"))
    cache = CacheConfig(dir=str(tmp_path / "cache"), limit="1GB")
    there = open_pool(DataConfig(source=source))
    if write is write_packed_arrow:
        with pytest.raises(DataError, match="mapped into memory") as raised:
            there.reader.read(0)
        typed = str(raised.value.fix).split("data.cache=")[1].split(" ;")[0].strip("'")
        assert load_text("", "c", [f"data.cache={typed}"]).run.data.cache == CacheConfig(
            dir="/local/cache", limit="50GB"
        )
    else:
        assert facts(pickle.loads(pickle.dumps(there))) == facts(here)
    for _ in range(2):
        pool = open_pool(DataConfig(source=source, cache=cache))
        assert facts(pickle.loads(pickle.dumps(pool))) == facts(here)
        reader = pickle.loads(pickle.dumps(pool.reader))
        s3.proxy.stop()
        assert as_bytes(reader.read(3)) == content(here)[3]  # all is on the disk
        s3.proxy.start()


@pytest.mark.parametrize("write", [write_parquet, write_arrays, write_cifar, write_packed_parquet, write_tars])
def test_an_outage_is_named_and_is_no_damage(
    tmp_path: Path, s3: S3, write: Callable[[Path], tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, below = write(tmp_path / "data")
    s3.upload(tmp_path / "data", "data")
    source = SourceConfig(name=name, path=s3.uri(f"data{below}"))
    reader = open_pool(DataConfig(source=source)).reader
    reader.read(0)
    monkeypatch.setattr(retry, "DEADLINE", 0.0)
    s3.proxy.fail_from(0)
    with pytest.raises(OutageError):
        pickle.loads(pickle.dumps(reader)).read(3)
    with pytest.raises(OutageError):
        open_pool(DataConfig(source=source))
    s3.proxy.reset()
    assert pickle.loads(pickle.dumps(reader)).read(3) is not None


def test_what_is_not_there_or_damaged_is_named(tmp_path: Path, s3: S3) -> None:
    for name in ("parquet", "arrays", "packed", "cifar", "webdataset"):
        with pytest.raises(DataError) as raised:
            open_pool(DataConfig(source=SourceConfig(name=name, path=s3.uri(f"none/x.{name}"))))
        assert str(raised.value.where).startswith("s3://bucket/none"), raised.value
    for name in ("x.parquet", "x.npz"):
        s3.client.put_object(Bucket="bucket", Key=name, Body=json.dumps({"no": "data"}).encode() * 50)
        with pytest.raises(DataError) as raised:
            open_pool(DataConfig(source=SourceConfig(name="parquet" if "par" in name else "arrays", path=s3.uri(name))))
        assert raised.value.where == f"s3://bucket/{name}" and "refuses" not in raised.value.what


def _tars(s3: S3, path: str, **args: Any) -> Pool:
    return open_pool(DataConfig(source=SourceConfig(name="webdataset", path=s3.uri(path), args=args)))


def test_a_part_of_the_data_is_kept_in_the_cache_too(tmp_path: Path, s3: S3) -> None:
    write_parquet(tmp_path / "data")
    s3.upload(tmp_path / "data", "data")
    source = SourceConfig(name="parquet", path=s3.uri("data"), args={"ignore": ["*.parquet[[]3]"]})
    pool = open_pool(DataConfig(source=source, cache=CacheConfig(dir=str(tmp_path / "cache"), limit="1GB")))
    assert len(pool.labels) < 9 and not any("data.cache" in note for note in pool.notes)
    before = content(pool)
    s3.proxy.stop()
    assert content(pickle.loads(pickle.dumps(pool))) == before
    s3.proxy.start()


def test_shards_are_read_by_ranges_and_headers_once(tmp_path: Path, s3: S3) -> None:
    noise = np.random.default_rng(0).bytes(300_000)
    samples = [{"__key__": f"{at:02d}", "jpg": noise + bytes([at]), "cls": at % 2} for at in range(20)]
    write_shard(tmp_path / "data/a.tar", samples)
    s3.upload(tmp_path / "data", "d")
    assert recognised(s3.uri("d")) == recognised(s3.uri("d/a-{0..1}.tar")) == "webdataset"
    s3.proxy.reset()
    pool = _tars(s3, "d")
    gets = [path for method, path in s3.proxy.seen if method == "GET" and "a.tar" in path]
    assert 0 < len(gets) <= 8  # 6 MB in parts of a mebibyte; a label is no request of its own
    reader = pickle.loads(pickle.dumps(pool.reader))
    s3.proxy.reset()
    rows = np.array([17, 3, 3, 8])
    with fetched(reader, rows):
        assert [reader.read(row)[-1] for row in rows.tolist()] == [17, 3, 3, 8]
    assert [method for method, _ in s3.proxy.seen].count("GET") == 3
    assert reader.read(5) == noise + bytes([5]) and not reader.ahead.asked


def test_a_shard_that_was_changed_or_is_no_tar_is_named_by_its_address(tmp_path: Path, s3: S3) -> None:
    write_tars(tmp_path / "data")
    s3.upload(tmp_path / "data", "d")
    reader = _tars(s3, "d").reader
    s3.client.put_object(Bucket="bucket", Key="d/train-0.tar", Body=(tmp_path / "data/test-0.tar").read_bytes())
    with pytest.raises(DataError, match="a shard is not what it was"):
        reader.read(8)
    whole = (tmp_path / "data/train-1.tar").read_bytes()
    for body, what in ((b"\x1f\x8b" + whole, "compressed"), (whole[:3000], "damaged"), (b"", "damaged")):
        s3.client.put_object(Bucket="bucket", Key="d/train-1.tar", Body=body)
        with pytest.raises(DataError, match=what) as raised:
            _tars(s3, "d")
        assert raised.value.where == "s3://bucket/d/train-1.tar"
    with pytest.raises(DataError, match="2 of the 4 shards of a pattern do not exist") as raised:
        _tars(s3, "d/train-{0..3}.tar")
    assert raised.value.found == "s3://bucket/d/train-2.tar, s3://bucket/d/train-3.tar"


def test_the_names_of_classes_may_stand_beside_the_shards_or_at_an_address(tmp_path: Path, s3: S3) -> None:
    write_tars(tmp_path / "data")
    (tmp_path / "data/names.txt").write_text("zebra\nant\nbee\n")
    s3.upload(tmp_path / "data", "d")
    for classes in ("names.txt", s3.uri("d/names.txt"), str(tmp_path / "data/names.txt")):
        assert _tars(s3, "d", classes=classes).classes == ("zebra", "ant", "bee")
    with pytest.raises(DataError, match="cannot read a file of the data"):
        _tars(s3, "d", classes=s3.uri("d/other.txt"))


def test_what_is_at_an_address_is_known_by_its_names(s3: S3) -> None:
    for key in ("p/pack.json", "q/a.parquet", "f/cat/1.png", "labels.csv", "x.npz"):
        s3.client.put_object(Bucket="bucket", Key=key, Body=b"")
    found = [recognised(s3.uri(path)) for path in ("p", "q", "f", "labels.csv", "x.npz")]
    assert found == ["packed", "parquet", "folder", "manifest", "arrays"]
