"""Which sample of a run is in which split: written down when the run starts, compared with the data of a later day.

`splits.parquet` in the run folder has a row for each sample: `split`, `key`, `class`, `size` (bytes), `digest`, and
`weight` where `data.weight` is set.
A split is what it was at the start, whatever was added to the data or taken away since.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raycls.config.paths import expand
from raycls.data.label_sets import label_names
from raycls.data.samples import Files, Keys, Reader
from raycls.data.source import Dataset, Pool, Split
from raycls.data.sources.remote.address import is_remote
from raycls.data.sources.remote.objects import Objects
from raycls.errors import CheckpointError
from raycls.progress import counted

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Comparison", "Part", "Record", "changed", "compare", "digests", "pack", "place_of", "sizes", "unpack"]

MOST_SAMPLES, MOST_BYTES = 65_536, 256 << 20
"""Data with at most so many samples and bytes has a digest of each sample: it is read once for that. Of larger data the
sizes of the files are kept, and no digests."""
_DIGEST = np.dtype("S32")
_THREADS = 8
_NAMELESS = ("",)
"""The class of every sample of data that has none."""
_PHASE = "taking digests of the samples"


@dataclass(frozen=True)
class Part:
    """The samples of one split, in the order of their ids."""

    keys: pa.Array
    """`[N] large_binary`."""
    labels: np.ndarray
    """`[N] int64`, positions in the label names of the record."""
    sizes: np.ndarray
    """Bytes of each sample, `[N] int64`; -1 where they are not known."""
    digests: np.ndarray | None
    """BLAKE2b of each sample in hexadecimal, `[N] S32`; empty where one could not be read. None for large data."""
    weights: np.ndarray | None = None
    """What `data.weight` said of each sample, `[N] float64`; None of a split without it."""

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The key of one sample."""
        return self.keys[index].as_py().decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Record:
    """What a run was started with."""

    classes: tuple[str, ...]
    place: str
    """The absolute path that the keys are relative to."""
    parts: Mapping[str, Part]
    fingerprint: str
    """That of the data set."""
    sets: np.ndarray | None = None
    """As in `Split`."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The name of every value that the labels of a part may have; one empty name for data without labels."""
        return label_names(self.classes, self.sets) or _NAMELESS


def pack(dataset: Dataset, place: str | None) -> bytes:
    """The record of `dataset` as a Parquet file. `place` is `data.source.path`."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    splits = list(dataset.splits.values())
    size = [sizes(split.reader, len(split)) for split in splits]
    small = sum(map(len, splits)) <= MOST_SAMPLES and all((part >= 0).all() for part in size)
    small = small and sum(int(part.sum()) for part in size) <= MOST_BYTES
    small = small and not any(isinstance(split.reader, Objects) for split in splits)  # to read all of it is not cheap
    digest = [digests(split, np.arange(len(split))) if small else None for split in splits]
    sets = splits[0].sets
    named = label_names(dataset.classes, sets) or _NAMELESS
    names = pa.array([name.encode("utf-8", "surrogateescape") for name in named], pa.binary())
    columns = {
        "split": pa.DictionaryArray.from_arrays(
            np.repeat(np.arange(len(splits), dtype=np.int8), [len(split) for split in splits]),
            pa.array([split.name for split in splits], pa.string()),
        ),
        "key": _text(pa.chunked_array([_arrow(split.keys) for split in splits], pa.large_binary())),
        "class": pa.DictionaryArray.from_arrays(
            np.concatenate([split.labels for split in splits]).astype(np.int32), _text(names)
        ),
        "size": pa.array(np.concatenate(size), mask=np.concatenate(size) < 0),
    }
    if small:
        columns["digest"] = pa.array(
            [value.decode() or None for part in digest if part is not None for value in part.tolist()], pa.string()
        )
    if any(split.weights is not None for split in splits):
        each = [np.full(len(split), np.nan) if split.weights is None else split.weights.values for split in splits]
        columns["weight"] = pa.array(np.concatenate(each), from_pandas=True)
    about = {
        "classes": list(dataset.classes),
        "place": _place(dataset, place),
        "fingerprint": dataset.fingerprint,
        **({} if sets is None else {"sets": [np.flatnonzero(row).tolist() for row in sets]}),
    }
    told = {"raycls": json.dumps(about)}
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns, metadata=told), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def unpack(data: bytes, where: str) -> Record:
    """What `pack` wrote. CheckpointError where that is damaged; `where` is the name of the file."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(pa.BufferReader(data))
        told = json.loads(table.schema.metadata[b"raycls"])
        split = np.asarray(table["split"].cast(pa.string()).to_numpy(zero_copy_only=False))
        keys = table["key"].cast(pa.large_binary()).combine_chunks()
        sets = _sets(told)
        named = label_names(told["classes"], sets) or _NAMELESS
        names = [name.encode("utf-8", "surrogateescape") for name in named]
        labels = _positions(table["class"].cast(pa.binary()), pa.array(names, pa.binary()))
        size = table["size"].fill_null(-1).to_numpy().astype(np.int64)
        digest = None
        if "digest" in table.column_names:
            digest = np.array(table["digest"].fill_null("").to_pylist(), dtype=_DIGEST)
        weight = None if "weight" not in table.column_names else table["weight"].to_numpy()
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            "the splits of the run cannot be read",
            where=where,
            found=" ".join(str(error).split())[:200],
            fix="put the file back from a copy, or start anew with --new",
        ) from error
    parts: dict[str, Part] = {}
    for name in dict.fromkeys(split.tolist()):
        rows = np.flatnonzero(split == name)
        weights = None if weight is None or np.isnan(weight[rows]).any() else weight[rows]
        found = None if digest is None else digest[rows]
        parts[name] = Part(keys.take(pa.array(rows)), labels[rows], size[rows], found, weights)
    return Record(tuple(told["classes"]), told["place"], parts, told.get("fingerprint", ""), sets)


