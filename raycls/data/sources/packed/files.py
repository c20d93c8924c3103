"""Image files and pixels at random places of Arrow and Parquet files.

An Arrow file is mapped into memory, and an image of it is a view of the file: nothing is copied. Of a Parquet file the
row group with the image is read, and the last ones that were read are kept.
"""

from __future__ import annotations

import threading
from functools import partial
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from raycls.config.write import override
from raycls.data.sources.remote.stored import Stored
from raycls.errors import DataError

__all__ = ["MOST_OPENED", "Opened", "open_arrow", "open_file", "open_parquet"]

MOST_OPENED = 256
"""How many Parquet files a process keeps open: of each it holds what is said of its row groups, half a megabyte."""
_KEPT_BYTES, _MOST_KEPT = 64 << 20, 8
_KEEP = override("data.cache", {"dir": "/local/cache", "limit": "50GB"})


class Opened(Protocol):
    """A file with images."""

    def values(self, row: int, columns: tuple[str, ...]) -> list[Any]:
        """What columns hold at a row: binary and texts as `pyarrow.Buffer`, else Python's own; None where null."""
        ...


def open_file(files: Stored, number: int) -> Opened:
    """Open a file by its name, `.arrow` or `.parquet`. OSError or `pyarrow.ArrowException` where it is damaged."""
    return open_arrow(files, number) if files.names[number].endswith(".arrow") else open_parquet(files, number)


def open_arrow(files: Stored, number: int) -> Opened:
    """DataError where the file can neither be mapped nor read in parts."""
    if not files.is_mappable:
        raise DataError(
            "a packed Arrow file is mapped into memory, which an object cannot be",
            where=files.locate(number),
            valid="Arrow files on a disk of each node, or Parquet files, of which parts are read",
            fix=f"have each node keep them: {_KEEP} ; or pack the data with --to parquet",
        )
    source = files.source(number)
    with pa.memory_map(source) if isinstance(source, str) else source as mapped:
        reader = pa.ipc.open_file(mapped)
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    for batch in batches:
        batch.validate(full=True)  # places that point out of the file would end the process
    return _Batches(batches)


def open_parquet(files: Stored, number: int) -> Opened:
    return _RowGroups(files, number)


class _Batches:
    """Record batches in mapped memory."""

    def __init__(self, batches: list[pa.RecordBatch]) -> None:
        self._starts = np.array([0, *accumulate(len(batch) for batch in batches)])
        self._batches = batches

    def values(self, row: int, columns: tuple[str, ...]) -> list[Any]:
        batch = int(np.searchsorted(self._starts, row, side="right")) - 1
        return [_of(self._batches[batch], column, row - int(self._starts[batch])) for column in columns]


class _Kept:
    """Row groups that were read last in this process, by file, number and columns: one, and others while they fit."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.batches: dict[tuple[object, int, tuple[str, ...]], pa.RecordBatch] = {}

    def add(self, name: tuple[object, int, tuple[str, ...]], batch: pa.RecordBatch) -> None:
        room = _KEPT_BYTES - batch.nbytes - sum(each.nbytes for each in self.batches.values())
        while self.batches and (room < 0 or len(self.batches) >= _MOST_KEPT):
            room += self.batches.pop(next(iter(self.batches))).nbytes
        self.batches[name] = batch


_kept = _Kept()


class _RowGroups:
    """Row groups of a Parquet file."""

    def __init__(self, files: Stored, number: int) -> None:
        from pyarrow import parquet

        source = files.source(number)
        self._run = partial(files.run, number)
        self._file = self._run(lambda: parquet.ParquetFile(source, memory_map=True))
        about = self._file.metadata
        self._starts = np.array([0, *accumulate(about.row_group(i).num_rows for i in range(about.num_row_groups))])
        self._name = object()  # not the path: another file may take its place

    def values(self, row: int, columns: tuple[str, ...]) -> list[Any]:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with _kept.lock:  # a reader of pyarrow is for one thread at a time
            batch = _kept.batches.get((self._name, group, columns))
            if batch is None:
                read = partial(self._file.read_row_group, group, columns=list(columns), use_threads=False)
                table = self._run(read)
                batch = table.combine_chunks().to_batches()[0]
                _kept.add((self._name, group, columns), batch)
        return [_of(batch, column, row - int(self._starts[group])) for column in columns]


def _of(batch: pa.RecordBatch, column: str, row: int) -> Any:
    top, _, inner = column.partition(".")
    values: Any = batch.column(top)
    if inner:
        if not values[row].is_valid:
            return None
        values = values.field(inner)
    value = values[row]
    if not value.is_valid:
        return None
    return value.as_buffer() if hasattr(value, "as_buffer") else value.as_py()
