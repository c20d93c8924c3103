"""An order in which every class comes equally often: arithmetic on the seed, the epoch and the labels.

An epoch has as many positions as the plain order, so that steps, schedule and evaluations stay what they were. After e
epochs of n positions, class c of C (counted from 0) was drawn (e n + c) // C times; these numbers add up to e n
(Hermite's identity), and differ by at most one. The samples of a class are drawn in turn: round after round, each round
a permutation of its own, cut wherever an epoch ends. So after each epoch two samples of one class were drawn equally
often or once more: a rare class is repeated evenly, and of a frequent one no sample is forgotten.

A random sampler with replacement promises neither. Classes without samples are left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from raycls.data.order import Order, hashes, permutation

__all__ = ["Balanced", "Labels", "drawn"]

_CLASSES = 0x636C6173736573
"""Sets the hashes of a class apart from those of an epoch; any number would do."""


class Labels:
    """The class of each sample, `[N] int64`, comparable and hashable by content."""

    def __init__(self, labels: np.ndarray) -> None:
        self.array = np.ascontiguousarray(labels, np.int64)
        self._digest = hashlib.sha256(self.array.tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Labels) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def counts(self, classes: int) -> tuple[int, ...]:
        """The samples of each class."""
        return tuple(np.bincount(self.array, minlength=classes).tolist())


@dataclass(frozen=True)
class Balanced(Order):
    """The order of a balanced sampler; see the module's docstring. Its samples are as many as its `labels`."""

    labels: Labels | None = field(default=None, repr=False)
    """None where only numbers of samples and steps are asked for."""

    def epoch_ids(self, epoch: int) -> np.ndarray:
        return self._epoch(epoch)[0]

    def epoch_views(self, epoch: int) -> np.ndarray:
        return self._epoch(epoch)[1]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if self.labels is None:
            raise ValueError("a balanced order without labels has no samples")
        return _drawn(self.seed, epoch, self.labels)


def drawn(count: int, classes: int, index: int, epochs: int) -> int:
    """How often class `index` of `classes` was drawn in the first `epochs` epochs of `count` positions."""
    return (epochs * count + index) // classes


@lru_cache(maxsize=4)
def _drawn(seed: int, epoch: int, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """The samples of an epoch and their views, as `Order.epoch_ids` and `Order.epoch_views` have them."""
    count, classes = len(labels.array), np.unique(labels.array)
    by_class = np.argsort(labels.array, kind="stable")
    ends = np.searchsorted(labels.array[by_class], classes, side="right")
    chosen: list[np.ndarray] = []
    for index, (label, members) in enumerate(zip(classes.tolist(), np.split(by_class, ends[:-1]), strict=True)):
        start, stop = (drawn(count, len(classes), index, epochs) for epochs in (epoch, epoch + 1))
        first, last = start // len(members), -(-stop // len(members))
        values = hashes(first * len(members), last * len(members), seed, _CLASSES, label)
        rounds = np.argsort(values.reshape(-1, len(members)), axis=1, kind="stable").ravel()
        begin = start - first * len(members)
        chosen.append(members[rounds[begin : begin + stop - start]])
    ids = np.concatenate(chosen)[permutation(count, seed, epoch)].astype(np.int64, copy=False)
    views = _times_before(ids)
    ids.flags.writeable = views.flags.writeable = False  # the cache hands the same arrays to everyone
    return ids, views


def _times_before(ids: np.ndarray) -> np.ndarray:
    """How many times each value occurs before its position, `[n] int64`."""
    order = np.argsort(ids, kind="stable")
    _, first, times = np.unique(ids[order], return_index=True, return_counts=True)
    before = np.empty(len(ids), np.int64)
    before[order] = np.arange(len(ids)) - np.repeat(first, times)
    return before