def _sets(told: Mapping[str, Any]) -> np.ndarray | None:
    if "sets" not in told:
        return None
    sets = np.zeros((len(told["sets"]), len(told["classes"])), bool)
    for row, columns in zip(sets, told["sets"], strict=True):
        row[columns] = True
    return sets


@dataclass(frozen=True)
class Comparison:
    """The data of today beside the record."""

    rows: Mapping[str, np.ndarray]
    """For each split the position in the pool of each recorded sample, `[N] int64`; -1 where it is gone."""
    relabelled: Mapping[str, np.ndarray]
    """For each split which samples are there with another class, `[N] bool`."""
    new: np.ndarray
    """Positions in the pool of what is in no split, ascending; empty where the run was limited."""
    ambiguous: bool
    """Whether keys occur twice, so that samples cannot be told apart."""


def compare(record: Record, pool: Pool, *, limited: bool) -> Comparison:
    """Find the samples of the record in the data of today, by their keys. Nothing is read.

    `limited`: the run left out most of its data when it started, so that nobody knows what is new.
    """
    today = _arrow(pool.keys)
    of_record = {name: index for index, name in enumerate(record.label_names)}
    classes = np.array([of_record.get(name, -1) for name in pool.label_names or _NAMELESS], np.int64)
    recorded = np.zeros(len(pool.labels), bool)
    rows: dict[str, np.ndarray] = {}
    relabelled: dict[str, np.ndarray] = {}
    twice = _has_twice(today)
    for name, part in record.parts.items():
        found = _positions(part.keys, today)
        there = found >= 0
        recorded[found[there]] = True
        changed = np.zeros(len(part), bool)
        changed[there] = classes[pool.labels[found[there]]] != part.labels[there]
        rows[name], relabelled[name] = found, changed
        twice = twice or _has_twice(part.keys)
    return Comparison(rows, relabelled, np.flatnonzero(~recorded & (not limited)), twice)


def changed(part: Part, ids: np.ndarray, split: Split) -> np.ndarray:
    """Which samples of `split` do not hold what was recorded for the samples `ids` of `part`, `[n] bool`."""
    size, before = sizes(split.reader, len(split)), part.sizes[ids]
    differs = (size >= 0) & (before >= 0) & (size != before)
    if part.digests is not None:
        rows = np.flatnonzero(~differs & (part.digests[ids] != b""))
        differs[rows] = digests(split, rows) != part.digests[ids][rows]
    return differs


def sizes(reader: Reader, count: int) -> np.ndarray:
    """Bytes of each of `count` samples, `[N] int64`, by `Reader.sizes`; -1 where they are not known."""
    ask: Any = getattr(reader, "sizes", None)
    found = None if ask is None else ask()
    return np.full(count, -1, np.int64) if found is None else np.asarray(found, np.int64)


def digests(split: Split, rows: np.ndarray) -> np.ndarray:
    """BLAKE2b of what the samples `rows` hold, such as an image and its mask, `[n] S32`; empty where one cannot be
    read."""
    readers: list[Reader] = [split.reader, *(split.parts[name] for name in sorted(split.parts))]

    def one(index: int) -> bytes:
        digest = hashlib.blake2b(digest_size=_DIGEST.itemsize // 2)
        try:
            for reader in readers:
                data = reader.read(index)
                if isinstance(data, np.ndarray):
                    digest.update(f"{data.dtype.str} {data.shape}".encode())
                    data = data.tobytes()
                digest.update(data)
        except Exception:  # noqa: BLE001 - whoever trains on it will say what is wrong
            return b""
        return digest.hexdigest().encode()

    if isinstance(split.reader, Files | Objects):  # opening files is waiting, on a network more than here
        with ThreadPoolExecutor(_THREADS) as pool:
            values = list(counted(pool.map(one, rows.tolist()), _PHASE, len(rows), "samples"))
    else:
        values = [one(index) for index in counted(rows.tolist(), _PHASE, len(rows), "samples")]
    return np.array(values, dtype=_DIGEST)


def _place(dataset: Dataset, path: str | None) -> str:
    reader = next(iter(dataset.splits.values())).reader
    if isinstance(reader, Files | Objects):
        return reader.root
    return "" if path is None else place_of(path)


def place_of(path: str) -> str:
    """A path of data as a record has it: absolute, whatever the working directory."""
    return path.partition("?")[0] if is_remote(path) else os.path.abspath(expand(path))


def _arrow(keys: Keys) -> pa.Array:
    """The keys as `[N] large_binary`, over the memory they are in."""
    import pyarrow as pa

    blob, offsets = keys.digest_parts()
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(blob)]
    return pa.Array.from_buffers(pa.large_binary(), len(keys), buffers)


def _text(values: Any) -> Any:
    """Bytes as texts, for whoever looks into the file; as they are where one of them is not UTF-8."""
    import pyarrow as pa

    try:
        return values.cast(pa.large_string())
    except pa.ArrowInvalid:
        return values


def _positions(values: Any, among: Any) -> np.ndarray:
    """The first position of each value in `among`, `[N] int64`; -1 where it is not there."""
    import pyarrow as pa
    from pyarrow import compute

    found = compute.index_in(values, value_set=among)  # pyright: ignore[reportAttributeAccessIssue]
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def _has_twice(keys: Any) -> bool:
    from pyarrow import compute

    return compute.count_distinct(keys).as_py() < len(keys)  # pyright: ignore[reportAttributeAccessIssue]
