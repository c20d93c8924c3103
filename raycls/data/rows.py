"""Some samples of a source: those that are not left out, and what reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from raycls.data.samples import Reader

__all__ = ["fetched", "reader_of", "without"]


@dataclass(frozen=True)
class _Rows:
    """Some samples of a reader that cannot be cut."""

    reader: Reader
    rows: np.ndarray

    def read(self, index: int) -> bytes | np.ndarray:
        return self.reader.read(int(self.rows[index]))

    def locate(self, index: int) -> str:
        locate = getattr(self.reader, "locate", None)
        return f"sample {int(self.rows[index])}" if locate is None else locate(int(self.rows[index]))

    def sizes(self) -> np.ndarray | None:
        sizes = getattr(self.reader, "sizes", None)
        return None if sizes is None else np.asarray(sizes())[self.rows]

    @property
    def files(self) -> Any:
        return getattr(self.reader, "files", None)

    @property
    def cached(self) -> Callable[..., _Rows] | None:
        """As `reader` has it; None where it has none."""
        attach = getattr(self.reader, "cached", None)
        return None if attach is None else lambda cache: _Rows(attach(cache), self.rows)

    @property
    def positional(self) -> bool:
        return getattr(self.reader, "positional", False)

    def take(self, rows: np.ndarray) -> _Rows:
        return _Rows(self.reader, self.rows[rows])

    def fetch(self, rows: np.ndarray) -> Callable[[], None]:
        fetch = getattr(self.reader, "fetch", None)
        return _nothing if fetch is None else fetch(self.rows[rows])


def _nothing() -> None:
    """Nothing was begun."""


@contextmanager
def fetched(reader: Reader, rows: np.ndarray) -> Iterator[None]:
    """While it lasts the samples `rows`, `[n] int64`, are read: many at a time, where the reader can."""
    fetch: Callable[[np.ndarray], Callable[[], None]] | None = getattr(reader, "fetch", None)
    done = _nothing if fetch is None else fetch(rows)
    try:
        yield
    finally:
        done()


def without(
    ignored: Callable[[str], bool], keys: Sequence[str], splits: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The samples that are not `ignored`, `[n] int64`, and which of these are in each of the `splits`."""
    left = np.array([not ignored(key) for key in keys], bool)
    place = np.cumsum(left) - 1
    return np.flatnonzero(left), {name: place[rows[left[rows]]] for name, rows in splits.items()}


def reader_of(reader: Reader, rows: np.ndarray, count: int) -> Reader:
    """What reads the samples at `rows`, `[n] int64`, of the `count` that `reader` has."""
    if len(rows) == count and np.array_equal(rows, np.arange(count)):
        return reader
    take = getattr(reader, "take", None)
    return _Rows(reader, rows) if take is None else take(rows)
