"""Source `manifest`: a file that lists the images and their labels, as CSV, JSON Lines or JSON.

path,label,split              {"path": "a/1.jpg", "label": "cat"}
a/1.jpg,cat,train             {"path": "a/2.jpg", "label": "dog"}

{"images": [{"id": 7, "file_path": "a/1.jpg"}], "annotations": [{"image_id": 7, "label": "cat"}]}
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from raycls.data.samples import SPLIT_NAMES, Files, Keys, Samples
from raycls.errors import DataError
from raycls.progress import counted

__all__ = ["manifest"]

_PATH = ("path", "file", "file_path", "image")
_LABEL = ("label", "class")


def manifest(path: str | Path, root: str | None = None) -> Samples:
    """Images listed in a file: `.csv` or `.tsv` with a header, `.jsonl`, or `.json`.

    A row has a path (column `path`, `file`, `file_path` or `image`), a label (`label` or `class`) and, for
    all rows or none, a `split` (train, val, test). JSON has `images[].file_path` and `annotations[].label`,
    joined by `images[].id` and `annotations[].image_id` where the annotations have it, else by position.
    Paths are relative to the folder of the manifest, or to `root`. DataError names the line.
    """
    file = os.path.abspath(path)
    suffix = os.path.splitext(file)[1].lower()
    if suffix not in _READERS:
        raise DataError(
            "The manifest is of an unknown kind.", where=file, found=suffix or "no suffix", valid=", ".join(_READERS)
        )
    folder = os.path.dirname(file) if root is None else os.path.abspath(root)
    rows = _read(file, _READERS[suffix])
    if not rows:
        raise DataError("The manifest lists no image.", where=file)
    _check_files(file, folder, rows)
    return _samples(file, folder, rows)


class _Row(NamedTuple):
    place: str
    """Where the row is: a line number, or `images[3]`."""
    path: str
    label: str
    split: str | None


def _read(file: str, parse: Callable[[str, TextIO], Iterator[_Row]]) -> list[_Row]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            return list(counted(parse(file, stream), "reading the manifest", unit="rows"))
    except OSError as error:
        raise DataError(
            "The manifest cannot be read.", where=file, found=error.strerror or str(error), fix="check data.source.path"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError("The manifest is not UTF-8 text.", where=file, found=str(error)) from error


def _samples(file: str, folder: str, rows: Sequence[_Row]) -> Samples:
    classes = sorted({row.label for row in rows})
    number = {label: index for index, label in enumerate(classes)}
    given: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if (row.split is None) != (rows[0].split is None):
            raise _bad(
                file,
                row.place,
                "This row has no split, others have." if row.split is None else "Only some rows have a split.",
            )
        if row.split is not None:
            given.setdefault(row.split, []).append(index)
    keys = Keys(row.path for row in rows)
    return Samples(
        classes=classes,
        labels=np.array([number[row.label] for row in rows], dtype=np.int64),
        keys=keys,
        reader=Files(folder, keys),
        splits={name: np.array(index) for name, index in given.items()} or None,
    )


def _check_files(file: str, folder: str, rows: Sequence[_Row]) -> None:
    first: dict[str, str] = {}
    missing: list[_Row] = []
    for row in counted(rows, "looking for the listed images", len(rows), "images"):
        if row.path in first:
            raise _bad(file, row.place, "An image is listed twice.", found=f"{row.path}, first in {first[row.path]}")
        first[row.path] = row.place
        if not os.path.isfile(os.path.join(folder, row.path)):
            missing.append(row)
    if missing:
        shown = ", ".join(f"{row.path} ({row.place})" for row in missing[:5])
        more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        raise DataError(
            f"{len(missing):,} of {len(rows):,} listed images do not exist.",
            where=_at(file, missing[0].place),
            found=shown + more,
            valid=f"files under {folder}",
            fix="set data.source.args.root to the folder that the paths start from",
        )


def _csv(file: str, stream: TextIO) -> Iterator[_Row]:
    reader = csv.reader(stream, delimiter="\t" if file.lower().endswith(".tsv") else ",", strict=True)
    try:
        header = [name.strip().casefold() for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise _bad(file, "line 1", "A column is there twice.", found=", ".join(header))
        for values in reader:
            if not values:
                continue  # a blank line
            place = f"line {reader.line_num}"
            if len(values) != len(header):
                raise _bad(file, place, f"This row has {len(values)} columns, the header has {len(header)}.")
            yield _row(file, place, dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise _bad(file, f"line {reader.line_num}", "This is no CSV.", found=str(error)) from error


def _jsonl(file: str, stream: TextIO) -> Iterator[_Row]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise _bad(file, place, "This line is no JSON.", found=str(error)) from error
        if not isinstance(record, dict):
            raise _bad(file, place, "This line is no JSON object.", found=line.strip()[:60])
        yield _row(file, place, record)


def _json(file: str, stream: TextIO) -> Iterator[_Row]:
    try:
        content = json.load(stream)
    except json.JSONDecodeError as error:
        raise _bad(file, f"line {error.lineno}", "This is no JSON.", found=str(error)) from error
    images, annotations = (_objects(file, content, name) for name in ("images", "annotations"))
    for index, (image, annotation) in enumerate(_joined(file, images, annotations)):
        record = {name: image[name] for name in (*_PATH, "split") if name in image}
        record |= {name: annotation[name] for name in _LABEL if name in annotation}
        yield _row(file, f"images[{index}]", record)


def _objects(file: str, content: Any, name: str) -> list[dict[str, Any]]:
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(
            f"The manifest has no list of objects named {name}.",
            where=file,
            valid='{"images": [{"file_path": ...}], "annotations": [{"label": ...}]}',
        )
    return entries


def _joined(
    file: str, images: list[dict[str, Any]], annotations: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    with_id = sum("image_id" in annotation for annotation in annotations)
    if with_id == 0:
        if len(images) != len(annotations):
            raise DataError(
                "Images and annotations cannot be joined by position.",
                where=file,
                found=f"{len(images)} images, {len(annotations)} annotations",
                valid="one annotation for each image, or annotations with an image_id",
            )
        yield from zip(images, annotations, strict=True)
        return
    if with_id < len(annotations):
        raise DataError("Only some annotations have an image_id.", where=file, found=f"{with_id} of {len(annotations)}")
    by_image: dict[str, dict[str, Any]] = {}
    for index, annotation in enumerate(annotations):
        identity = json.dumps(annotation["image_id"])
        if identity in by_image:
            raise _bad(file, f"annotations[{index}]", "An image has two annotations.", found=f"image_id {identity}")
        by_image[identity] = annotation
    for index, image in enumerate(images):
        annotation = by_image.pop(json.dumps(image.get("id")), None)
        if annotation is None:
            raise _bad(file, f"images[{index}]", "An image has no annotation.", found=f"id {image.get('id')!r}")
        yield image, annotation
    if by_image:
        raise DataError(
            "Annotations name images that are not listed.", where=file, found=f"image_id {next(iter(by_image))}"
        )


_READERS: dict[str, Callable[[str, TextIO], Iterator[_Row]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
}


def _row(file: str, place: str, record: Mapping[str, Any]) -> _Row:
    path = _value(file, place, record, _PATH)
    label = _value(file, place, record, _LABEL)
    split = record.get("split")
    if split is not None and split != "":
        if not isinstance(split, str) or split.strip().casefold() not in SPLIT_NAMES:
            raise _bad(file, place, "This split is unknown.", found=repr(split), valid=", ".join(SPLIT_NAMES))
        split = SPLIT_NAMES[split.strip().casefold()]
    return _Row(place, os.path.normpath(path), label, split or None)


def _value(file: str, place: str, record: Mapping[str, Any], names: Sequence[str]) -> str:
    given = [name for name in names if name in record]
    if len(given) != 1:
        what = f"Which of {', '.join(given)} counts?" if given else f"There is no {names[0]}."
        raise _bad(
            file, place, what, found=", ".join(map(str, record)) or "nothing", valid=f"one of {', '.join(names)}"
        )
    value = record[given[0]]
    if isinstance(value, int) and not isinstance(value, bool) and names is _LABEL:
        return str(value)
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise _bad(file, place, f"The {given[0]} is empty or no text.", found=repr(value))
    return value.strip()


def _bad(file: str, place: str, what: str, *, found: str | None = None, valid: str | None = None) -> DataError:
    return DataError(what, where=_at(file, place), found=found, valid=valid)


def _at(file: str, place: str) -> str:
    return f"{file}:{place.removeprefix('line ')}"
