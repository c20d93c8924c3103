"""The balanced order against a slow one, written from its definition, and against what it promises."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from raycls.data.order import Order, hashes, key, permutation
from raycls.data.orders.balanced import Balanced, Labels, drawn

_CLASSES = 0x636C6173736573

LABELS = {
    "long tail": np.repeat([0, 1, 2, 3], [40, 13, 4, 1]),
    "one missing": np.repeat([0, 2, 5], [7, 30, 2]),
    "even": np.arange(60) % 4,
    "one class": np.zeros(9, np.int64),
    "two samples": np.array([1, 0]),
}


def _order(labels: np.ndarray, seed: int = 3, batch: int = 8, out: tuple[int, ...] = ()) -> Balanced:
    shuffled = labels[np.random.RandomState(0).permutation(len(labels))]
    return Balanced(seed, len(labels), batch, 4, out, labels=Labels(shuffled))


def _slow(order: Balanced, epochs: int) -> list[list[int]]:
    """The samples of each epoch: draw after draw of each class from rounds, each sorted by its hashes."""
    assert order.labels is not None
    labels = order.labels.array.tolist()
    classes = sorted(set(labels))
    taken = dict.fromkeys(classes, 0)
    result: list[list[int]] = []
    for epoch in range(epochs):
        chosen: list[int] = []
        for index, name in enumerate(classes):
            members = [sample for sample, label in enumerate(labels) if label == name]
            while taken[name] < ((epoch + 1) * len(labels) + index) // len(classes):
                turn, place = divmod(taken[name], len(members))
                begin = turn * len(members)
                values = hashes(begin, begin + len(members), order.seed, _CLASSES, name).tolist()
                chosen.append([member for _, member in sorted(zip(values, members, strict=True))][place])
                taken[name] += 1
        result.append([chosen[position] for position in permutation(len(labels), order.seed, epoch).tolist()])
    return result


@pytest.mark.parametrize("name", LABELS)
def test_an_epoch_is_the_slow_one(name: str) -> None:
    order = _order(LABELS[name])
    for epoch, expected in enumerate(_slow(order, 5)):
        assert order.epoch_ids(epoch).tolist() == expected
        seen: Counter[int] = Counter()
        for sample, before in zip(expected, order.epoch_views(epoch).tolist(), strict=True):
            assert before == seen[sample]
            seen[sample] += 1


@pytest.mark.parametrize("name", LABELS)
def test_classes_come_equally_often_and_their_samples_in_turn(name: str) -> None:
    order = _order(LABELS[name])
    assert order.labels is not None
    labels, total = order.labels.array, np.zeros(len(LABELS[name]), np.int64)
    classes = np.unique(labels)
    for epoch in range(12):
        per_class = np.bincount(labels[order.epoch_ids(epoch)], minlength=labels.max() + 1)[classes]
        assert per_class.sum() == len(labels) and np.ptp(per_class) <= 1
        total += np.bincount(order.epoch_ids(epoch), minlength=len(labels))
        assert all(np.ptp(total[labels == each]) <= 1 for each in classes)
        sums = [total[labels == each].sum() for each in classes]
        assert sums == [drawn(len(labels), len(classes), index, epoch + 1) for index in range(len(classes))]


@pytest.mark.parametrize("out", [(), (0, 5, 17, 57)])
def test_ranks_share_the_batches_whatever_their_number(out: tuple[int, ...]) -> None:
    order = _order(LABELS["long tail"], out=out)
    assert order.labels is not None
    for step in range(2 * order.steps_per_epoch):
        whole = order.slice_keys(step, 0, 1)
        assert [sample for _, _, sample in whole] == order.batch(step).tolist()
        assert not set(out) & set(order.batch(step).tolist())
        for world in (2, 3, 4):
            assert whole == [item for rank in range(world) for item in order.slice_keys(step, rank, world)]


def test_left_out_samples_leave_every_other_one_in_its_place() -> None:
    order, without = _order(LABELS["long tail"]), _order(LABELS["long tail"], out=(3, 20))
    for step in range(3 * order.steps_per_epoch):
        kept = [item for item in order.slice_keys(step, 0, 1) if item[2] not in (3, 20)]
        assert without.slice_keys(step, 0, 1) == kept


def test_a_sample_that_comes_again_in_an_epoch_has_another_key() -> None:
    order = _order(LABELS["long tail"])
    keys = [item for step in range(order.steps_per_epoch) for item in order.slice_keys(step, 0, 1)]
    assert len(set(keys)) == len(keys) == 58
    often = Counter(sample for _, _, sample in keys)
    ((sample, times),) = often.most_common(1)
    assert times == 15  # 58 positions for four classes, the last one of a single sample
    seeds = [seed for seed, _, each in keys if each == sample]
    assert seeds == [3, *(key(3, time) for time in range(1, 15))]


def test_the_plain_order_has_the_keys_it_always_had() -> None:
    order = Order(7, 30, 8, 4)
    assert order.slice_keys(5, 1, 2) == [(7, 1, sample) for sample in order.slice_ids(5, 1, 2).tolist()]


def test_without_labels_there_are_steps_and_no_samples() -> None:
    order = Balanced(0, 20, 8, 2)
    assert (order.steps_per_epoch, order.rows(2)) == (3, 4)
    with pytest.raises(ValueError, match="without labels"):
        order.batch(0)
