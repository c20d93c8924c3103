"""Damaged files of every kind: each is read, or refused in raycls's own words, and never takes the process with it."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from faults import fuzz


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_undamaged_files_are_read(kind: str) -> None:
    if kind.startswith("image "):
        assert fuzz.read_image(fuzz.images()[kind.removeprefix("image ")]) == "image"
        return
    whole = fuzz.whole(kind)
    with tempfile.TemporaryDirectory() as folder:
        whole.put(Path(folder), {})
        pool = whole.open(Path(folder))
        assert len(pool.labels) >= 3
        assert all(len(pool.reader.read(row)) for row in range(len(pool.labels)))


def test_a_few_hundred_damaged_files() -> None:
    found = Counter(fuzz.case(number) for number in range(200))
    assert {"image", "read", "refused", "not opened"} == set(found)
    assert found["read"] > 2 * found["not opened"]  # most cases get as far as the readers


def test_blows_change_files() -> None:
    data = bytes(range(256)) * 4
    assert sum(fuzz.damaged(data, random.Random(number)) != data for number in range(50)) >= 45


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_twenty_thousand_damaged_files() -> None:
    found = fuzz.play(0, 20_000)
    assert not found.wrong, "\n".join(found.wrong)
    assert sum(found.counts.values()) == 20_000
    assert found.slowest < fuzz.SECONDS and found.most < fuzz.BYTES
