"""Which sample is trained when: arithmetic on the seed and the position, and nothing else.

Three levels. An epoch is a permutation of the samples, a global batch the next `batch_size` positions of
it, and a micro-batch a contiguous part of the batch. A worker computes a contiguous range of micro-batches.
No level knows how many workers there are, which of them failed, or where a run was interrupted.

The hash is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014),
written out here because the streams of numpy's and torch's generators may change between their releases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

__all__ = ["Order", "hashes", "key", "part", "permutation"]

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(*numbers: int) -> int:
    """A 64-bit hash of a sequence of integers: the seed of whatever they name. Length and order count."""
    state = _mix(len(numbers) + _GAMMA)
    for number in numbers:
        state = _mix((state ^ (number & _MASK)) + _GAMMA)
    return state


def permutation(count: int, *numbers: int) -> np.ndarray:
    """The permutation of `0..count-1` that `numbers` name, `[count] int64`.

    Every position gets a hash and the hashes are sorted, so the result is the same with every release of
    numpy and on every machine.
    """
    return np.argsort(hashes(0, count, *numbers), kind="stable").astype(np.int64, copy=False)


def hashes(start: int, stop: int, *numbers: int) -> np.ndarray:
    """The hashes of the positions from `start` to `stop` of the sequence that `numbers` name, `[n] uint64`."""
    with np.errstate(over="ignore"):
        state = np.arange(start, stop, dtype=np.uint64) * np.uint64(_GAMMA) + np.uint64(key(*numbers))
        state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX_1)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX_2)
        return state ^ (state >> np.uint64(31))


def part(count: int, index: int, parts: int) -> range:
    """Part `index` of `0..count-1` cut into `parts` contiguous parts whose sizes differ by at most one."""
    return range(index * count // parts, (index + 1) * count // parts)


@dataclass(frozen=True)
class Order:
    """The order of `count` training samples. Steps are 0-based and run on over the epochs."""

    seed: int
    count: int
    batch_size: int
    micro_batches: int
    left_out: tuple[int, ...] = ()
    """Ids of samples that are not trained any more, ascending. Their places in the permutation stay empty: every other
    sample keeps its step."""
    together: int = 1
    """So many micro-batches in a row always have the same worker; `micro_batches` is a multiple of it."""
    holes: tuple[int, ...] = ()
    """Of the order of one step: rows of its global batch, ascending, whose samples are bad images and left out. Every
    other sample keeps its micro-batch."""

    def without(self, holes: tuple[int, ...]) -> Order:
        """This order in a step whose global batch has `holes`."""
        return replace(self, holes=holes) if holes else self

    def divided(self, parts: int) -> Order:
        """This order with each of its micro-batches in `parts` micro-batches: every sample keeps its worker."""
        return replace(self, micro_batches=self.micro_batches // self.together * parts, together=parts)

    @cached_property
    def _left_out(self) -> np.ndarray:
        return np.array(self.left_out, np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of one epoch; the last one may be short and is trained too."""
        return -(-self.count // self.batch_size)

    def epoch(self, step: int) -> int:
        """The epoch that `step` belongs to."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> np.ndarray:
        """Sample ids of the global batch of `step`, `[<= batch_size] int64`."""
        epoch, index = divmod(step, self.steps_per_epoch)
        start = index * self.batch_size
        ids = self.epoch_ids(epoch)[start : start + self.batch_size].copy()
        ids = ids[self.present(ids)] if self.left_out else ids
        return np.delete(ids, self.holes) if self.holes else ids

    def epoch_ids(self, epoch: int) -> np.ndarray:
        """The sample of each position of an epoch, those that are left out too, `[count] int64`, not to be changed."""
        return _epoch(self.seed, epoch, self.count)

    def epoch_views(self, epoch: int) -> np.ndarray | None:
        """How many times each position's sample was there before in the epoch, `[count] int64`; None: never."""
        return None

    def present(self, ids: np.ndarray) -> np.ndarray:
        """Which of `ids` are trained, `[n] bool`."""
        if not self.left_out:
            return np.ones(len(ids), bool)
        return self._left_out.take(np.searchsorted(self._left_out, ids), mode="clip") != ids

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Positions of `ids` among the samples that are not left out, `[n] int64`."""
        return ids - np.searchsorted(self._left_out, ids) if self.left_out else ids

    def rows(self, step: int) -> int:
        """Samples in the global batch of `step`; 0 where all of them are left out."""
        if self.left_out:
            return len(self.batch(step))
        return min(self.batch_size, self.count - step % self.steps_per_epoch * self.batch_size) - len(self.holes)

    def bounds(self, step: int, micro: int) -> range:
        """The rows of one micro-batch in the global batch of `step`."""
        rows = part(self.rows(step) + len(self.holes), micro, self.micro_batches)
        if not self.holes:
            return rows
        return range(*(row - int(np.searchsorted(self.holes, row)) for row in (rows.start, rows.stop)))

    def filled(self, step: int) -> int:
        """How many micro-batches of `step` have a sample."""
        if self.holes:
            return sum(len(self.bounds(step, micro)) > 0 for micro in range(self.micro_batches))
        return min(self.micro_batches, self.rows(step))

    def fewest_rows(self, start: int, stop: int) -> int:
        """Samples in the smallest batch that is not empty of an epoch, and of those from `start` to `stop`."""
        fewest = min(self.batch_size, self.count - (self.steps_per_epoch - 1) * self.batch_size)
        if not self.left_out:
            return fewest
        sizes = np.full(self.steps_per_epoch, self.batch_size)
        sizes[-1] = fewest
        least = self.batch_size
        for epoch in range(self.epoch(start), self.epoch(max(start, stop - 1)) + 1):
            gone = np.flatnonzero(~self.present(self.epoch_ids(epoch))) // self.batch_size
            kept = sizes - np.bincount(gone, minlength=len(sizes))
            least = min(least, int(kept[kept > 0].min()))
        return least

    def micro(self, step: int, micro: int) -> np.ndarray:
        """Sample ids of one micro-batch; empty where the short last batch has fewer rows than parts."""
        rows = self.bounds(step, micro)
        return self.batch(step)[rows.start : rows.stop]

    def owned(self, rank: int, world: int) -> range:
        """The micro-batches that `rank` of `world` workers computes: at least `together`, so `world` has a limit."""
        owned = part(self.micro_batches // self.together, rank, world)
        return range(owned.start * self.together, owned.stop * self.together)

    def slice_ids(self, step: int, rank: int, world: int) -> np.ndarray:
        """Sample ids of everything that `rank` computes in `step`, its micro-batches one after another."""
        return self.batch(step)[self._owned_rows(step, rank, world)]

    def slice_keys(self, step: int, rank: int, world: int) -> list[tuple[int, int, int]]:
        """(seed, epoch, sample) of each of `slice_ids`: the key of its augmentation.

        A sample that comes again within an epoch has another seed each time, and so another augmentation.
        """
        epoch, index = divmod(step, self.steps_per_epoch)
        ids, views = self.slice_ids(step, rank, world).tolist(), self.epoch_views(epoch)
        if views is None:
            return [(self.seed, epoch, sample) for sample in ids]
        start = index * self.batch_size
        there = self.present(self.epoch_ids(epoch)[start : start + self.batch_size])
        times = views[start : start + self.batch_size][there][self._owned_rows(step, rank, world)].tolist()
        seeds = [key(self.seed, time) if time else self.seed for time in times]
        return [(seed, epoch, sample) for seed, sample in zip(seeds, ids, strict=True)]

    def _owned_rows(self, step: int, rank: int, world: int) -> slice:
        owned = self.owned(rank, world)
        return slice(self.bounds(step, owned.start).start, self.bounds(step, owned.stop - 1).stop)

    def first_filled(self, step: int) -> int:
        """The first micro-batch of `step` that has a sample; the step has one."""
        return next(micro for micro in range(self.micro_batches) if self.bounds(step, micro))


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, count: int) -> np.ndarray:
    order = permutation(count, seed, epoch)
    order.flags.writeable = False  # the cache hands the same array to everyone
    return order


def _mix(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK
    return value ^ (value >> 31)
