"""Reads images that are objects of a store, many at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from raycls.data.samples import Keys
from raycls.data.sources.remote.address import Address, read
from raycls.data.sources.remote.cache import Cache, entry_of

__all__ = ["THREADS", "InFlight", "Objects"]

THREADS = 32
"""Requests in flight from one process. Each is a wait of some milliseconds, so that there can be more than cores."""
_REMEMBERED = 200_000
"""Entries of the cache whose names a process keeps, 150 bytes each: to make one anew takes as long as to read it."""


class _Pool:
    """The threads of this process that wait for objects; a forked process makes its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner, self._threads = 0, ThreadPoolExecutor(1)

    def submit(self, read: Callable[[int], bytes], row: int) -> Future[bytes]:
        with self._lock:
            if self._owner != os.getpid():
                self._owner, self._threads = os.getpid(), ThreadPoolExecutor(THREADS, "raycls-objects")
            return self._threads.submit(read, row)


_pool = _Pool()


class InFlight:
    """Objects that are asked for ahead, until whoever asked has what he needs."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: dict[int, tuple[int, Future[bytes]]] = {}
        """By row how often it was asked for, and what comes."""
        self.entries: dict[int, str] = {}
        """The names of the entries in the cache of rows that were found there."""

    def of(self, row: int) -> Future[bytes] | None:
        """What comes, where a row was asked for."""
        found = self.asked.get(row)
        return None if found is None else found[1]

    def begin(self, rows: list[int], read: Callable[[int], bytes]) -> Callable[[], None]:
        """Ask for rows, many at a time; what is returned is called when they are not needed any more."""
        with self.lock:
            for row in rows:
                count, future = self.asked.get(row) or (0, _pool.submit(read, row))
                self.asked[row] = count + 1, future
        return lambda: self._forget(rows)

    def _forget(self, rows: list[int]) -> None:
        with self.lock:
            for row in rows:
                count, future = self.asked[row]
                if count > 1:
                    self.asked[row] = count - 1, future
                else:
                    future.cancel()
                    del self.asked[row]

    def __reduce__(self) -> tuple[Any, ...]:  # another process asks for itself
        return InFlight, ()


@dataclass(frozen=True)
class Objects:
    """Objects below an address."""

    address: Address
    names: Keys
    """Names below `address`; an address stands for itself."""
    listed: np.ndarray
    """Bytes of each object when it was listed, `[N] int64`; -1 where it was not."""
    changed: np.ndarray
    """When each was changed, as listed, in nanoseconds, `[N] int64`."""
    cache: Cache | None = None
    ahead: InFlight = field(default_factory=InFlight, init=False, compare=False, repr=False)

    @property
    def root(self) -> str:
        """The address that the names are below, for messages."""
        return str(self.address)

    def read(self, index: int) -> bytes:
        """The bytes of one object. DataError where it cannot be read, OutageError where the store is away."""
        found = self.ahead.of(index)
        return self._read(index) if found is None else found.result()

    def fetch(self, rows: np.ndarray) -> Callable[[], None]:
        """Begin to read the objects `rows`, `[n] int64`, many at a time; what is returned is called when `read` was."""
        wanted = rows.tolist()
        if self.cache is not None:
            known = self.ahead.entries
            wanted = [row for row in wanted if row not in known and not self.cache.has(self._entry(row))]
        return self.ahead.begin(wanted, self._read)

    def locate(self, index: int) -> str:
        return str(self.address.at(self.names[index]))

    def sizes(self) -> np.ndarray:
        return self.listed

    def take(self, rows: np.ndarray) -> Objects:
        return Objects(self.address, self.names.take(rows), self.listed[rows], self.changed[rows], self.cache)

    def cached(self, cache: Cache) -> Objects:
        """The same with what is read kept in `cache`."""
        return replace(self, cache=cache)

    def _read(self, index: int) -> bytes:
        if self.cache is None:
            return read(self.address.at(self.names[index]))
        entry = self.ahead.entries.get(index) or self._entry(index)
        found = self.cache.read(entry)
        if found is not None:
            if len(self.ahead.entries) < _REMEMBERED:
                self.ahead.entries[index] = entry
        else:
            self.ahead.entries.pop(index, None)
            found = read(self.address.at(self.names[index]))
            if len(found) == self.listed[index]:  # else it was changed since it was listed: it is another object
                self.cache.add(entry, found)
        return found

    def _entry(self, index: int) -> str:
        return entry_of(self.address.at(self.names[index]), int(self.listed[index]), int(self.changed[index]))
