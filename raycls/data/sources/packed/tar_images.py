"""Reads images at random places of tar shards, on a disk or in an object store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from raycls.data.samples import Keys
from raycls.data.sources.packed.ranges import Ranges, open_ranges
from raycls.data.sources.remote.cache import Cache, entry_of
from raycls.data.sources.remote.objects import InFlight
from raycls.data.sources.remote.stored import Stored
from raycls.data.sources.shards import Shards
from raycls.errors import DataError

__all__ = ["TarImages"]


@dataclass(frozen=True)
class TarImages:
    """A shard is opened once per process, when first asked for. From an object store each image is one request, and
    the requests of a batch are in flight together."""

    files: Stored
    bytes: tuple[int, ...]
    """Of each shard when its headers were read."""
    shards: Shards
    keys: Keys
    places: np.ndarray
    """Where the bytes of each image begin in its shard, and how many they are: `[N, 2] int64`."""
    cache: Cache | None = None
    """Keeps images of shards that are objects."""
    ahead: InFlight = field(default_factory=InFlight, init=False, compare=False, repr=False)

    def read(self, index: int) -> bytes:
        """The bytes of an image. DataError where they cannot be read, OutageError where a store is away."""
        coming = self.ahead.of(index)
        return self._read(index) if coming is None else coming.result()

    def fetch(self, rows: np.ndarray) -> Callable[[], None]:
        """Begin to read the images `rows`, `[n] int64`, many at a time; what is returned is called when `read` was."""
        wanted = rows.tolist() if self.files.listed else []
        if self.cache is not None:
            wanted = [row for row in wanted if not self.cache.has(self._entry(row))]
        return self.ahead.begin(wanted, self._read)

    def locate(self, index: int) -> str:
        return self.files.place.locate(self.keys[index])

    def sizes(self) -> np.ndarray:
        return self.places[:, 1]

    def cached(self, cache: Cache) -> TarImages:
        """The same with images kept in `cache`."""
        return replace(self, cache=cache)

    def _read(self, index: int) -> bytes:
        entry = None if self.cache is None else self._entry(index)
        found = None if self.cache is None or entry is None else self.cache.read(entry)
        if found is not None:
            return found
        number, _ = self.shards.place(index)
        offset, size = self.places[index].tolist()
        try:
            shard: Ranges = self.shards.content(number, self._open)
            data = shard.read(size, offset)
        except OSError as error:
            found = error.strerror or str(error)
            raise DataError("cannot read a tar shard", where=self.locate(index), found=found) from error
        if len(data) < size:
            raise _changed(self.locate(index), f"{len(data):,} of {size:,} bytes")
        if self.cache is not None and entry is not None:
            self.cache.add(entry, data)
        return data

    def _entry(self, index: int) -> str:
        """The entry of an image: that of its shard, and where it is there."""
        number, _ = self.shards.place(index)
        offset, size = self.places[index].tolist()
        return entry_of(self.files.address(number), *self.files.listed[number], part=f"{offset}+{size}")

    def _open(self, number: int) -> Ranges:
        shard = open_ranges(self.files, number)
        if shard.size != self.bytes[number]:
            found = f"{shard.size:,} bytes, there were {self.bytes[number]:,}"
            raise _changed(self.files.locate(number), found)
        return shard


def _changed(where: str, found: str) -> DataError:
    return DataError(
        "a shard is not what it was when the data was opened",
        where=where,
        found=found,
        fix="rerun the command, which reads its headers again",
    )
