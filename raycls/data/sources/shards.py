"""Many samples in few files: which file holds a sample, and what a process keeps of the files it has opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Place", "Shards"]


class Place(NamedTuple):
    """Where a sample is."""

    shard: int
    row: int
    """Its position within the shard."""


@dataclass(frozen=True)
class Shards:
    """Samples that are numbered through the shards of a source. Pickled, it takes nothing along that was opened."""

    starts: tuple[int, ...]
    """The first sample of each shard, and the number of all of them: `[S + 1]`."""
    opened: dict[int, Any] = field(default_factory=dict[int, Any], compare=False)
    """What `content` has loaded in this process, by shard."""

    @staticmethod
    def of(counts: Iterable[int]) -> Shards:
        """Shards with so many samples each, `[S]`."""
        return Shards(tuple(accumulate(counts, initial=0)))

    @property
    def total(self) -> int:
        return self.starts[-1]

    def count(self, shard: int) -> int:
        """The samples of one shard."""
        return self.starts[shard + 1] - self.starts[shard]

    def rows(self, first: int, last: int) -> np.ndarray:
        """The samples of the shards `first` to `last - 1`, `[n] int64`."""
        return np.arange(self.starts[first], self.starts[last], dtype=np.int64)

    def place(self, index: int) -> Place:
        """Where the sample `index` is. Empty shards hold none."""
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        return Place(shard, index - self.starts[shard])

    def content(self, shard: int, load: Callable[[int], Any]) -> Any:
        """What `load(shard)` returns; it is called once per process."""
        if shard not in self.opened:
            self.opened[shard] = load(shard)
        return self.opened[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {"starts": self.starts, "opened": {}}
