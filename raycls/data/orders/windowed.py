"""An order for data that is cheap to read in a row only: chunks in a random order, and samples mixed within a window.

An epoch's samples are cut into chunks of consecutive ids, as they lie in shards; the chunks are permuted, and laid in a
line. Then every sample is moved by less than the window: the line is sorted by position plus a random number below it.
So at any time the samples of a few chunks are read, each sample comes exactly once in an epoch, and the order hangs on
the seed and the epoch alone. A shuffle buffer, as of `webdataset` or TensorFlow, has the same reach, and hangs on what
was read before.

Without chunks (`chunk` 0) the samples come in the order of their ids in every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from raycls.data.order import Order, hashes, permutation

__all__ = ["Windowed", "windowed"]

_WITHIN = 0x77696E646F77
"""Sets the hashes of the samples apart from those of the chunks; any number would do."""
_FINE = 20
"""Bits below a position, so that equal keys are rare: a tie keeps the order of the line."""


@dataclass(frozen=True)
class Windowed(Order):
    """The order of `data.shuffle: window`, or `none`; see the module's docstring."""

    chunk: int = 0
    """Samples in a row that are read together; 0: no shuffling at all."""
    window: int = 0
    """A sample is moved by less than so many positions, after the chunks are permuted."""

    def epoch_ids(self, epoch: int) -> np.ndarray:
        return windowed(self.seed, epoch, self.count, self.chunk, self.window)


@lru_cache(maxsize=4)
def windowed(seed: int, epoch: int, count: int, chunk: int, window: int) -> np.ndarray:
    """The sample of each position of an epoch, `[count] int64`."""
    ids = np.arange(count, dtype=np.int64)
    if chunk:
        starts = permutation(-(-count // chunk), seed, epoch) * chunk
        lengths = np.minimum(chunk, count - starts)
        first = np.cumsum(lengths) - lengths
        line = np.repeat(starts - first, lengths) + ids
        moved = (hashes(0, count, seed, epoch, _WITHIN) >> np.uint64(1)).astype(np.int64) % (max(1, window) << _FINE)
        ids = line[np.argsort((ids << _FINE) + moved, kind="stable")]
    ids.flags.writeable = False  # the cache hands the same array to everyone
    return ids
