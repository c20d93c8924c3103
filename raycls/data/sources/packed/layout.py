"""What `raycls pack` writes: `pack.json`, which is written last, `index.arrow` and the shards.

A shard is an Arrow IPC file or a Parquet file with a row for each image, in the order of its split, and never images
of two splits. Its columns: `image` (`struct<bytes, path>`, an encoded image file), or for raw pixels `pixels`
(`binary`, `[H, W, 3]` uint8), `height` and `width`; `label` (the position of a class, or a list of them); `key`; and
what was asked for of the data's own columns. The schema says what the columns are as Hugging Face `datasets` does: its
key `huggingface`, with the names of the classes.

The index has for every sample in turn what opening the data needs: key, label, size in bytes and CRC-32 of what is
stored. So a data set is opened without a look into a shard.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from raycls.data.samples import text_of
from raycls.data.sources.remote.places import place_of
from raycls.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa  # imported where it is used: who only asks for a name does not wait for it

__all__ = [
    "COLUMNS",
    "INDEX",
    "KIND",
    "MANIFEST",
    "VERSION",
    "Row",
    "Rows",
    "crc32",
    "damaged",
    "read_manifest",
    "shard_name",
    "to_buffer",
]

MANIFEST, INDEX = "pack.json", "index.arrow"
VERSION = 1
COLUMNS = ("image", "pixels", "height", "width", "label", "key", "size", "crc32")
"""Names of columns that mean something to raycls; a column of the data cannot have them."""
_BATCH_BYTES = {"arrow": 64 << 20, "parquet": 1 << 20}
"""When a record batch, or a row group, is full. One image of a row group cannot be read without the others."""
KIND = "raycls pack"


def shard_name(number: int, form: str) -> str:
    return f"shard-{number:05d}.{form}"


@dataclass(frozen=True)
class Row:
    """One sample as it is stored."""

    key: str
    label: int | list[int]
    value: bytes | np.ndarray
    """An encoded image file, or pixels `[H, W, 3] uint8`."""
    about: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """How the rows of a pack are stored."""

    form: str
    """`arrow` or `parquet`."""
    raw: bool
    labels: str
    """`one`, `several`, or `none`: how many classes a sample has."""
    classes: tuple[str, ...]
    about: tuple[str, ...] = ()
    """Columns of the data that are kept."""

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        image: list[tuple[str, pa.DataType, Any]] = [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"})
        ]
        if self.raw:
            image = [
                ("pixels", pa.binary(), _value("binary")),
                ("height", pa.int32(), _value("int32")),
                ("width", pa.int32(), _value("int32")),
            ]
        names = {"names": [text_of(name) for name in self.classes], "_type": "ClassLabel"}
        label: dict[str, list[tuple[str, pa.DataType, Any]]] = {
            "one": [("label", pa.int64(), names)],
            "several": [("label", pa.list_(pa.int64()), {"feature": names, "_type": "Sequence"})],
            "none": [],
        }
        texts = [(name, pa.string(), _value("string")) for name in ("key", *self.about)]
        columns = [*image, *label[self.labels], *texts]
        told = json.dumps({"info": {"features": {name: feature for name, _, feature in columns}}})
        return pa.schema([(name, kind) for name, kind, _ in columns], metadata={"huggingface": told})

    def batch(self, rows: Sequence[Row]) -> pa.RecordBatch:
        import pyarrow as pa

        columns: dict[str, list[Any]] = {"key": [text_of(row.key) for row in rows]}
        if self.raw:
            columns["pixels"] = [np.ascontiguousarray(row.value).data.cast("B") for row in rows]
            for axis, name in enumerate(("height", "width")):
                columns[name] = [row.value.shape[axis] for row in rows if isinstance(row.value, np.ndarray)]
        else:
            columns["image"] = [{"bytes": row.value, "path": text_of(os.path.basename(row.key))} for row in rows]
        if self.labels != "none":
            columns["label"] = [row.label for row in rows]
        for at, name in enumerate(self.about):
            columns[name] = [row.about[at] for row in rows]
        schema = self.schema()
        return pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def _value(kind: str) -> dict[str, str]:
    return {"dtype": kind, "_type": "Value"}


def to_buffer(rows: Rows, samples: Iterator[Row]) -> pa.Buffer:
    """The bytes of a shard: the same rows give the same bytes."""
    import pyarrow as pa

    schema, sink, full = rows.schema(), pa.BufferOutputStream(), _BATCH_BYTES[rows.form]
    if rows.form == "arrow":
        with pa.ipc.new_file(sink, schema) as writer:
            for group in _groups(samples, full):
                writer.write_batch(rows.batch(group))
        return sink.getvalue()
    from pyarrow import parquet

    # Encoded images and pixels gain nothing by compression; a dictionary or bounds of them would be copies.
    options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with parquet.ParquetWriter(sink, schema, **options) as writer:
        for group in _groups(samples, full):
            writer.write_batch(rows.batch(group), row_group_size=len(group))
    return sink.getvalue()


def _groups(samples: Iterator[Row], full: int) -> Iterator[list[Row]]:
    group: list[Row] = []
    size = 0
    for row in samples:
        more = row.value.nbytes if isinstance(row.value, np.ndarray) else len(row.value)
        if group and size + more > full:
            yield group
            group, size = [], 0
        group.append(row)
        size += more
    if group:
        yield group


def crc32(value: Any) -> int:
    """CRC-32 of what is stored of an image."""
    return zlib.crc32(value)


def read_manifest(folder: str) -> Mapping[str, Any]:
    """What `pack.json` says in a folder or below an address. DataError where that holds no complete pack."""
    place = place_of(folder)
    file = place.locate(MANIFEST)
    try:
        if place.missing([MANIFEST]):
            raise FileNotFoundError(file)
        with place.open(MANIFEST) as stream:
            found = json.loads(stream.read())
    except FileNotFoundError as error:
        raise DataError(
            "this folder holds no packed data, or data that is not packed to the end",
            where=place.locate(""),
            found=f"no {MANIFEST}, which is written last" if place.is_folder() else "no such folder",
            valid="a folder that raycls pack --out wrote",
            fix="check data.source.path, or rerun raycls pack to resume",
        ) from error
    except (OSError, ValueError) as error:
        raise damaged(file, str(error)) from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        kind = found.get("kind") if isinstance(found, dict) else type(found).__name__
        raise DataError("this is no file of raycls pack", where=file, found=f"kind: {kind}")
    if isinstance(found.get("version"), int) and found["version"] > VERSION:
        raise DataError(
            "the data was packed by a later version of raycls",
            where=file,
            found=f"version {found['version']}",
            valid=f"up to {VERSION}",
            fix="update raycls",
        )
    try:
        _Manifest.model_validate(found, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(file, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return found


class _Index(BaseModel):
    sha256: str


class _Shard(BaseModel):
    name: str = Field(pattern=r"^shard-\d{5,}\.(arrow|parquet)$")
    split: Literal["train", "val", "test"]
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str


class _Manifest(BaseModel):
    """What `pack.json` must say to be read."""

    version: int = Field(ge=1)
    to: Literal["arrow", "parquet"]
    quality: int | Literal["raw"]
    labels: Literal["one", "several", "none"]
    classes: list[str]
    about: list[str]
    index: _Index
    shards: list[_Shard] = Field(min_length=1)


def damaged(where: str, found: str) -> DataError:
    """The error about a file of a pack that is not what was written."""
    return DataError(
        "a file of the packed data is damaged",
        where=where,
        found=found,
        fix="raycls pack --check FOLDER names all such files; delete them and rerun raycls pack to write them again",
    )
