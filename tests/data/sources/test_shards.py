"""Samples are numbered through the files that hold them, and each file is opened once per process."""

from __future__ import annotations

import pickle

import pytest

from raycls.data.sources.shards import Place, Shards


def test_samples_are_numbered_through_the_shards() -> None:
    shards = Shards.of([2, 0, 3])
    assert [shards.place(index) for index in range(5)] == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]
    assert [shards.count(shard) for shard in range(3)] == [2, 0, 3]
    assert shards.total == 5
    assert shards.place(4) == Place(shard=2, row=2)


@pytest.mark.parametrize(
    ("first", "last", "rows"), [(0, 1, [0, 1]), (1, 2, []), (0, 3, [0, 1, 2, 3, 4]), (2, 3, [2, 3, 4])]
)
def test_the_samples_of_some_shards(first: int, last: int, rows: list[int]) -> None:
    assert Shards.of([2, 0, 3]).rows(first, last).tolist() == rows


def test_a_shard_is_loaded_once_and_does_not_travel() -> None:
    shards, loaded = Shards.of([1, 1]), []

    def load(shard: int) -> bytes:
        loaded.append(shard)
        return b"x" * 10_000

    assert [len(shards.content(shard, load)) for shard in (1, 1, 0, 1)] == [10_000] * 4
    assert loaded == [1, 0]
    data = pickle.dumps(shards)
    assert len(data) < 200
    assert pickle.loads(data) == shards and not pickle.loads(data).opened
