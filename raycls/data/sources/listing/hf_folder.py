"""Source `hf_folder`: images beside metadata files, as the loader `imagefolder` of Hugging Face `datasets` has them.

photos/metadata.csv                 photos/train/metadata.jsonl
photos/1.jpg                        photos/train/a/1.jpg
                                    photos/test/metadata.jsonl
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raycls.data.ignore import ignorer, leaving_out, patterns_of
from raycls.data.names import split_of
from raycls.data.samples import Samples
from raycls.data.sources.folder import SUFFIXES
from raycls.data.sources.layout import NO_SPLITS
from raycls.data.sources.listing.annotations import record_of
from raycls.data.sources.listing.columns import Columns
from raycls.data.sources.listing.manifest import listed_records, path_of, read_records
from raycls.data.sources.listing.tables import Record, read_text
from raycls.data.sources.recognised import METADATA
from raycls.data.sources.remote.places import Place, place_of
from raycls.errors import DataError
from raycls.quantities import first_names

__all__ = ["hf_folder"]


def hf_folder(
    path: str | Path,
    columns: Mapping[str, str | None] | None = None,
    splits: Mapping[str, str] | str | None = None,
    ignore: str | Sequence[str] = (),
    ignore_file: str | None = None,
    about: Sequence[str] = (),
    multilabel: bool | str = False,
) -> Samples:
    """Images that `metadata.csv`, `metadata.jsonl` or `metadata.parquet` list, in a folder or in one for each split.

    A row has a `file_name`, from the folder of its file, and a `label` (or `class`); `columns` names others, and
    `multilabel` is as for a manifest. Without a column `split`, images below folders that are named like splits are of
    these; `splits` says what other names mean (`{fold1: train}`; `none`: there are none). `ignore` and `ignore_file`
    leave out images by their paths. `about` are columns whose values are kept. An image that no row lists is an error:
    `datasets` leaves it out without a word. DataError names the file and the line.
    """
    place = place_of(path)
    given = patterns_of(ignore, ignore_file)
    files = sorted(_files(place, ""))
    found = [name for name in files if name.rpartition("/")[2] in METADATA]
    folders = [name.rpartition("/")[0] for name in found]
    if not found or len(set(folders)) < len(folders):
        raise DataError(
            "a folder has two metadata files" if found else "the folder has no metadata file",
            where=place.locate(""),
            found=", ".join(found[:6]) or first_names(files) or "nothing",
            valid=f"one of {', '.join(METADATA)}, in the folder or in one for each split",
            fix=None if found else "a folder of class folders is read with data.source.name=folder",
        )
    names = Columns({"path": "file_name", **(columns or {})})
    file = place.locate(found[0] if len(found) == 1 else "")
    records = [record for name in found for record in _records(place, name, file, names)]
    records = _with_splits(file, records, names, splits)
    samples = listed_records(file, place, records, [], names, (), given, splits, about, multilabel)
    ignored, keys = ignorer(given), set(samples.keys)
    lost = [name for name in files if _is_image(name) and name not in keys and not ignored(name)]
    if lost:
        raise DataError(
            f"{len(lost):,} images of the folder are not in its metadata",
            where=place.locate(""),
            found=first_names(lost),
            valid="a row for each image",
            fix=f"add them, or {leaving_out(lost, samples.keys, given)}",
        )
    return samples


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _files(place: Place, folder: str) -> Iterator[str]:
    """The files below a folder, by their names from the root; hidden ones are left out."""
    try:
        for entry in place.entries(folder):
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _files(place, name)
            else:
                yield name
    except OSError as error:
        raise DataError(
            "cannot read the data folder",
            where=place.locate(folder),
            found=error.strerror or str(error),
            fix="check data.source.path",
        ) from error


def _records(place: Place, name: str, file: str, names: Columns) -> Iterator[Record]:
    """The rows of a metadata file, with paths from the root."""
    folder, suffix = name.rpartition("/")[0], os.path.splitext(name)[1]
    own = place.locate(name)
    if suffix == ".parquet":
        rows: Sequence[Record] = _rows(place, name)
    else:
        rows, _ = read_records(own, suffix, read_text(own, None), names)
    for row in rows:
        fields = dict(row.fields)
        written = path_of(own, row, names)
        key = names.find(own, row.place, row.fields, "path")
        if folder and key is not None and not os.path.isabs(written):
            fields[key] = f"{folder}/{written}"
        at = row.place if own == file else f"{name}:{row.place.removeprefix('line ')}"
        yield record_of(file, at, fields)


def _rows(place: Place, name: str) -> list[Record]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with place.open(name) as stream:
            opened = parquet.ParquetFile(stream)
            kinds = {field.name: field.type for field in opened.schema_arrow}
            plain = [each for each, kind in kinds.items() if not (pa.types.is_struct(kind) or pa.types.is_binary(kind))]
            rows: list[dict[str, Any]] = opened.read(columns=plain).to_pylist()
    except (OSError, pa.ArrowException) as error:
        found = " ".join(str(error).split())[:300]
        raise DataError("a Parquet file cannot be read", where=place.locate(name), found=found) from error
    return [record_of(place.locate(name), f"row {number}", row) for number, row in enumerate(rows)]


def _with_splits(
    file: str, records: Sequence[Record], names: Columns, splits: Mapping[str, str] | str | None
) -> list[Record]:
    """The records; with the first folder of their paths as their split, where these folders are named like splits."""
    if splits == NO_SPLITS or names.says("split"):
        return [*records]
    if any(names.find(file, each.place, each.fields, "split") is not None for each in records):
        return [*records]
    tops = [path_of(file, each, names).partition("/") for each in records]
    known = splits if isinstance(splits, Mapping) else {}
    if not any(slash and split_of(known.get(top, top)) for top, slash, _ in tops):
        return [*records]
    named = [top if slash else "" for top, slash, _ in tops]
    return [
        record_of(file, each.place, {**each.fields, "split": top}) for each, top in zip(records, named, strict=True)
    ]
