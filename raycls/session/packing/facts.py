"""What the shards of a pack hold, read back from the files: for the index, the manifest and `raycls pack --check`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raycls.data.sources.packed.layout import INDEX, crc32, damaged, read_manifest
from raycls.progress import counted
from raycls.quantities import cores

__all__ = ["Facts", "check", "facts_of", "sha256_of"]


@dataclass(frozen=True)
class Facts:
    """What is in one shard."""

    bytes: int
    sha256: str
    sizes: np.ndarray
    """Bytes of each stored image, `[n] int64`."""
    crc32: np.ndarray
    """`[n] uint32`."""


def facts_of(files: Sequence[str], *, raw: bool) -> list[Facts]:
    """Read shards from the first to the last byte. DataError where one is no shard."""
    with ThreadPoolExecutor(cores()) as pool:
        found = pool.map(lambda file: _facts(file, "pixels" if raw else "image"), files)
        return list(counted(found, "checking the shards", len(files), "shards"))


def _facts(file: str, column: str) -> Facts:
    sizes: list[np.ndarray] = []
    sums: list[int] = []
    try:
        for values in _columns(file, column):
            _, offsets, data = values.buffers()
            bounds = np.frombuffer(offsets, np.int32, len(values) + 1, 4 * values.offset)
            view = memoryview(data)
            sums += [crc32(view[start:stop]) for start, stop in pairwise(bounds.tolist())]
            sizes.append(np.diff(bounds).astype(np.int64))
        digest = sha256_of(file)
    except (OSError, pa.ArrowException) as error:
        raise damaged(file, " ".join(str(error).split())) from error
    return Facts(os.path.getsize(file), digest, np.concatenate(sizes), np.array(sums, np.uint32))


def _columns(file: str, column: str) -> Iterator[Any]:
    """The images of a shard as arrays of `binary`, a record batch or row group at a time."""
    if file.endswith(".parquet"):
        from pyarrow import parquet

        with parquet.ParquetFile(file, memory_map=True) as reader:
            for number in range(reader.num_row_groups):
                for batch in reader.read_row_group(number, columns=[column]).to_batches():
                    yield _binary(batch.column(column))
        return
    with pa.memory_map(file) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield _binary(reader.get_batch(number).column(column))


def _binary(values: Any) -> Any:
    return values.field("bytes") if pa.types.is_struct(values.type) else values


def sha256_of(file: str) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check(folder: str) -> tuple[int, list[tuple[str, str]]]:
    """Compare every file of a pack with its sha256 in the manifest: how many, the damaged ones, and what was found."""
    found = read_manifest(folder)
    files = [*found["shards"], {"name": INDEX, **found["index"]}]
    with ThreadPoolExecutor(cores()) as pool:
        answers = pool.map(lambda file: _differs(Path(folder, file["name"]), file["bytes"], file["sha256"]), files)
        told = list(counted(answers, "checking the packed data", len(files), "files"))
    return len(files), [(file["name"], differs) for file, differs in zip(files, told, strict=True) if differs]


def _differs(file: Path, size: int, digest: str) -> str:
    try:
        there = file.stat().st_size
        if there != size:
            return f"{there:,} bytes, {size:,} were written"
        return "" if sha256_of(str(file)) == digest else "its sha256 is another than when it was written"
    except OSError as error:
        return error.strerror or str(error)
