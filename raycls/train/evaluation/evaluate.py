"""Exact evaluation: every row is counted once, and the numbers do not depend on how many ranks counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raycls.data.order import key
from raycls.data.slices import Slice
from raycls.errors import DataError, TrainError
from raycls.models.surgery import modes_kept
from raycls.randomness import seed_all
from raycls.tasks.base import Task
from raycls.tasks.metrics import lacking
from raycls.train.evaluation.rows import Rows
from raycls.train.ranks import Ranks

__all__ = ["evaluate"]

_NO_STEP = -1
"""Stands for the step in the seeds of an evaluation, which are the same after every step."""

_Layout = list[tuple[str, bool, tuple[int, ...]]]
"""Name, whether it is an integer, and shape of each count."""


@torch.no_grad()
def evaluate(
    model: nn.Module,
    slices: Iterable[Slice],
    task: Task,
    ranks: Ranks,
    *,
    batches: int,
    seed: int,
    precision: AbstractContextManager[object],
    keep: Rows | None = None,
) -> dict[str, Any]:
    """Evaluate `model` on this rank's `slices` and add up over ranks; returns what `task.summary` makes of it.

    `keep` takes over what the task says of each row; the caller gathers it.

    A batch is computed whole by one rank, so its bits do not depend on the world size. Integers are added up exactly.
    Each batch's float is a float64 that only its rank contributes; the batches are added up in their order. A model
    that draws in evaluation mode too (`F.dropout(x)` does) draws the same for a batch, whoever computes it.
    Raises Interrupted where the ranks agree to leave it, and on every rank where one could not read a sample;
    DataError where every sample is a bad image; TrainError where the counts are no tensors or the summary lacks a
    metric.
    """
    found = _Counts(batches)
    with modes_kept(model):
        model.eval()
        for made in slices:
            ranks.go_on(made.error)
            if not len(made.ids):
                continue
            seed_all(key(seed, _NO_STEP, made.position.index) >> 1, ranks.device)
            batch = task.batch(made.arrays, train=False)
            with precision:
                counts = task.counts(model, batch)
                rows = {} if keep is None else task.rows(model, batch)
            found.add(made.position.index, counts)
            if keep is not None:
                keep.add(ranks, made.position.index, rows, [bad.place for bad in made.bad or ()])
            del made, batch, counts, rows  # the next batch is made without their memory: of volumes it is large
    return _checked(task, task.summary(found.total(ranks)))


def _checked(task: Task, summary: dict[str, Any]) -> dict[str, Any]:
    """`summary`, which has all metrics of the task as numbers: without one, no evaluation would ever be the best."""
    scalars = task.scalars(summary)
    if wrong := lacking(task, scalars):
        given = {**summary, **scalars}
        raise TrainError(
            "the summary of the task lacks metrics that the task declares",
            where="task.name",
            found=", ".join(f"{name}: {type(given[name]).__name__ if name in given else 'none'}" for name in wrong),
            valid="an int or a float of Python for each of metrics; nan where it is not defined",
            fix="return these from its method summary, or correct its attribute metrics",
        )
    return summary


class _Counts:
    """What the batches of this rank gave, flat: the integers added up, the floats batch by batch."""

    def __init__(self, batches: int) -> None:
        self._batches = batches
        self._layout: _Layout | None = None
        self._integers, self._floats = _empty([], 0)

    def add(self, index: int, counts: Mapping[str, Tensor]) -> None:
        wrong = [name for name, value in counts.items() if not isinstance(value, Tensor)]
        if wrong:
            raise TrainError(
                "the task counts with something else than tensors",
                where="task.name",
                found=", ".join(f"{name}: {type(counts[name]).__name__}" for name in wrong),
                valid="tensors of integers or floats",
                fix="return torch.tensor(...) of these from its method counts",
            )
        layout = [(name, not value.is_floating_point(), tuple(value.shape)) for name, value in counts.items()]
        if self._layout is None:
            self._layout = layout
            self._integers, self._floats = _empty(layout, self._batches)
        if layout != self._layout:
            raise TrainError(
                "the task counts otherwise in one batch than in another",
                where="task.name",
                found=", ".join(f"{name} {list(shape)}" for name, _, shape in layout),
                valid=", ".join(f"{name} {list(shape)}" for name, _, shape in self._layout),
                fix="return the same names, kinds and shapes from its method counts for every batch",
            )
        for whole, into in ((True, self._integers), (False, self._floats[index])):
            parts = [value.flatten() for name, value in counts.items() if value.is_floating_point() != whole]
            if parts:
                into += torch.cat([part.to("cpu", into.dtype) for part in parts])

    def total(self, ranks: Ranks) -> dict[str, np.ndarray]:
        """The same on every rank. A rank without a batch hears from another one what is counted."""
        layout: _Layout | None = ranks.known(self._layout)
        if layout is None:
            raise DataError(
                "there is nothing to evaluate: all samples of the split are bad images",
                where="data.on_bad_image",
                found="skip",
                fix="replace the files of this split",
            )
        if self._layout is None:
            self._integers, self._floats = _empty(layout, self._batches)
        integers = ranks.sum(self._integers).numpy()
        floats = np.array([math.fsum(values) for values in ranks.sum(self._floats).T.tolist()], np.float64)
        totals: dict[str, np.ndarray] = {}
        for name, whole, shape in layout:
            size = math.prod(shape)
            taken, rest = np.split(integers if whole else floats, [size])
            totals[name] = taken.reshape(shape)
            integers, floats = (rest, floats) if whole else (integers, rest)
        return totals


def _empty(layout: Sequence[tuple[str, bool, tuple[int, ...]]], batches: int) -> tuple[Tensor, Tensor]:
    whole, rest = (sum(math.prod(shape) for _, kind, shape in layout if kind is integer) for integer in (True, False))
    return torch.zeros(whole, dtype=torch.int64), torch.zeros(batches, rest, dtype=torch.float64)
