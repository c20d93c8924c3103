"""Few samples of a data set, for a run that shows whether training works at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raycls.data.order import permutation
from raycls.quantities import plural

__all__ = ["Limit"]


@dataclass(frozen=True)
class Limit:
    """How many samples of each split are left."""

    samples: int
    same: bool
    """Whether every split is the training samples that are left, as for a network that is to learn them by heart."""

    def of(self, rows: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
        """The rows of each split that are left, ascending: the first ones of a permutation that `seed` names."""
        left = {
            name: np.sort(each[permutation(len(each), seed, len(each))[: self.samples]]) for name, each in rows.items()
        }
        return dict.fromkeys(left, left["train"]) if self.same else left

    def notes(self, rows: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """What a user should know of it: fewer training samples than were asked for by number."""
        there = len(rows["train"])
        if not self.same or there >= self.samples:
            return ()
        return (f"train.overfit={self.samples}: the training split has {plural(there, 'image')}, all are trained",)
