"""What holds for any file that a reader takes: `hypothesis` draws the files, and shrinks one that breaks it."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, configuration, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from faults import fuzz
from raycls.config.sections.data import DataConfig, SourceConfig
from raycls.data.source import Pool, open_pool
from raycls.data.sources.packed.tar import Member, members
from raycls.data.sources.remote.places import Local
from raycls.data.sources.remote.stored import Stored
from raycls.errors import DataError, RayclsError

_DEFAULT, _NIGHTLY = 15, 1500

Property = Callable[[Any], None]


@pytest.fixture(scope="module", autouse=True)
def _home() -> Iterator[None]:
    """Nothing is kept from one run to the next: the default cases are the same ones each time."""
    with tempfile.TemporaryDirectory() as folder:
        configuration.set_hypothesis_home_dir(folder)
        yield


def _open(source: str, path: Path) -> Pool:
    return open_pool(DataConfig(source=SourceConfig(name=source, path=str(path))), least_classes=1)


_WORDS = st.text("abcXYZé日 ,;|\t\"'/.-", min_size=1, max_size=8).map(str.strip).filter(bool)


@dataclass(frozen=True)
class _Table:
    labels: list[str]
    delimiter: str
    encoding: str
    quoting: int
    end: str

    def csv(self) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=self.delimiter, quoting=self.quoting, lineterminator=self.end)  # pyright: ignore
        writer.writerows([["path", "label"], *([f"{at}.png", label] for at, label in enumerate(self.labels))])
        return text.getvalue().encode(self.encoding)

    def jsonl(self) -> bytes:
        lines = (json.dumps({"path": f"{at}.png", "label": label}) + "\n" for at, label in enumerate(self.labels))
        return "".join(lines).encode(self.encoding)


_TABLES = st.builds(
    _Table,
    st.lists(_WORDS, min_size=1, max_size=12),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
)


def a_manifest_says_what_its_table_says(table: _Table) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for at in range(len(table.labels)):
            (folder / f"{at}.png").touch()
        for file, data in (("data.csv", table.csv()), ("data.jsonl", table.jsonl())):
            (folder / file).write_bytes(data)
            pool = _open("manifest", folder / file)
            assert list(pool.keys) == [f"{at}.png" for at in range(len(table.labels))]
            assert [pool.classes[label] for label in pool.labels] == table.labels


_NAMES = st.text("ab/.é", min_size=1, max_size=12) | st.sampled_from(["x" * 120 + "/b.jpg", "y" * 300 + ".png"])
_MEMBERS = st.lists(st.tuples(_NAMES, st.binary(max_size=700)), min_size=1, max_size=6)
_FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
_BLOWS = st.none() | st.integers(0, 1 << 32)


def an_archive_has_the_members_that_tarfile_finds_or_is_refused(drawn: tuple[Any, int, int | None]) -> None:
    parts, form, blow = drawn
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, data in parts:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    data = stream.getvalue()
    data = data if blow is None else fuzz.damaged(data, random.Random(blow))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.tar").write_bytes(data)
        try:
            found = list(members(Stored.of(Local(folder), ["a.tar"]), 0, lambda name: True))
        except DataError:
            return
    for each in found:
        assert each.content == data[each.offset : each.offset + each.size]
        assert not each.name.startswith("/") and ".." not in each.name.split("/")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        told = [
            Member(_shown(each.name), each.offset_data, each.size) for each in archive if each.isreg() and each.size
        ]
    found = [Member(_shown(each.name), each.offset, each.size) for each in found if each.size]
    assert [each[1:] for each in found] == [each[1:] for each in told]
    if blow is None:
        assert found == told


def _shown(name: str) -> str:
    """A name without `./` before it; and without `/` after it, which `tarfile` takes from pax names alone."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name.rstrip("/")


_IMAGES = st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=9)


def a_parquet_file_gives_back_its_images(drawn: tuple[Sequence[bytes], Sequence[int | str], int, bool]) -> None:
    images, labels, group, embedded = drawn
    labels = [labels[at % len(labels)] for at in range(len(images))]
    values = [{"bytes": each, "path": None} for each in images] if embedded else list(images)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.parquet")
        parquet.write_table(pa.table({"image": values, "label": labels}), file, row_group_size=group)
        pool = _open("parquet", file)
        assert [pool.reader.read(row) for row in range(len(images))] == list(images)
        assert [pool.classes[label] for label in pool.labels] == [str(label) for label in labels]


