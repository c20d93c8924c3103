"""`data.shuffle: window` and `none` against a slow order of plain lists, and the guarantees of every order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from raycls.config.load import from_dict
from raycls.config.sections.run import Run
from raycls.data.order import Order, hashes, permutation
from raycls.data.orders.windowed import _WITHIN, Windowed
from raycls.errors import ConfigError
from raycls.session.data.labelled import _shuffled
from raycls.train.plan import Plan


def _slow(seed: int, epoch: int, count: int, chunk: int, window: int) -> list[int]:
    chunks = [[*range(start, min(start + chunk, count))] for start in range(0, count, chunk)]
    line = [sample for number in permutation(len(chunks), seed, epoch).tolist() for sample in chunks[number]]
    moved = [(value >> 1) % (window * 2**20) for value in hashes(0, count, seed, epoch, _WITHIN).tolist()]
    places = sorted(range(count), key=lambda place: (place * 2**20 + moved[place], place))
    return [line[place] for place in places]


@pytest.mark.parametrize(
    ("count", "chunk", "window"), [(1, 1, 1), (10, 3, 6), (65, 8, 16), (64, 100, 100), (200, 1, 7)]
)
def test_it_is_the_slow_one_and_has_each_sample_once(count: int, chunk: int, window: int) -> None:
    order = Windowed(5, count, 8, 2, chunk=chunk, window=window)
    for epoch in range(3):
        found = order.epoch_ids(epoch).tolist()
        assert found == _slow(5, epoch, count, chunk, window)
        assert sorted(found) == [*range(count)]


def test_a_sample_is_moved_by_less_than_the_window_and_few_chunks_are_open() -> None:
    chunk, window = 16, 64
    for epoch in range(4):
        ids = Windowed(1, 4000, 32, 4, chunk=chunk, window=window).epoch_ids(epoch)
        line = [*dict.fromkeys((permutation(250, 1, epoch)).tolist())]
        place = {number * chunk + at: rank * chunk + at for rank, number in enumerate(line) for at in range(chunk)}
        moved = np.array([place[sample] for sample in ids.tolist()]) - np.arange(4000)
        assert np.abs(moved).max() < window
        assert np.abs(moved).mean() > window / 8  # it does mix
        numbers = ids // chunk
        first = {number: int(np.flatnonzero(numbers == number)[0]) for number in range(250)}
        last = {number: int(np.flatnonzero(numbers == number)[-1]) for number in range(250)}
        opened = [sum(first[each] <= at <= last[each] for each in range(250)) for at in range(0, 4000, 50)]
        assert max(opened) <= 2 * window // chunk + 2


@pytest.mark.parametrize("left_out", [(), (2, 9)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_slices_of_any_world_are_those_of_one(world: int, left_out: tuple[int, ...]) -> None:
    order = Windowed(5, 20, 8, 3, left_out, chunk=4, window=8)
    whole = Windowed(5, 20, 8, 3, chunk=4, window=8)
    for step in range(9):
        keys = order.slice_keys(step, 0, 1)
        assert [each for rank in range(world) for each in order.slice_keys(step, rank, world)] == keys
        assert keys == [each for each in whole.slice_keys(step, 0, 1) if each[2] not in left_out]


def test_epochs_are_hardly_alike_and_none_are_without_shuffling() -> None:
    order = Windowed(0, 50_000, 256, 4, chunk=256, window=16 * 256)
    places = [np.argsort(order.epoch_ids(epoch)) for epoch in range(4)]
    assert all(abs(spearmanr(places[0], places[epoch]).statistic) < 0.25 for epoch in (1, 2, 3))
    still = Windowed(0, 50, 8, 4)
    assert still.epoch_ids(0).tolist() == still.epoch_ids(7).tolist() == [*range(50)]


def _plan(run: Run) -> Plan:
    plan = Plan(3, 100, 2, 8, 2, 13, 26, 1, 1, 10, 8, 1, 0.0, 0.0)
    return _shuffled(run, plan)


def test_the_plan_says_the_order_and_the_default_is_as_it_was() -> None:
    assert _plan(from_dict({})).order == Order(3, 100, 8, 2)
    assert "shuffle" not in _plan(from_dict({})).to_dict()
    window = _plan(from_dict({"data": {"shuffle": "window", "shuffle_chunk": 5, "shuffle_window": 3}}))
    assert window.order == Windowed(3, 100, 8, 2, chunk=5, window=15)
    assert Plan.from_dict(window.to_dict()).order == window.order
    none = _plan(from_dict({"data": {"shuffle": "none"}}))
    assert none.order.epoch_ids(4).tolist() == [*range(100)]
    for other in (
        {"data": {"shuffle": "none", "repeats": 2}},
        {"data": {"shuffle": "none"}, "loss": {"balance": "sampler"}},
    ):
        with pytest.raises(ConfigError, match="one order of its samples"):
            _plan(from_dict(other))
