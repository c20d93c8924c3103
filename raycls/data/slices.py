"""What there is to decode: slices of the order, in one timeline of training and evaluation.

A slice is what one rank needs for one step: its samples of the global batch, or one evaluation batch.
Which slices there are, and in which order, is arithmetic (`Timeline`); what is in one is a pure function of
its position (`Maker`). Evaluation batches are part of the same timeline, so one execution runs through all
epochs and evaluations: nothing is drained at a boundary, and the first batch after one is already decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raycls.data.making.bad import Bad, BadImageError, or_skip
from raycls.data.making.sample import Arrays, collate, made
from raycls.data.order import Order
from raycls.data.rows import fetched
from raycls.errors import DataError, RayclsError

if TYPE_CHECKING:  # the processes that only route slices need not import torch
    from raycls.data.source import Split

__all__ = [
    "EVALUATE",
    "TRAIN",
    "Maker",
    "Position",
    "Slice",
    "Timeline",
    "failed",
    "micro_rows",
]

TRAIN, EVALUATE = "train", "evaluate"


@dataclass(frozen=True)
class Position:
    """Where a slice belongs. `step` is 0-based in training; an evaluation names the steps done before it.

    `index` counts the evaluation batches of one evaluation and is 0 in training.
    """

    kind: str
    epoch: int
    step: int
    index: int
    rank: int


@dataclass(frozen=True)
class Slice:
    """Decoded samples: their `ids` `[B] int64`, and what the task makes of each, stacked: `arrays` `[B, ...]` by name.

    There are no arrays where there is no sample. `error` is set instead where a sample could not be read: every rank
    has to hear of it before one raises.
    """

    position: Position
    ids: np.ndarray
    arrays: Mapping[str, np.ndarray]
    error: RayclsError | None = None
    bad: tuple[Bad, ...] | None = None
    """The samples that are left out, `ids` and `arrays` are without them; None where a bad image is an error."""

    def part(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """The arrays of the samples from `start` to `stop`."""
        return {name: array[start:stop] for name, array in self.arrays.items()}

    def digests(self, start: int, stop: int) -> list[str]:
        """sha256 of each of these samples, over the bytes of its arrays in the order of their names.

        Single numbers, such as labels, are left out: what was augmented is meant.
        """
        chosen = [array for _, array in sorted(self.part(start, stop).items()) if array.ndim > 1]
        samples = ([array[row].tobytes() for array in chosen] for row in range(stop - start))
        return [hashlib.sha256(b"".join(parts)).hexdigest() for parts in samples]


@dataclass(frozen=True)
class Timeline:
    """All slices of a run in order, for `world` ranks, from `start` steps done to `stop`.

    `evaluate_every` is in steps (0: never; always after the last step too), `evaluate_rows` the size of the
    evaluated split, cut into batches of `evaluate_batch` rows whatever `world` is. `evaluate_first`: the evaluation
    after `start` steps is still to be done.
    """

    order: Order
    world: int
    start: int
    stop: int
    evaluate_every: int
    evaluate_rows: int
    evaluate_batch: int
    evaluate_first: bool = False

    def evaluated_after(self, step: int) -> bool:
        """Whether an evaluation follows once `step` steps are done."""
        return self.evaluate_every > 0 and (step % self.evaluate_every == 0 or step == self.stop)

    @property
    def evaluate_batches(self) -> int:
        return -(-self.evaluate_rows // self.evaluate_batch)

    def rounds(self) -> Iterator[tuple[Position, ...]]:
        """One tuple at a time with a position for every rank."""
        if self.evaluate_first:
            yield from self._evaluation(self.start)
        for step in range(self.start, self.stop):
            epoch = self.order.epoch(step)
            yield tuple(Position(TRAIN, epoch, step, 0, rank) for rank in range(self.world))
            if self.evaluated_after(step + 1):
                yield from self._evaluation(step + 1)

    def of(self, rank: int) -> Iterator[Position]:
        """The positions of one rank."""
        return (positions[rank] for positions in self.rounds())

    def _evaluation(self, step: int) -> Iterator[tuple[Position, ...]]:
        # The last round names batches beyond the end for some ranks: they are empty, so that every rank gets
        # equally many slices and none is padded with rows.
        for first in range(0, self.evaluate_batches, self.world):
            yield tuple(Position(EVALUATE, 0, step, first + rank, rank) for rank in range(self.world))


@dataclass(frozen=True)
class Maker:
    """Makes the slice of a position: the same bytes in every process."""

    order: Order
    world: int
    train: Split | None
    evaluated: Split | None
    evaluate_batch: int
    arrays: Arrays
    skips: bool = False
    """Whether a sample that is no image is left out of its slice; else it is an error."""

    def __call__(self, position: Position) -> Slice:
        try:
            return self._make(position)
        except RayclsError as error:
            return failed(position, error)

    def _make(self, position: Position) -> Slice:
        if position.kind == TRAIN:
            if self.train is None:
                raise DataError("there is no split to train on")
            split = self.train
            keys = self.order.slice_keys(position.step, position.rank, self.world)
            ids = np.array([sample for _, _, sample in keys], np.int64)
            rows = self.order.places(ids)
        else:
            if self.evaluated is None:
                raise DataError("there is no split to evaluate")
            split = self.evaluated
            start = position.index * self.evaluate_batch
            rows = np.arange(min(start, len(split)), min(start + self.evaluate_batch, len(split)), dtype=np.int64)
            ids = rows if split.ids is None else split.ids[rows]
            # The seed of an evaluated sample has no epoch: every evaluation sees the same pixels.
            keys = [(self.order.seed, -1, index) for index in ids.tolist()]
        train = position.kind == TRAIN
        samples: list[dict[str, np.ndarray]] = []
        bad: list[Bad] = []
        with fetched(split.reader, rows):
            for place, (row, key) in enumerate(zip(rows.tolist(), keys, strict=True)):
                try:
                    samples.append(made(self.arrays, split, row, key, train=train))
                except BadImageError as error:
                    if not self.skips:
                        raise or_skip(error) from error.__cause__
                    bad.append(Bad.of(error, place, key[2], split, row))
        ids, rows = (np.delete(array, [each.place for each in bad]) if bad else array for array in (ids, rows))
        arrays = collate(samples, lambda index: split.locate(int(rows[index])))
        return Slice(position, ids, arrays, bad=tuple(bad) if self.skips else None)


def failed(position: Position, error: RayclsError) -> Slice:
    """The slice of `position` that says what went wrong with it."""
    return Slice(position, np.zeros(0, np.int64), {}, error)


def micro_rows(order: Order, step: int, rank: int, world: int) -> list[tuple[int, int, int]]:
    """`(micro-batch, start, stop)` of each micro-batch of `rank`; rows count from the start of its slice."""
    owned = [order.bounds(step, micro) for micro in order.owned(rank, world)]
    first = owned[0].start
    return [
        (micro, rows.start - first, rows.stop - first)
        for micro, rows in zip(order.owned(rank, world), owned, strict=True)
    ]
