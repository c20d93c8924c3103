"""What a task says of each row of an evaluation, brought to one rank in the order of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from raycls.errors import TrainError
from raycls.train.ranks import Ranks

__all__ = ["Rows"]

_Layout = list[tuple[str, str, tuple[int, ...]]]
"""Name, numpy's name of the kind, and shape of one row of each array."""


class Rows:
    """`Task.rows` of an evaluation of `count` rows in batches of `batch`.

    Rank 0 holds all of it once, `count` x the bytes of a row: 200 MB for 50,000 rows of 1,000 float32. Every other rank
    holds its own share until `gather`.
    """

    def __init__(self, count: int, batch: int) -> None:
        self._count, self._batch = count, batch
        self._layout: _Layout | None = None
        self._whole: dict[str, np.ndarray] = {}
        self._own: dict[int, dict[str, np.ndarray]] = {}

    def add(self, ranks: Ranks, index: int, found: Mapping[str, Tensor], bad: Sequence[int] = ()) -> None:
        """Take over what this rank found in batch `index`, in which the rows `bad` are left out: these stay zero.
        TrainError where it is not one entry per row."""
        arrays = {name: _array(value) for name, value in found.items()}
        layout = [(name, array.dtype.str, array.shape[1:]) for name, array in arrays.items()]
        size = self._rows(index).stop - self._rows(index).start - len(bad)
        lengths = {name: array.shape[:1] for name, array in arrays.items()}
        if any(length != (size,) for length in lengths.values()) or self._layout not in (None, layout):
            raise TrainError(
                "the task says other things of the rows of one batch than of another, or not one thing per row",
                where="task.name",
                found=", ".join(f"{name} {kind} {[*lengths[name], *shape]}" for name, kind, shape in layout) or "none",
                valid=", ".join(f"{name} {kind} {[size, *shape]}" for name, kind, shape in self._layout or [])
                or f"tensors of shape [{size}, ...]",
                fix="return tensors [B, ...] under the same names from its method rows for every batch",
            )
        self._layout = layout
        if bad:
            good = np.delete(np.arange(size + len(bad)), bad)
            arrays = {name: _spread(array, good, size + len(bad)) for name, array in arrays.items()}
        if ranks.rank:
            self._own[index] = arrays
            return
        if not self._whole:
            self._whole = self._empty(layout)
        for name, array in arrays.items():
            self._whole[name][self._rows(index)] = array

    def gather(self, ranks: Ranks) -> dict[str, np.ndarray]:
        """The arrays `[count, ...]` by name on rank 0, nothing on the others; a collective call."""
        layout: _Layout = ranks.known(self._layout) or []
        if ranks.rank == 0 and not self._whole:
            self._whole = self._empty(layout)
        for name, kind, shape in layout:
            for index in range(-(-self._count // self._batch)):
                owner = index % ranks.world  # as the timeline deals them
                if owner == 0 or ranks.rank not in (0, owner):
                    continue
                if ranks.rank == 0:
                    ranks.to_first(torch.from_numpy(self._whole[name][self._rows(index)]), owner)
                else:
                    size = self._rows(index).stop - self._rows(index).start
                    part = self._own.get(index, {}).pop(name, np.zeros((size, *shape), kind))
                    ranks.to_first(torch.from_numpy(part.reshape(size, *shape).astype(kind, copy=False)), owner)
        return self._whole

    def _rows(self, index: int) -> slice:
        return slice(index * self._batch, min((index + 1) * self._batch, self._count))

    def _empty(self, layout: _Layout) -> dict[str, np.ndarray]:
        return {name: np.zeros((self._count, *shape), kind) for name, kind, shape in layout}


def _spread(array: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """`array` at `rows` of `count` rows; the others are zero."""
    spread = np.zeros((count, *array.shape[1:]), array.dtype)
    spread[rows] = array
    return spread


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().to("cpu")
    return (value.float() if value.is_floating_point() and value.dtype != torch.float64 else value).contiguous().numpy()
