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
    most: int | None = None
    """How many shards stay loaded, where not all of them."""

    @staticmethod
    def of(counts: Iterable[int], *, most: int | None = None) -> Shards:
        """Shards with so many samples each, `[S]`."""
        return Shards(tuple(accumulate(counts, initial=0)), most=most)

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
        """What `load(shard)` returns; it is called once per process, or once more after `most` others were."""
        found = self.opened.get(shard)
        if found is None:
            if self.most is not None and len(self.opened) >= self.most:
                self.opened.pop(next(iter(self.opened), shard), None)  # the first; a thread may have been faster
            found = self.opened[shard] = load(shard)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"starts": self.starts, "opened": {}, "most": self.most}
