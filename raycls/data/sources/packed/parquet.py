"""Source `parquet`: one Parquet file, or a folder of them, with an encoded image in each row.

data/train-00000-of-00002.parquet     image: struct<bytes, path>, label: int64, as Hugging Face `datasets` writes them
train/0000.parquet test/0000.parquet  photo: binary, species: string
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

from raycls.config.names.suggest import suggest
from raycls.config.write import override
from raycls.data.ignore import ignorer, patterns_of
from raycls.data.rows import reader_of, without
from raycls.data.samples import Keys, Samples
from raycls.data.sources.layout import told
from raycls.data.sources.packed.files import MOST_OPENED, Opened, open_parquet
from raycls.data.sources.packed.labels import labels_of
from raycls.data.sources.packed.named import by_split, split_rows
from raycls.data.sources.remote.cache import Cache
from raycls.data.sources.remote.places import Place, file_of, place_of
from raycls.data.sources.remote.stored import Stored
from raycls.data.sources.shards import Shards
from raycls.errors import DataError
from raycls.quantities import bytes_text

__all__ = ["parquet"]

_IMAGES, _LABELS = ("image", "img", "images", "photo", "picture", "jpg", "jpeg", "png"), ("label", "labels", "class")
_LARGE = 8 << 20
"""Bytes of a row group from which on it is said what it costs to read one image of it."""
_COLUMNS = "data.source.args.columns"


def parquet(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    splits: Mapping[str, str] | str | None = None,
    ignore: str | Sequence[str] = (),
    ignore_file: str | None = None,
    about: Sequence[str] = (),
) -> Samples:
    """Images in a Parquet file, or in all below a folder: `struct<bytes, path>` or `binary`, and labels.

    `columns` says where things are (`{image: photo, label: species, key: id}`), else the schema's `huggingface`
    metadata or usual names do. A label is an integer (with the names of the classes in that metadata, which declares
    their order), a string, or a list of these: then an image has any number of classes. A column `key` names the
    samples; without one they are called by file and row. Files or folders named like splits are splits; `splits` says
    what other names mean (`{fold1: train}`; `none`: there are none). `ignore` and `ignore_file` leave out files, and
    samples by their keys. `about` are columns whose values are kept. DataError names the file.
    """
    place, given = place_of(path), patterns_of(ignore, ignore_file)
    root, ignored = place.locate(""), ignorer(given)
    place, found = (place, place.files(".parquet")) if place.is_folder() else _alone(path)
    names = [name for name in found if not ignored(name)]
    if not names:
        raise DataError("there is no Parquet file", where=root, valid="a file, or a folder of files, named *.parquet")
    files = Stored.of(place, names)
    tables = [_open(files, number, columns or {}, about) for number in range(len(names))]
    _refuse_others(tables)
    by_name, mapped = by_split(root, names, splits, ".parquet")
    shards = Shards.of([len(table.labels) for table in tables], most=MOST_OPENED)

    def row_of(row: int) -> str:
        number, within = shards.place(row)
        return f"{tables[number].file}[{within}]"

    def leaving(row: int) -> str:
        name = os.path.basename(tables[shards.place(row).shard].file)
        remedy = override("data.source.args.ignore", [name])
        return f"if the file has no labels, as that of a hidden test set, leave it out with {remedy}"

    every = [label for table in tables for label in table.labels]
    classes, labels, ordered = labels_of(every, tables[0].classes, row_of, leaving)
    keyed = all(table.keys is not None for table in tables)
    keys = [key for name, table in zip(names, tables, strict=True) for key in table.keys or _rows_of(name, table)]
    found, kept = split_rows(shards, map(by_name.get, names)), np.arange(len(keys))
    if given:
        kept, found = without(ignored, keys, found)
    columns_of = {name: [text for table in tables for text in table.about[name]] for name in about}
    reader = _Images(files, tables[0].image, shards, not keyed)
    return Samples(
        classes,
        labels[kept],
        Keys(keys[row] for row in kept.tolist()),
        reader_of(reader, kept, len(keys)),
        found or None,
        ordered=ordered,
        notes=(*told(mapped), *_large(tables)),
        about={name: [texts[row] for row in kept.tolist()] for name, texts in columns_of.items()},
    )


@dataclass(frozen=True)
class _Table:
    """What is known of a file before any image is read."""

    file: str
    image: str
    """The column of the images, as `pyarrow` names its leaf."""
    labels: list[Any]
    """Integers or strings, or lists of them."""
    classes: tuple[str, ...] | None
    """The classes that the file declares."""
    keys: list[str] | None
    about: Mapping[str, list[str]]
    largest: int
    """Bytes of the images of the largest row group."""


def _alone(path: str | Path) -> tuple[Place, list[str]]:
    place, name = file_of(path)
    return place, [name]


def _open(files: Stored, number: int, columns: Mapping[str, str], about: Sequence[str]) -> _Table:
    from pyarrow.parquet import ParquetFile

    file = files.locate(number)
    unknown = [name for name in columns if name not in ("image", "label", "key")]
    if unknown:
        raise DataError("unknown column", where=_COLUMNS, found=unknown[0], valid="image, label, key")
    try:
        source = files.source(number)
        with files.run(number, lambda: ParquetFile(source, memory_map=True)) as opened:
            schema, features = opened.schema_arrow, _features(opened.schema_arrow)
            image = _column(file, schema, columns, "image", _by_kind(features, "Image"), _IMAGES)
            label = _column(file, schema, columns, "label", _by_kind(features, "ClassLabel"), _LABELS)
            key = _named(file, schema, columns["key"]) if "key" in columns else "key" if "key" in schema.names else None
            leaf = _leaf(file, schema, image)
            for name in about:
                _named(file, schema, name)
            wanted = list(dict.fromkeys([label, *([key] if key else []), *about]))
            table = files.run(number, lambda: opened.read(columns=wanted, use_threads=False))
            largest = _largest(opened.metadata, leaf)
    except (OSError, pa.ArrowException) as error:
        raise _bad(file, "a Parquet file cannot be read", " ".join(str(error).split())[:300]) from error
    values = table.column(label)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.null_count:
        row = compute.index(compute.is_null(values), True).as_py()  # pyright: ignore[reportAttributeAccessIssue]
        raise _bad(f"{file}[{row}]", f"an image has no label in the column {label}", f"{values.null_count} of them")
    texts = {name: ["" if each is None else str(each) for each in table.column(name).to_pylist()] for name in about}
    keys = [str(each) for each in table.column(key).to_pylist()] if key else None
    return _Table(file, leaf, values.to_pylist(), _declared(features.get(label)), keys, texts, largest)


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    try:
        return json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}


def _by_kind(features: Mapping[str, Any], kind: str) -> list[str]:
    return [name for name, feature in features.items() if kind in (_kind(feature), _kind(_inner(feature)))]


def _inner(feature: Any) -> Any:
    return feature.get("feature") if isinstance(feature, dict) else None


def _kind(feature: Any) -> Any:
    return feature.get("_type") if isinstance(feature, dict) else None


def _declared(feature: Any) -> tuple[str, ...] | None:
    for each in (feature, _inner(feature)):
        if _kind(each) == "ClassLabel" and each.get("names"):
            return tuple(map(str, each["names"]))
    return None


def _column(
    file: str, schema: pa.Schema, columns: Mapping[str, str], field: str, told: Sequence[str], usual: Sequence[str]
) -> str:
    """The column of a field: the one that `columns` names, or the only one that the file or its name tells of."""
    if field in columns:
        return _named(file, schema, columns[field])
    found = [name for name in told if name in schema.names] or [name for name in usual if name in schema.names]
    if len(found) == 1:
        return found[0]
    example = override(f"{_COLUMNS}.{field}", found[0] if found else schema.names[0] if schema.names else "NAME")
    raise DataError(
        f"several columns may be the {field}" if found else f"no column is known to be the {field}",
        where=file,
        found=", ".join(found or schema.names) or "no column",
        fix=f"name it, such as {example}",
    )


def _named(file: str, schema: pa.Schema, name: str) -> str:
    if name not in schema.names:
        near = suggest(name, schema.names)
        raise DataError(
            f"there is no column {name}",
            where=file,
            found=", ".join(schema.names),
            fix=f"did you mean {near}?" if near else "name one of these",
        )
    return name


def _leaf(file: str, schema: pa.Schema, image: str) -> str:
    kind = schema.field(image).type
    inner = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(inner) or pa.types.is_large_binary(inner)):
        raise _bad(file, f"the column {image} holds no image files", str(kind), "struct<bytes: binary, ...>, or binary")
    return image if inner is kind else f"{image}.bytes"


def _largest(about: Any, leaf: str) -> int:
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    sizes = [group.column(at) for group in groups for at in range(group.num_columns)]
    return max((each.total_uncompressed_size for each in sizes if each.path_in_schema == leaf), default=0)


def _large(tables: Sequence[_Table]) -> list[str]:
    """A line where an image cannot be read without many others."""
    worst = max(tables, key=lambda table: table.largest)
    if worst.largest <= _LARGE:
        return []
    size = bytes_text(worst.largest)
    return [
        f"data: an image of {worst.file} costs the reading of its row group of {size}: raycls pack rewrites the data"
    ]


def _refuse_others(tables: Sequence[_Table]) -> None:
    first = tables[0]
    for table in tables[1:]:
        if (table.image, table.classes, table.keys is None) != (first.image, first.classes, first.keys is None):
            raise _bad(
                table.file,
                "files of one data set differ in their columns or classes",
                f"images in {table.image}, {len(table.classes or ())} classes; in {first.file} {first.image}, "
                f"{len(first.classes or ())} classes",
                "one schema for all",
            )


def _rows_of(name: str, table: _Table) -> list[str]:
    return [f"{name}[{row}]" for row in range(len(table.labels))]


def _bad(where: str, what: str, found: str, valid: str | None = None) -> DataError:
    return DataError(what, where=where, found=found, valid=valid)


@dataclass(frozen=True)
class _Images:
    """Reads images of rows. A file is opened once per process, when first asked for."""

    files: Stored
    image: str
    shards: Shards
    positional: bool
    """Whether samples are called by their rows."""

    def read(self, index: int) -> bytes:
        number, row = self.shards.place(index)
        try:
            opened: Opened = self.shards.content(number, self._open)
            (value,) = opened.values(row, (self.image,))
        except (OSError, pa.ArrowException, LookupError) as error:
            raise _bad(
                self.locate(index), "a row of a Parquet file cannot be read", " ".join(str(error).split())
            ) from error
        if value is None:
            raise DataError(
                "a row has no image",
                where=self.locate(index),
                found="null instead of the bytes of a file",
                valid="files whose images are embedded: datasets writes paths alone unless it embeds them",
                fix="write the file again with its images embedded",
            )
        return value.to_pybytes()

    def locate(self, index: int) -> str:
        number, row = self.shards.place(index)
        return f"{self.files.locate(number)}[{row}]"

    def _open(self, number: int) -> Opened:
        return open_parquet(self.files, number)

    def cached(self, cache: Cache) -> _Images:
        """The same with files kept in `cache`."""
        return replace(self, files=self.files.cached(cache))
