"""Many objects at a time, in whatever order they arrive."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from harness.object_store import S3
from PIL import Image

from raycls.cli.image_check import check_folder
from raycls.data.rows import fetched, reader_of
from raycls.data.samples import Keys
from raycls.data.sources.folder import folder
from raycls.data.sources.remote import address as addresses
from raycls.data.sources.remote import objects
from raycls.data.sources.remote.address import Address
from raycls.data.sources.remote.objects import Objects
from raycls.errors import OutageError
from raycls.run.storage import retry


@pytest.fixture
def reader(tmp_path: Path, s3: S3) -> Objects:
    for row in range(12):
        path = tmp_path / "data" / ("cat" if row % 2 else "dog") / f"{row:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % row)
    s3.upload(tmp_path / "data", "data")
    found = folder(s3.uri("data")).reader
    assert isinstance(found, Objects)
    return found


def number(reader: Objects, row: int) -> int:
    return int(reader.names[row][-6:-4])


def test_requests_are_in_flight_together(reader: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read waits until four are asked for: one after another they would wait for ever."""
    together = threading.Barrier(4, timeout=20)

    def read(address: Address) -> bytes:
        together.wait()
        return addresses.read(address)

    monkeypatch.setattr(objects, "read", read)
    rows = np.array([3, 1, 7, 5])
    with fetched(reader, rows):
        assert [int(reader.read(row)) for row in rows.tolist()] == [number(reader, row) for row in rows.tolist()]
    assert not reader.ahead.asked


def test_each_is_asked_for_once_however_often_it_is_read(reader: Objects, s3: S3) -> None:
    s3.proxy.reset()
    rows = np.array([2, 2, 9, 2])
    with fetched(reader, rows), fetched(reader, rows[:1]):
        values = [int(reader.read(row)) for row in rows.tolist()]
    assert values == [number(reader, row) for row in rows.tolist()]
    assert len([1 for method, _ in s3.proxy.seen if method == "GET"]) == 2
    assert not reader.ahead.asked


def test_some_samples_of_a_reader_are_fetched_by_their_own_rows(reader: Objects) -> None:
    part = reader_of(reader, np.array([4, 8, 6]), 12)
    with fetched(part, np.array([2, 0])):
        assert [int(part.read(row)) for row in (2, 0)] == [number(reader, 6), number(reader, 4)]
    assert isinstance(part, Objects) and isinstance(part.names, Keys)


def test_an_outage_is_waited_for_and_then_named(reader: Objects, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(12)
    s3.proxy.stop()
    threading.Timer(1.0, s3.proxy.start).start()
    with fetched(reader, rows):
        assert [int(reader.read(row)) for row in range(12)] == [number(reader, row) for row in range(12)]
    monkeypatch.setattr(retry, "DEADLINE", 0.5)
    s3.proxy.stop()
    with fetched(reader, rows), pytest.raises(OutageError):
        reader.read(0)
    assert not reader.ahead.asked
    s3.proxy.start()


def test_a_check_of_all_images_takes_no_outage_for_damage(
    tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    s3.upload(tmp_path / "photos", "photos")
    assert not check_folder(s3.uri("photos")).bad
    s3.client.put_object(Bucket="bucket", Key="photos/cat/2.png", Body=b"no image")
    (bad,) = check_folder(s3.uri("photos")).bad
    assert bad.where == "s3://bucket/photos/cat/2.png"
    monkeypatch.setattr(retry, "DEADLINE", 0.0)
    s3.proxy.fault = lambda number, method, path: "refuse" if "/photos/dog/" in path else None
    with pytest.raises(OutageError):
        check_folder(s3.uri("photos"))