def an_npz_gives_back_its_arrays(drawn: tuple[int, int, int, int]) -> None:
    count, side, channels, seed = drawn
    draw = np.random.default_rng(seed)
    shape = (count, side, side + 1, channels) if channels else (count, side, side + 1)
    pixels, labels = draw.integers(0, 256, shape).astype(np.uint8), draw.integers(0, 3, count)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "a.npz"), images=pixels, labels=labels)
        pool = _open("arrays", Path(folder, "a.npz"))
        for row in range(count):
            assert np.array_equal(np.asarray(pool.reader.read(row)).reshape(pixels[row].shape), pixels[row])
        assert [int(pool.classes[label]) for label in pool.labels] == labels.tolist()


_KINDS = st.sampled_from(sorted(fuzz.SOURCES))
_STARTS = (b"", b"PAR1", b"PK\x03\x04", b"ARROW1\0\0", b"\x80\x02}", b"{", b"path,label\n", b"\xff\xfe", b"\x1f\x8b")


def any_bytes_are_refused_by_every_source(drawn: tuple[str, bytes, bytes]) -> None:
    kind, start, rest = drawn
    whole = fuzz.whole(kind)
    with tempfile.TemporaryDirectory() as folder:
        whole.put(Path(folder), {whole.written.about[0]: start + rest})
        try:
            pool = whole.open(Path(folder))
        except RayclsError:
            return
        for row in range(len(pool.labels)):
            try:
                pool.reader.read(row)
            except RayclsError:
                continue


def numbers_in_a_file_may_be_any(drawn: tuple[str, int, int, str]) -> None:
    """Lengths and places are numbers of 4 and 8 bytes: each may be very large, negative or zero."""
    kind, at, value, form = drawn
    whole = fuzz.whole(kind)
    name = whole.written.about[at % len(whole.written.about)]
    data = bytearray(whole.files[name])
    size = struct.calcsize(form)
    if len(data) > size:
        place = at % (len(data) - size)
        struct.pack_into(form, data, place, value & ((1 << 8 * size) - 1))
    with tempfile.TemporaryDirectory() as folder:
        whole.put(Path(folder), {name: bytes(data)})
        try:
            pool = whole.open(Path(folder))
        except RayclsError:
            return
        for row in range(len(pool.labels)):
            try:
                found = pool.reader.read(row)
            except RayclsError:
                continue
            assert not whole.written.exact or fuzz.as_bytes(found) in whole.read


def an_image_is_decoded_or_refused_alike_by_all_decoders(drawn: tuple[str, int]) -> None:
    kind, blow = drawn
    fuzz.read_image(fuzz.damaged(fuzz.images()[kind], random.Random(blow)))


_SEEDS = st.integers(0, 1 << 32)
_NUMBERS = st.sampled_from([0, 1, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, -1]) | _SEEDS
PROPERTIES: tuple[tuple[Property, st.SearchStrategy[Any]], ...] = (
    (a_manifest_says_what_its_table_says, _TABLES),
    (an_archive_has_the_members_that_tarfile_finds_or_is_refused, st.tuples(_MEMBERS, _FORMATS, _BLOWS)),
    (
        a_parquet_file_gives_back_its_images,
        st.tuples(
            _IMAGES,
            st.lists(st.integers(0, 99), min_size=1, max_size=3) | st.lists(_WORDS, min_size=1, max_size=3),
            st.integers(1, 5),
            st.booleans(),
        ),
    ),
    (
        an_npz_gives_back_its_arrays,
        st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([0, 1, 3]), _SEEDS),
    ),
    (any_bytes_are_refused_by_every_source, st.tuples(_KINDS, st.sampled_from(_STARTS), st.binary(max_size=300))),
    (numbers_in_a_file_may_be_any, st.tuples(_KINDS, _SEEDS, _NUMBERS, st.sampled_from(["<I", "<Q", ">I"]))),
    (
        an_image_is_decoded_or_refused_alike_by_all_decoders,
        st.tuples(st.sampled_from(sorted(fuzz.images())), _SEEDS),
    ),
)


def _hold(holds: Property, files: st.SearchStrategy[Any], cases: int) -> None:
    unhurried = settings(
        max_examples=cases,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    unhurried(given(files)(holds))()


@pytest.mark.parametrize(("holds", "files"), PROPERTIES, ids=lambda each: getattr(each, "__name__", ""))
def test_a_few_files(holds: Property, files: st.SearchStrategy[Any]) -> None:
    _hold(holds, files, _DEFAULT)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("holds", "files"), PROPERTIES, ids=lambda each: getattr(each, "__name__", ""))
def test_many_files(holds: Property, files: st.SearchStrategy[Any]) -> None:
    _hold(holds, files, _NIGHTLY)
