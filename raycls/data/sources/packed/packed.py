"""Source `packed`: what `raycls pack` wrote."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raycls.config.names.suggest import suggest
from raycls.data.ignore import ignorer, patterns_of
from raycls.data.rows import reader_of, without
from raycls.data.samples import Keys, Samples
from raycls.data.sources.packed.files import MOST_OPENED, Opened, open_file
from raycls.data.sources.packed.layout import INDEX, crc32, damaged, read_manifest
from raycls.data.sources.remote.cache import Cache
from raycls.data.sources.remote.places import place_of
from raycls.data.sources.remote.stored import Stored
from raycls.data.sources.shards import Shards
from raycls.errors import DataError

__all__ = ["packed"]


def packed(
    path: str | Path,
    ignore: str | Sequence[str] = (),
    ignore_file: str | None = None,
    about: Sequence[str] = (),
) -> Samples:
    """The samples of a folder that `raycls pack` wrote, with their keys, classes and splits as they were.

    `ignore` and `ignore_file` leave out images by their keys. `about` are columns that were kept with `--by`. The sizes
    of the shards are compared with those that were written when the data is opened, and the CRC-32 of each image when
    a process reads it for the first time.
    """
    found = read_manifest(os.fspath(path))
    shards = found["shards"]
    reader = _Packed(
        Stored.of(place_of(path), [*(shard["name"] for shard in shards), INDEX]),
        tuple(shard["bytes"] for shard in shards),
        Shards.of([shard["rows"] for shard in shards], most=MOST_OPENED if found["to"] == "parquet" else None),
        found["quality"] == "raw",
    )
    for number in range(len(shards)):
        reader.check(number)
    index = reader.index
    index.check(found["index"]["sha256"])
    if len(index) != reader.shards.total:
        raise damaged(reader.files.locate(len(shards)), f"{len(index)} samples, {reader.shards.total} in the shards")
    keys = index.keys()
    rows: dict[str, list[np.ndarray]] = {}
    for number, shard in enumerate(shards):
        rows.setdefault(shard["split"], []).append(reader.shards.rows(number, number + 1))
    splits = {name: np.concatenate(parts) for name, parts in rows.items()}
    patterns, kept = patterns_of(ignore, ignore_file), np.arange(len(keys))
    if patterns:
        kept, splits = without(ignorer(patterns), keys, splits)
    return Samples(
        tuple(found["classes"]),
        index.labels(found["labels"], len(found["classes"]), kept),
        keys.take(kept) if patterns else keys,
        reader_of(reader, kept, len(keys)),
        splits,
        ordered=True,
        about={name: index.texts(name, found["about"], kept) for name in about},
    )


class _Index:
    """What is known of every sample: columns in mapped memory."""

    def __init__(self, files: Stored) -> None:
        last = len(files.names) - 1
        self._file = files.locate(last)
        try:
            source = files.source(last)
            with pa.memory_map(source) if isinstance(source, str) else source as opened:
                self._data = files.run(last, opened.read_buffer)
            self._table = pa.ipc.open_file(self._data).read_all().combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise damaged(self._file, str(error)) from error

    def __len__(self) -> int:
        return len(self._table)

    def check(self, sha256: str) -> None:
        """DataError where the index is not what was written: labels are in it."""
        if hashlib.sha256(self._data).hexdigest() != sha256:
            raise damaged(self._file, "its SHA-256 is another than when it was written")

    def numbers(self, name: str) -> np.ndarray:
        """A column of integers, `[N]`."""
        return self._column(name).to_numpy(zero_copy_only=False)

    def keys(self) -> Keys:
        values = self._column("key")
        _, offsets, blob = values.buffers()
        return Keys.of(blob.to_pybytes(), np.frombuffer(offsets, np.int64, len(values) + 1, values.offset * 8))

    def key(self, row: int) -> str:
        return self._column("key")[row].as_py().decode("utf-8", "surrogateescape")

    def labels(self, kind: str, classes: int, rows: np.ndarray) -> np.ndarray | None:
        """The class of each sample `[n] int64`, or its classes `[n, C] bool`."""
        if kind == "none":
            return None
        if kind == "one":
            return self.numbers("label")[rows]
        values = self._column("label")
        matrix = np.zeros((len(self), classes), bool)
        counts = np.diff(values.offsets.to_numpy())
        matrix[np.repeat(np.arange(len(self)), counts), values.flatten().to_numpy()] = True
        return matrix[rows]

    def texts(self, name: str, there: Sequence[str], rows: np.ndarray) -> list[str]:
        if name not in there:
            near = suggest(name, list(there))
            raise DataError(
                f"there is no column {name}",
                where=self._file,
                found=", ".join(there) or "none: the data was packed without --by",
                fix=f"did you mean {near}?" if near else "pack the data anew, and keep this column",
            )
        return self._column(name).take(pa.array(rows)).to_pylist()

    def _column(self, name: str) -> Any:
        chunks = self._table.column(name).chunks
        return chunks[0] if chunks else pa.array([], self._table.schema.field(name).type)


@dataclass(frozen=True)
class _Packed:
    """Reads images of shards. A shard is opened once per process, when first asked for."""

    files: Stored
    """The shards, and the index."""
    bytes: tuple[int, ...]
    shards: Shards
    raw: bool

    @cached_property
    def index(self) -> _Index:
        return _Index(self.files)

    @cached_property
    def _whole(self) -> np.ndarray:
        """Which images were found to be what was written: a crop of raw pixels need not touch all of them again."""
        return np.zeros(self.shards.total, bool)

    def read(self, index: int) -> bytes | np.ndarray:
        number, row = self.shards.place(index)
        try:
            shard: Opened = self.shards.content(number, self._open)
            value, *shape = shard.values(row, ("pixels", "height", "width") if self.raw else ("image.bytes",))
        except (OSError, pa.ArrowException, ValueError, LookupError) as error:
            raise damaged(self.locate(index), " ".join(str(error).split())) from error
        if not self._whole[index]:
            if value is None or None in shape or crc32(value) != self.index.numbers("crc32")[index]:
                raise damaged(self.locate(index), "its CRC-32 is another than when it was written")
            if self.raw and shape[0] * shape[1] * 3 != len(value):
                raise damaged(self.locate(index), f"{len(value):,} bytes of {shape[0]:,} x {shape[1]:,} pixels")
            self._whole[index] = True
        return np.frombuffer(value, np.uint8).reshape(*shape, 3) if self.raw else value.to_pybytes()

    def locate(self, index: int) -> str:
        number, row = self.shards.place(index)
        return f"{self.files.locate(number)}[{row}]: {self.index.key(index)}"

    def sizes(self) -> np.ndarray:
        return self.index.numbers("size")

    def check(self, number: int) -> None:
        """DataError where a shard is not there, or not of the size that was written."""
        path = self.files.locate(number)
        try:
            size = self.files.size(number)
        except OSError as error:
            raise damaged(path, error.strerror or str(error)) from error
        if size != self.bytes[number]:
            raise damaged(path, f"{size:,} bytes, {self.bytes[number]:,} were written")

    def cached(self, cache: Cache) -> _Packed:
        """The same with shards kept in `cache`."""
        return _Packed(self.files.cached(cache), self.bytes, self.shards, self.raw)

    def _open(self, number: int) -> Opened:
        self.check(number)  # of a mapped file that is shorter, the process would be ended by a signal
        return open_file(self.files, number)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:  # without what is opened
        return _Packed, (self.files, self.bytes, self.shards, self.raw)
