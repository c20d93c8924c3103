"""Repeated augmentation against a slow order of plain lists, written from its definition."""

from __future__ import annotations

import numpy as np
import pytest

from raycls.data.order import Order, key, permutation
from raycls.data.orders.repeated import Repeated


def _slow(seed: int, epoch: int, count: int, repeats: int) -> list[tuple[int, int]]:
    """(sample, how often it came before in the epoch) of each position."""
    cycle = [sample for sample in permutation(count, seed, epoch // repeats).tolist() for _ in range(repeats)]
    ids = cycle[epoch % repeats * count :][:count]
    return [(sample, ids[:place].count(sample)) for place, sample in enumerate(ids)]


_SHAPES = [(1, 1, 1, 2), (10, 4, 2, 3), (65, 24, 4, 3), (64, 64, 3, 4), (7, 3, 3, 9)]


@pytest.mark.parametrize(("count", "batch_size", "micro", "repeats"), _SHAPES)
def test_it_is_the_slow_one(count: int, batch_size: int, micro: int, repeats: int) -> None:
    order = Repeated(5, count, batch_size, micro, repeats=repeats)
    for epoch in range(2 * repeats + 1):
        expected, found = _slow(5, epoch, count, repeats), []
        for step in range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch):
            keys = order.slice_keys(step, 0, 1)
            assert [sample for _, _, sample in keys] == order.batch(step).tolist()
            assert {now for _, now, _ in keys} == {epoch}
            found += keys
        seeds = [key(5, view) if view else 5 for _, view in expected]
        assert found == [(seed, epoch, sample) for seed, (sample, _) in zip(seeds, expected, strict=True)]
        assert len(set(found)) == count, "two samples of an epoch are augmented alike"


@pytest.mark.parametrize(("count", "batch_size", "micro", "repeats"), _SHAPES)
def test_each_cycle_has_every_sample_so_many_times(count: int, batch_size: int, micro: int, repeats: int) -> None:
    order = Repeated(5, count, batch_size, micro, repeats=repeats)
    for cycle in range(2):
        ids = np.concatenate([order.epoch_ids(cycle * repeats + epoch) for epoch in range(repeats)])
        assert np.bincount(ids, minlength=count).tolist() == [repeats] * count
    assert order.steps_per_epoch == Order(5, count, batch_size, micro).steps_per_epoch


@pytest.mark.parametrize("left_out", [(), (2, 9)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_slices_of_any_world_are_those_of_one(world: int, left_out: tuple[int, ...]) -> None:
    order = Repeated(5, 20, 8, 3, left_out, repeats=3)
    whole = Repeated(5, 20, 8, 3, repeats=3)
    for step in range(9):
        keys = order.slice_keys(step, 0, 1)
        assert [each for rank in range(world) for each in order.slice_keys(step, rank, world)] == keys
        assert keys == [each for each in whole.slice_keys(step, 0, 1) if each[2] not in left_out]
        assert order.rows(step) == len(keys)
