"""The order of samples against a slow one, written from its definition with plain lists and integers."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from raycls.data.order import Order, key, part, permutation

_GAMMA, _MASK = 0x9E3779B97F4A7C15, 2**64 - 1


def _split_mix(seed: int) -> Iterator[int]:
    """SplitMix64 as in the paper: a counter that grows by the golden gamma, and a mixer."""
    while True:
        seed = (seed + _GAMMA) % 2**64
        value = seed
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
        yield value ^ value >> 31


def _slow_key(*numbers: int) -> int:
    state = next(_split_mix(len(numbers)))
    for number in numbers:
        state = next(_split_mix(state ^ (number % 2**64)))
    return state


def _slow_permutation(count: int, *numbers: int) -> list[int]:
    hashes = itertools.islice(_split_mix((_slow_key(*numbers) - _GAMMA) % 2**64), count)
    return [position for _, position in sorted((value, position) for position, value in enumerate(hashes))]


def _slow_epoch(seed: int, epoch: int, count: int, batch_size: int) -> list[list[int]]:
    """The global batches of one epoch."""
    left, batches = _slow_permutation(count, seed, epoch), []
    while left:
        batches.append(left[:batch_size])
        left = left[batch_size:]
    return batches


def _slow_parts(batch: list[int], parts: int) -> list[list[int]]:
    """`batch` cut into contiguous parts: row `r` of `n` is in the part `p` with `p*n//parts <= r < (p+1)*n//parts`."""
    bounds = [index * len(batch) // parts for index in range(parts + 1)]
    return [batch[start:stop] for start, stop in itertools.pairwise(bounds)]


def test_oracle_is_split_mix() -> None:
    # the reference values of the published C code (Vigna, splitmix64.c) for the seeds 1234567 and 0
    assert list(itertools.islice(_split_mix(1234567), 3)) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
    assert next(_split_mix(0)) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("numbers", [(), (0,), (1,), (0, 0), (7, 3, 12), (-1,), (2**63 - 1, 5), (1, -1, 2**64 + 1)])
def test_key_is_the_slow_one(numbers: tuple[int, ...]) -> None:
    assert key(*numbers) == _slow_key(*numbers)
    assert 0 <= key(*numbers) <= _MASK


def test_keys_are_distinct() -> None:
    numbers = [-1, 0, 1, 2, 3, 50, 255, 256, 1 << 31, 1 << 32]
    tuples = [combination for length in range(4) for combination in itertools.product(numbers, repeat=length)]
    assert len({key(*combination) for combination in tuples}) == len(tuples) == 1 + 10 + 100 + 1000


@pytest.mark.parametrize(("count", "numbers"), [(0, (1,)), (1, (0, 0)), (2, (3,)), (97, (0, 0)), (97, (5, 11))])
def test_permutation_is_the_slow_one(count: int, numbers: tuple[int, ...]) -> None:
    found = permutation(count, *numbers)
    assert found.dtype == np.int64
    assert found.tolist() == _slow_permutation(count, *numbers)
    assert sorted(found.tolist()) == list(range(count))


def test_permutations_are_equally_likely() -> None:
    # 24 permutations of four, 100 expected of each: chi-square with 23 degrees of freedom is 49.7 at p = 0.001
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(2400):
        found = tuple(permutation(4, 1, epoch).tolist())
        counts[found] = counts.get(found, 0) + 1
    assert len(counts) == 24
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 49.7


def test_epochs_and_seeds_differ() -> None:
    orders = [tuple(permutation(50, seed, epoch).tolist()) for seed in range(10) for epoch in range(10)]
    assert len(set(orders)) == 100


def test_order_is_the_same_in_another_process() -> None:
    code = "from raycls.data.order import Order; print(Order(3, 40, 16, 4).batch(4).tolist())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == str(Order(3, 40, 16, 4).batch(4).tolist())


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [0, 1, 3, 6, 64, 65])
def test_parts_are_contiguous_and_nearly_equal(count: int, parts: int) -> None:
    found = [part(count, index, parts) for index in range(parts)]
    assert [row for rows in found for row in rows] == list(range(count))
    assert max(map(len, found)) - min(map(len, found)) <= 1


_SHAPES = [(1, 1, 1), (7, 3, 3), (64, 64, 4), (65, 64, 3), (101, 32, 4), (101, 32, 7), (60, 20, 20)]


@pytest.mark.parametrize(("count", "batch_size", "micro"), _SHAPES)
def test_batches_are_the_slow_ones(count: int, batch_size: int, micro: int) -> None:
    order = Order(9, count, batch_size, micro)
    step = 0
    for epoch in range(3):
        for batch in _slow_epoch(9, epoch, count, batch_size):
            assert order.epoch(step) == epoch
            assert order.rows(step) == len(batch)
            assert order.batch(step).tolist() == batch
            parts = _slow_parts(batch, micro)
            assert [order.micro(step, index).tolist() for index in range(micro)] == parts
            assert order.first_filled(step) == next(index for index, rows in enumerate(parts) if rows)
            step += 1
    assert step == 3 * order.steps_per_epoch


@pytest.mark.parametrize(("count", "batch_size", "micro"), _SHAPES)
def test_slices_of_any_world_partition_the_batch(count: int, batch_size: int, micro: int) -> None:
    order = Order(2, count, batch_size, micro)
    for step in range(2 * order.steps_per_epoch):
        parts = _slow_parts(order.batch(step).tolist(), micro)
        for world in range(1, micro + 1):
            slices, owned = [], []
            for rank in range(world):
                mine = list(order.owned(rank, world))
                assert mine, f"rank {rank} of {world} has nothing to do"
                assert order.slice_ids(step, rank, world).tolist() == [row for index in mine for row in parts[index]]
                owned += mine
                slices += order.slice_ids(step, rank, world).tolist()
            assert owned == list(range(micro))
            assert slices == order.batch(step).tolist()


def test_every_epoch_has_every_sample_once() -> None:
    order = Order(4, 1003, 64, 3)
    assert order.steps_per_epoch == 16  # 15 batches of 64, then 43
    assert order.rows(15) == 43
    for epoch in range(2):
        ids = [row for step in range(16 * epoch, 16 * epoch + 16) for row in order.batch(step).tolist()]
        assert sorted(ids) == list(range(1003))


def test_a_batch_may_be_changed_by_its_reader() -> None:
    order = Order(0, 10, 10, 1)
    before = order.batch(0).tolist()
    order.batch(0)[:] = -1
    assert order.batch(0).tolist() == before


@pytest.mark.parametrize("left_out", [(), (3,), (0, 9, 22), tuple(range(0, 23, 2))])
@pytest.mark.parametrize("micro_batches", [1, 3, 8])
def test_samples_that_are_left_out_leave_a_gap(left_out: tuple[int, ...], micro_batches: int) -> None:
    whole, order = Order(7, 23, 6, micro_batches), Order(7, 23, 6, micro_batches, left_out)
    for step in range(3 * whole.steps_per_epoch):
        expected = [index for index in whole.batch(step).tolist() if index not in left_out]
        assert order.batch(step).tolist() == expected
        assert (order.rows(step), order.epoch(step)) == (len(expected), whole.epoch(step))
        parts = [order.micro(step, micro) for micro in range(micro_batches)]
        assert np.concatenate(parts).tolist() == expected
        for world in range(1, micro_batches + 1):
            slices = [order.slice_ids(step, rank, world) for rank in range(world)]
            assert np.concatenate(slices).tolist() == expected
    kept = [index for index in range(23) if index not in left_out]
    assert order.places(np.array(kept)).tolist() == list(range(len(kept)))
    assert order.present(np.arange(23)).tolist() == [index in kept for index in range(23)]


def test_fewest_rows() -> None:
    assert Order(7, 23, 6, 2).fewest_rows(0, 12) == 5
    batches = [Order(7, 23, 6, 2).batch(step).tolist() for step in range(12)]
    order = Order(7, 23, 6, 2, tuple(sorted(batches[5][:5] + batches[2])))  # and by chance what these are in elsewhere
    kept = [sum(index not in order.left_out for index in batch) for batch in batches]
    for start, stop in ((0, 4), (4, 8), (8, 12), (0, 12)):
        assert order.fewest_rows(start, stop) == min(rows for rows in kept[start:stop] if rows)
