"""Pixels that are kept are those that are decoded, in no more memory than allowed; refused where they do not fit."""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.errors import raised
from PIL import Image

from raycls.data.images.decoding import kept as module
from raycls.data.images.decoding.kept import Kept, free_memory, kept, share_of, size_in_memory
from raycls.data.source import Files, Keys, Split
from raycls.errors import ConfigError, DataError


class Counting:
    """A reader of files in memory that counts how often it is asked."""

    def __init__(self, files: list[Any]) -> None:
        self.files, self.asked = files, [0] * len(files)

    def read(self, index: int) -> Any:
        self.asked[index] += 1
        return self.files[index]

    def locate(self, index: int) -> str:
        return f"place {index}"


def _file(height: int, width: int, kind: str = "jpeg") -> bytes:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _split(files: list[Any], formats: tuple[str, ...] = ("jpeg", "png")) -> tuple[Split, Counting]:
    reader, count = Counting(files), len(files)
    keys = Keys(f"{index}.jpg" for index in range(count))
    return Split("train", ("a", "b"), np.zeros(count, np.int64), keys, reader, formats, 10**6, ignore=()), reader


def test_an_image_is_read_once_and_has_the_same_bytes() -> None:
    plain, _ = _split([_file(8, 9), _file(10, 7, "png")])
    split, reader = _split([_file(8, 9), _file(10, 7, "png")])
    remembered = kept(split, 10**6)
    for _ in range(3):
        for index in range(2):
            np.testing.assert_array_equal(remembered.pixels(index), np.asarray(plain.pixels(index)))
            np.testing.assert_array_equal(np.asarray(remembered.image(index)), np.asarray(plain.image(index)))
            np.testing.assert_array_equal(remembered.encoded(index), np.asarray(plain.image(index)))
    assert reader.asked == [1, 1]
    assert remembered.locate(1) == "place 1"
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(remembered.pixels(0))[0, 0, 0] = 1


def test_no_more_is_kept_than_allowed_and_the_rest_is_decoded_again() -> None:
    split, reader = _split([_file(8, 8), _file(9, 9), _file(4, 4)])
    remembered = kept(split, 8 * 8 * 3 + 4 * 4 * 3)
    for _ in range(2):
        for index in range(3):
            assert remembered.pixels(index).shape[0] == (8, 9, 4)[index]
    assert reader.asked == [1, 2, 1]
    assert isinstance(remembered.reader, Kept)
    assert remembered.reader.size == 8 * 8 * 3 + 4 * 4 * 3


def test_another_process_gets_no_pixels() -> None:
    split, _ = _split([_file(200, 200), _file(201, 200)])
    remembered = kept(split, 10**6)
    before = len(pickle.dumps(remembered))
    remembered.pixels(0)
    sent = pickle.dumps(remembered)
    assert len(sent) == before
    received = pickle.loads(sent)
    assert received.reader.size == 0
    np.testing.assert_array_equal(received.pixels(0), remembered.pixels(0))


def test_a_damaged_image_is_refused_in_the_same_words_each_time() -> None:
    split, _ = _split([_file(30, 30)[:200]])
    with pytest.raises(DataError) as wanted:
        split.pixels(0)
    for _ in range(2):
        with pytest.raises(DataError) as found:
            kept(split, 10**6).pixels(0)
        assert found.value.to_dict() == wanted.value.to_dict()


def test_arrays_are_not_kept_twice() -> None:
    pixels = np.zeros((5, 5, 3), np.uint8)
    split, reader = _split([pixels, pixels])
    assert size_in_memory(split) == 0
    remembered = kept(split, 10**6)
    remembered.pixels(0)
    remembered.pixels(0)
    assert isinstance(remembered.reader, Kept)
    assert (remembered.reader.size, reader.asked) == (0, [3, 0])


def test_sizes_are_estimated_from_a_few_files() -> None:
    split, reader = _split([_file(10, 20)] * 50 + [_file(30, 20, "png")] * 50)
    assert size_in_memory(split) == 100 * 20 * 20 * 3  # half of them 10, half of them 30 rows
    assert sum(reader.asked) <= 3 * 32
    damaged, _ = _split([b"\xff\xd8\xff" + bytes(9)])
    assert size_in_memory(damaged) == 0


def test_too_many_are_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    train, _ = _split([_file(64, 64)] * 100)  # 1,228,800 bytes
    val, _ = _split([_file(32, 32)] * 100)  # 307,200 bytes
    monkeypatch.setattr(module, "free_memory", lambda: 4 << 20)
    assert share_of({"train": train, "val": val}, 2) == (1_536_000, int(0.8 * (4 << 20) / 2))
    with raised(
        ConfigError,
        what="the decoded images do not fit into memory",
        where="data.cache",
        found="memory: 200 images take about 1.5 MiB in each of 3 processes that decode, 4.0 MiB are free",
        valid="at most 3.2 MiB together",
        fix=re.compile(r"^data\.cache=off; or train from smaller images, raycls pack CONFIG"),
    ):
        share_of({"train": train, "val": val}, 3)
    monkeypatch.setattr(module, "free_memory", lambda: None)
    assert share_of({"val": val}, 1000) == (307_200, 307_200)


def test_free_memory_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(module, "_GROUP", tmp_path)
    assert free_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert free_memory() == 5000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("3000\n")
    assert free_memory() == 5000 * 1024
    (tmp_path / "memory.max").write_text("10000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500\n")
    assert free_memory() == 10_000 - 3_000 + 500


def test_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(_file(6, 7))
    keys = Keys(["a.jpg"])
    files = Split("train", ("a", "b"), np.zeros(1, np.int64), keys, Files(str(tmp_path), keys), ("jpeg",), 1000)
    remembered = kept(files, 1000)
    first = remembered.pixels(0)
    (tmp_path / "a.jpg").unlink()
    np.testing.assert_array_equal(remembered.pixels(0), first)
    assert remembered.locate(0) == str(tmp_path / "a.jpg")
