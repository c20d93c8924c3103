"""Packed keys behave like a list of texts, and files are read or named in the error."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from raycls.data.samples import Files, Keys
from raycls.errors import DataError

TEXTS = ["a/1.png", "", "größe/\N{SNOWMAN}.jpg", "line\nbreak, comma.png", os.fsdecode(b"latin-\xe9.jpg")]


def test_keys_are_the_texts() -> None:
    keys = Keys(TEXTS)
    assert len(keys) == 5
    assert list(keys) == TEXTS
    assert [keys[index] for index in range(5)] == TEXTS
    assert keys[-1] == TEXTS[-1]
    assert list(keys[1:4]) == TEXTS[1:4]
    assert list(keys.take(np.array([4, 0, 0]))) == [TEXTS[4], TEXTS[0], TEXTS[0]]
    assert list(Keys([])) == []
    for outside in (5, -6):
        with pytest.raises(IndexError):
            keys[outside]


def test_keys_survive_pickling_and_stay_small() -> None:
    keys = Keys(f"n{index // 1300:08d}/n{index // 1300:08d}_{index}.JPEG" for index in range(20_000))
    data = pickle.dumps(keys)
    assert len(data) < 20_000 * 50
    assert list(pickle.loads(data)) == list(keys)
    assert list(pickle.loads(pickle.dumps(Keys(TEXTS)))) == TEXTS


def test_boundaries_count_in_the_digest() -> None:
    assert Keys(["ab", "c"]).digest_parts() != Keys(["a", "bc"]).digest_parts()


def test_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"123")
    files = Files(str(tmp_path), Keys(["gone", "a/x"]))
    assert files.read(1) == b"123"
    assert files.take(np.array([1])).read(0) == b"123"
    with pytest.raises(DataError, match="No such file") as caught:
        files.read(0)
    assert caught.value.where == str(tmp_path / "gone")
