"""An order in which a sample comes several times in a row, each time augmented anew: repeated augmentation.

An epoch has as many positions as the plain order, so that steps, schedule and evaluations stay what they were. With r
repeats, r epochs are one permutation in which each sample stands r times in a row, cut wherever an epoch ends: in each
of these cycles every sample is trained exactly r times, as in r plain epochs, and a global batch of B has about B / r
different ones. Hoffer and others: Augment your batch, 2019; Berman and others: MultiGrain, 2019, section 3.3, where
the cut is random instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from raycls.data.order import Order, permutation

__all__ = ["Repeated"]


@dataclass(frozen=True)
class Repeated(Order):
    """The order of repeated augmentation; see the module's docstring."""

    repeats: int = 1

    def epoch_ids(self, epoch: int) -> np.ndarray:
        return _repeated(self.seed, epoch, self.count, self.repeats)[0]

    def epoch_views(self, epoch: int) -> np.ndarray:
        return _repeated(self.seed, epoch, self.count, self.repeats)[1]


@lru_cache(maxsize=4)
def _repeated(seed: int, epoch: int, count: int, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """The samples of an epoch and their views, as `Order.epoch_ids` and `Order.epoch_views` have them."""
    cycle, part = divmod(epoch, repeats)
    positions = np.arange(count, dtype=np.int64)
    across = part * count + positions
    ids = permutation(count, seed, cycle)[across // repeats]
    views = np.minimum(across % repeats, positions)  # what came before the cut belongs to the epoch before
    ids.flags.writeable = views.flags.writeable = False  # the cache hands the same arrays to everyone
    return ids, views
