"""The same files behind an address and in a folder are the same data set; what is wrong with an address is named."""

from __future__ import annotations

import csv
import errno
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness.object_store import KEY, S3, SECRET

from raycls.config.sections.data import DataConfig, SourceConfig
from raycls.data.source import Dataset, open_dataset
from raycls.data.sources.folder import folder
from raycls.data.sources.listing.manifest import manifest
from raycls.data.sources.remote import address as addresses
from raycls.data.sources.remote.address import Address, parse
from raycls.data.sources.remote.objects import Objects
from raycls.errors import ConfigError, DataError, OutageError, RayclsError
from raycls.run.storage import retry

_NAMES = ("cat/1.png", "cat/deep/down/2.JPG", "ü owl/a+%20b c.png", "ü owl/#3?x.png", "Bird/4.gif", "Bird/10.gif")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Files of three classes with names that an address could misread; each holds its own name."""
    for name in _NAMES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "photos"


def opened(path: object, name: str = "folder", **args: object) -> Dataset:
    """The data set with all samples in `train`."""
    source = SourceConfig(name=name, path=str(path), args=args)
    config = DataConfig(source=source)
    return open_dataset(
        config.model_copy(update={"split": config.split.model_copy(update={"train": 1.0, "val": 0.0, "test": 0.0})})
    )


def same(a: Dataset, b: Dataset) -> bool:
    return (a.fingerprint, a.classes) == (b.fingerprint, b.classes)


def test_a_folder_behind_an_address_is_the_data_set_that_it_is_here(photos: Path, s3: S3) -> None:
    s3.upload(photos, "some data/photos")
    here, there = opened(photos), opened(s3.uri("some%20data/photos"))
    assert same(here, there)
    train = there.splits["train"]
    assert [train.reader.read(row) for row in range(6)] == [train.key(row).encode() for row in range(6)]
    assert train.locate(0) == f"s3://bucket/some data/photos/{train.key(0)}"
    assert isinstance(train.reader, Objects)
    assert train.reader.sizes().tolist() == [len(train.key(row).encode()) for row in range(6)]


def test_splits_ignored_files_and_strangers_are_those_of_a_folder(tmp_path: Path, s3: S3) -> None:
    for name in (
        "train/a/1.png",
        "train/b/2.png",
        "dev/b/3.png",
        "dev/a/4.png",
        "dev/a/notes.txt",
        "dev/.x",
        "Thumbs.db",
    ):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    s3.upload(tmp_path / "data", "data")
    found: list[RayclsError] = []
    for place in (tmp_path / "data", s3.uri("data")):
        with pytest.raises(DataError) as raised:
            folder(place)
        found.append(raised.value)
        samples = folder(place, ignore="*.txt")
        assert {name: [samples.keys[row] for row in rows] for name, rows in (samples.splits or {}).items()} == {
            "train": ["train/a/1.png", "train/b/2.png"],
            "val": ["dev/a/4.png", "dev/b/3.png"],
        }
    here, there = (error.to_dict() for error in found)
    assert there == {**here, "where": "s3://bucket/data"}


@pytest.mark.parametrize("way", ["beside", "root", "addresses", "listed here"])
def test_a_manifest_finds_its_images_behind_an_address(photos: Path, s3: S3, way: str) -> None:
    s3.upload(photos, "photos")
    here = photos.parent / "labels.csv"
    prefix = {"beside": "photos/", "root": "", "addresses": "s3://bucket/photos/", "listed here": "s3://bucket/photos/"}
    with here.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "camera"])
        rows.writerows(
            [prefix[way] + name, name.split("/")[0], "x"] for name in _NAMES if way == "beside" or "?" not in name
        )
    s3.client.put_object(Bucket="bucket", Key="labels.csv", Body=here.read_bytes())
    if way in ("beside", "root"):
        args = {"root": s3.uri("photos")} if way == "root" else {}
        local = manifest(here, **({"root": str(photos)} if way == "root" else {}))
        remote = manifest(s3.uri("labels.csv"), about=["camera"], **args)
        assert remote.about["camera"][0] == "x"
        assert list(local.keys) == list(remote.keys)
        assert (list(local.classes), np.asarray(local.labels).tolist()) == (
            list(remote.classes),
            np.asarray(remote.labels).tolist(),
        )
        wanted = [(photos.parent if way == "beside" else photos) / key for key in local.keys]
    elif way == "addresses":
        remote = manifest(s3.uri("labels.csv"))
        wanted = [photos / key.removeprefix("s3://bucket/photos/") for key in remote.keys]
    else:
        remote = manifest(here, root=s3.uri(""))
        wanted = [photos / key.removeprefix("s3://bucket/photos/") for key in remote.keys]
    assert [remote.reader.read(row) for row in range(len(remote.keys))] == [path.read_bytes() for path in wanted]


def test_addresses_in_a_local_manifest_need_no_root(photos: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.upload(photos, "photos")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3.proxy.port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(addresses, "_connected", {})
    file = photos.parent / "labels.csv"
    file.write_text("path,label\ns3://bucket/photos/cat/1.png,cat\ns3://bucket/photos/Bird/4.gif,bird\n")
    samples = manifest(file)
    assert [samples.reader.read(row) for row in (0, 1)] == [b"cat/1.png", b"Bird/4.gif"]
    with file.open("a") as more:
        more.write("photos/cat/1.png,cat\n")
    with pytest.raises(DataError, match="some of the listed paths are addresses"):
        manifest(file)


def test_listed_objects_that_are_not_there_are_named(photos: Path, s3: S3) -> None:
    s3.upload(photos, "photos")
    text = "path,label\nphotos/cat/1.png,cat\nphotos/Bird/4.gif,bird\nphotos/cat/none.png,cat\n../x.png,bird\n"
    s3.client.put_object(Bucket="bucket", Key="labels.csv", Body=text.encode())
    with pytest.raises(DataError) as raised:
        manifest(s3.uri("labels.csv"))
    error = raised.value
    assert error.where == "s3://bucket/labels.csv:4" and "photos/cat/none.png (line 4)" in str(error.found)
    assert "2 of 4" in error.what


def test_a_folder_that_is_not_there(s3: S3) -> None:
    with pytest.raises(DataError) as raised:
        folder(s3.uri("nowhere"))
    assert raised.value.where == "s3://bucket/nowhere" and raised.value.fix == "check data.source.path"


def test_a_reader_travels_without_its_connection_and_without_credentials(photos: Path, s3: S3) -> None:
    s3.upload(photos, "photos")
    samples = folder(s3.uri("photos"))
    samples.reader.read(0)
    data = pickle.dumps(samples.reader)
    assert KEY.encode() not in data and SECRET.encode() not in data
    again = pickle.loads(data)
    assert isinstance(again, Objects) and again.read(1) == samples.keys[1].encode()
    assert len(data) < 2000


def test_credentials_in_an_address_are_refused_and_not_shown(tmp_path: Path) -> None:
    uri = f"s3://{KEY}:{SECRET.replace('/', '%2F')}@bucket/photos"
    with pytest.raises(ConfigError) as raised:
        folder(uri)
    file = tmp_path / "labels.csv"
    file.write_text(f"path,label\n{uri}/1.png,cat\n{uri}/2.png,dog\n")
    with pytest.raises(ConfigError) as listed:
        manifest(file)
    for error in (raised.value, listed.value):
        assert KEY not in str(error) and "canary" not in str(error)


@pytest.mark.parametrize(
    "fault, kind, fact",
    [
        ("403 AccessDenied", DataError, "no permission"),
        ("403 InvalidAccessKeyId", DataError, "AWS_ACCESS_KEY_ID"),
        ("301 PermanentRedirect", DataError, "region="),
        ("503 SlowDown", OutageError, "does not answer"),
        ("refuse", OutageError, "rerun the command to resume"),
    ],
)
def test_what_the_server_says_decides_the_error(
    photos: Path, s3: S3, monkeypatch: pytest.MonkeyPatch, fault: str, kind: type[RayclsError], fact: str
) -> None:
    monkeypatch.setattr(retry, "DEADLINE", 0.0)
    s3.upload(photos, "photos")
    samples = folder(s3.uri("photos"))
    s3.proxy.fail_from(0, fault)
    for ask in (lambda: samples.reader.read(0), lambda: folder(s3.uri("photos"))):
        with pytest.raises(kind) as raised:
            ask()
        assert type(raised.value) is kind and fact in str(raised.value)
        assert str(raised.value.where).startswith("s3://bucket/photos")
        assert KEY not in str(raised.value)
    s3.proxy.reset()
    assert samples.reader.read(0) == samples.keys[0].encode()


def test_an_outage_is_no_fault_of_the_sample(photos: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DEADLINE", 0.0)
    s3.upload(photos, "photos")
    train = opened(s3.uri("photos")).splits["train"]
    s3.client.delete_object(Bucket="bucket", Key=f"photos/{train.key(1)}")
    with pytest.raises(DataError) as gone:
        train.encoded(1)
    assert type(gone.value) is DataError and "leave it out" in str(gone.value.fix)
    s3.proxy.fail_from(0)
    with pytest.raises(OutageError) as away:
        train.encoded(0)
    assert "leave it out" not in str(away.value.fix)
    assert isinstance(away.value.__cause__, OSError) and away.value.__cause__.errno != errno.ENOENT


@pytest.mark.parametrize(
    "uri, store, shown",
    [
        ("s3://b/a/p%20q?region=eu", "s3://b?region=eu", "s3://b/a/p q"),
        ("gs://b/x/", "gs://b", "gs://b/x"),
        (
            "abfs://c@acc.dfs.core.windows.net/x",
            "abfs://c@acc.dfs.core.windows.net",
            "abfs://c@acc.dfs.core.windows.net/x",
        ),
        ("s3://anonymous@b", "s3://anonymous@b", "s3://anonymous@b"),
    ],
)
def test_addresses(uri: str, store: str, shown: str) -> None:
    address = parse(uri, where="data.source.path")
    assert (address.store, str(address)) == (store, shown)
    assert str(address.at("q/../r.png")) == f"{shown}/r.png"
    other = address.at("s3://other/p%20q.png")
    assert other == Address("s3", "other", "p%20q.png", address.options if address.scheme == "s3" else "")
    assert address.at("s3://b/x?region=us").options == "region=us"
    assert replace(address, options="").at("").path == address.path
