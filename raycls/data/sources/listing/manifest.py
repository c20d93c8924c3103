"""Source `manifest`: a file that lists the images and their labels, as CSV, JSON Lines or JSON.

path,label,split              {"path": "a/1.jpg", "label": "cat"}
a/1.jpg,cat,train             {"path": "a/2.jpg", "label": "dog"}

{"images": [{"id": 7, "file_path": "a/1.jpg"}], "annotations": [{"image_id": 7, "label": "cat"}]}
{"images": [{"file_path": "a/1.jpg", "annotations": [{"class_id": 0, "label": "cat"}]}]}
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from raycls.config.names.suggest import suggest
from raycls.config.paths import expand
from raycls.config.write import override
from raycls.data.ignore import ignorer, leaving_out, patterns_of
from raycls.data.names import SPLIT_WORDS, split_of
from raycls.data.samples import Keys, Samples
from raycls.data.sources.layout import NO_SPLITS, told
from raycls.data.sources.listing.annotations import Category, read_json, record_of
from raycls.data.sources.listing.columns import Columns, bad, record_key
from raycls.data.sources.listing.labels import Label, Labels, declared
from raycls.data.sources.listing.paths import Listing, find_files, key_of, prefixes_of
from raycls.data.sources.listing.tables import Record, Table, read_csv, read_jsonl, read_text
from raycls.data.sources.remote.places import Place, addressed, file_of, place_of
from raycls.errors import DataError
from raycls.progress import counted
from raycls.quantities import first_names

__all__ = ["SUFFIXES", "listed", "listed_records", "manifest", "path_of", "read_records"]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_SPLITS, _ROOT = "data.source.args.splits", "data.source.args.root"
_MOST_WORDS = 1000
"""Different words in a column that may name splits."""


def manifest(
    path: str | Path,
    root: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    strip: str | Sequence[str] | None = None,
    splits: Mapping[str, str] | str | None = None,
    encoding: str | None = None,
    ignore: str | Sequence[str] = (),
    ignore_file: str | None = None,
    about: Sequence[str] = (),
    multilabel: bool | str = False,
) -> Samples:
    """Images listed in a file: `.csv` or `.tsv` with a header, `.jsonl`, or `.json`.

    A row has a path (column `path`, `file`, `file_path`, `image` or `file_name`), a label (`label` or `class`) and,
    for all rows or none, a `split` (train, val, test and their usual other names) and a `class_id`, which gives the
    order of the classes. `columns` says which others are meant (`{path: filename, label: category}`), `splits` what
    other names of splits mean (`{fold1: train}`; `none`: the column does not count). JSON is a list of such rows,
    or has `images`, with annotations inside them or beside them, as COCO has: joined by `images[].id` and
    `annotations[].image_id`, else by position; `categories` name the `category_id` of annotations. Several
    annotations of one class make one sample. An image has any number of classes where its label is a list, or with
    `multilabel`: true for annotations of several classes, or none, and text such as `;` for what divides the labels of
    one cell. Paths are relative to the folder of the manifest, or to `root`, after
    one of the prefixes `strip` is taken away; `\\` divides folders where no file is named so. `ignore` and
    `ignore_file` leave out images by their paths. `about` are columns whose values are kept as they are. Text is UTF-8
    or UTF-16, or as `encoding` says. DataError names the line.
    """
    several = {"about": about, "multilabel": multilabel, "strip": strip, "encoding": encoding}
    return listed(path, lambda place: place, root, columns, splits, ignore, ignore_file, **several)


def listed(
    path: str | Path,
    found_in: Callable[[Place], Place],
    root: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    splits: Mapping[str, str] | str | None = None,
    ignore: str | Sequence[str] = (),
    ignore_file: str | None = None,
    *,
    about: Sequence[str] = (),
    multilabel: bool | str = False,
    strip: str | Sequence[str] | None = None,
    encoding: str | None = None,
) -> Samples:
    """As `manifest`; `found_in` makes the place where what is listed is looked for, such as folders."""
    place, name = file_of(path)
    file, suffix = place.locate(name), os.path.splitext(name)[1].lower()
    if suffix not in SUFFIXES:
        raise DataError(
            "the manifest has an unknown file type", where=file, found=suffix or "no suffix", valid=", ".join(SUFFIXES)
        )
    place = place if root is None else place_of(expand(root, where=_ROOT), where=_ROOT)
    names = Columns(columns)
    records, categories = read_records(file, suffix, read_text(path, encoding), names)
    given = patterns_of(ignore, ignore_file)
    rest = prefixes_of(strip), given, splits, about, multilabel
    return listed_records(file, place, records, categories, names, *rest, found_in=found_in)


def listed_records(
    file: str,
    place: Place,
    records: Sequence[Record],
    categories: Sequence[Category],
    names: Columns,
    prefixes: Sequence[str],
    given: Sequence[str],
    splits: Mapping[str, str] | str | None,
    about: Sequence[str],
    multilabel: bool | str,
    *,
    found_in: Callable[[Place], Place] = lambda place: place,
) -> Samples:
    """The images that the `records` of `file` list, below `place`; `given` are patterns of those that are left out.

    `found_in` is as in `listed`.
    """
    folder, written = place.locate(""), _written(file, records, names)
    keys = [key_of(path, folder, prefixes) for path in written]
    if given:
        records, written, keys = _without(given, records, written, keys)
    if not records:
        raise DataError("the manifest lists no image", where=file)

    def leave_out(rows: Sequence[int]) -> str:
        paths = [key or path for key, path in zip(keys, written, strict=True)]
        lost = dict.fromkeys(paths[row] for row in rows)
        return leaving_out([paths[row] for row in rows], [path for path in paths if path not in lost], given)

    read = Labels(file, names, multilabel, records)
    if not (read.several or isinstance(records, Table)):
        _refuse_unlabelled(file, records, written, leave_out)
    labels, notes = read.of(records, categories, leave_out)
    listing = Listing(written, lambda row: records[row].place)
    place = found_in(addressed(place, [key for key in keys if key is not None]))
    found = find_files(file, place, listing, keys, leave_out)
    _refuse_twice(file, folder, listing, found)
    by_split, mapped = _splits(file, records, names, splits)
    samples = _samples(place, Keys(found), labels, categories, by_split, (*told(mapped), *notes), read.several)
    return replace(samples, about={column: _values(file, records, column) for column in about})


def _without(
    patterns: Sequence[str], records: Sequence[Record], written: Sequence[str], keys: Sequence[str | None]
) -> tuple[Sequence[Record], list[str], list[str | None]]:
    ignored = ignorer(patterns)
    kept = [row for row, key in enumerate(keys) if not ignored(key or written[row])]
    left = records.take(kept) if isinstance(records, Table) else [records[row] for row in kept]
    return left, [written[row] for row in kept], [keys[row] for row in kept]


def read_records(file: str, suffix: str, text: str, names: Columns) -> tuple[Sequence[Record], list[Category]]:
    """The images that a text lists, by the suffix of its file, and the classes that it declares."""
    if suffix == ".json":
        return read_json(file, text)
    if suffix in (".csv", ".tsv"):
        return read_csv(file, text, names), []
    lines = counted(read_jsonl(file, text), "reading the manifest", unit="rows")
    return [record_of(file, place, record) for place, record in lines], []


def _written(file: str, records: Sequence[Record], names: Columns) -> list[str]:
    """The path of each record, as `path_of` has it."""
    if isinstance(records, Table) and len(records):
        key = names.find(file, records[0].place, records[0].fields, "path")
        values = [] if key is None else [value.strip() for value in records.column(key)]
        if values and all(values) and not any("\0" in value for value in values):
            return values
    each = counted(records, "reading the manifest", len(records), "images")
    return [path_of(file, record, names) for record in each]


def path_of(file: str, record: Record, names: Columns) -> str:
    """The path that a record has. DataError names the place of one that has none."""
    key = names.find(file, record.place, record.fields, "path")
    if key is None:
        whole = any(claim.fields is record.fields for claim in record.claims)
        raise names.missing(file, record.place, record.fields, "path", whole=whole)
    value = record.fields[key]
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise bad(file, record.place, f"the {key} is empty or not a string", found=repr(value))
    return value.strip()


def _refuse_unlabelled(
    file: str, records: Sequence[Record], paths: Sequence[str], leave_out: Callable[[Sequence[int]], str]
) -> None:
    without = [index for index, record in enumerate(records) if not record.claims]
    if without:
        raise bad(
            file,
            records[without[0]].place,
            "an image has no annotation" if len(without) == 1 else f"{len(without):,} images have no annotation",
            found=first_names([paths[index] for index in without[:5]], len(without)),
            valid="one class for each image",
            fix=f"annotate them, or {leave_out(without)}",
        )


def _refuse_twice(file: str, folder: str, listed: Listing, found: Sequence[str]) -> None:
    if len(set(found)) == len(found) and not any(key.startswith(("/", "..")) for key in found):
        return
    first: dict[str, int] = {}
    for row, key in enumerate(found):
        image = os.path.normpath(os.path.join(folder, key))  # one path may be relative, the other not
        before = first.setdefault(image, row)
        if before != row:
            shown = f"{listed.paths[row]}, first in {listed.place(before)}"
            raise bad(file, listed.place(row), "an image is listed twice", found=shown)


def _values(file: str, records: Sequence[Record], column: str) -> Keys:
    """The values of a column as texts; empty where a record has none. DataError with the columns where none has it."""
    fields = [{**(record.claims[0].fields if record.claims else {}), **record.fields} for record in records]
    folded = [{key.strip().casefold(): key for key in each} for each in fields]
    keys = [record_key(each, names, column) for each, names in zip(fields, folded, strict=True)]
    if not any(key is not None for key in keys):
        there = dict.fromkeys(
            key for each in fields for key, value in each.items() if not isinstance(value, dict | list)
        )
        near = suggest(column, list(there))
        raise DataError(
            f"there is no column {column}",
            where=file,
            found=", ".join(map(str, there)) or "nothing",
            fix=f"did you mean {near}?" if near else "name one of these",
        )
    values = [None if key is None else each[key] for key, each in zip(keys, fields, strict=True)]
    return Keys("" if value is None else str(value).strip() for value in values)


def _splits(
    file: str, records: Sequence[Record], names: Columns, given: Mapping[str, str] | str | None
) -> tuple[dict[str, list[int]], dict[str, str]]:
    """The rows of each split, and the split that each word in the column stands for."""
    if isinstance(given, str) and given != NO_SPLITS:
        raise DataError("splits must be a mapping or none", where=_SPLITS, found=given, valid="{WORD: train}, or none")
    if given == NO_SPLITS:
        return {}, {}
    words = _split_words(file, records, names)
    if given is None and not names.says("split") and not any(words):
        _refuse_unread(file, records, names)
    known = _meanings(file, records, words, given if isinstance(given, Mapping) else {})
    rows: dict[str, list[int]] = {}
    for index, word in enumerate(words):
        if (word is None) != (words[0] is None):
            what = "this row has no split, others have one" if word is None else "only some rows have a split"
            fix = f"write a split into each row, or leave the column out: {_SPLITS}={NO_SPLITS}"
            raise bad(file, records[index].place, what, fix=fix)
        if word is not None:
            rows.setdefault(known[word], []).append(index)
    return rows, known


def _split_words(file: str, records: Sequence[Record], names: Columns) -> list[str | None]:
    if not isinstance(records, Table):
        return [_split_word(file, record, names) for record in records]
    key = names.find(file, records[0].place, records[0].fields, "split")
    return [None] * len(records) if key is None else [value.strip() or None for value in records.column(key)]


def _split_word(file: str, record: Record, names: Columns) -> str | None:
    """The split of a record, which may stand in its annotations as well."""
    first = record.place, _split_at(file, record.place, record.fields, names)
    for claim in record.claims:
        other = None if claim.fields is record.fields else _split_at(file, claim.place, claim.fields, names)
        if other is not None and first[1] not in (None, other):
            found = f"{first[1]} ({first[0]}), {other} ({claim.place})"
            raise bad(file, claim.place, "an image is in two splits", found=found, valid="one split for each image")
        first = first if other is None else (claim.place, other)
    return first[1]


def _split_at(file: str, place: str, fields: Mapping[str, Any], names: Columns) -> str | None:
    key = names.find(file, place, fields, "split")
    value = None if key is None else fields[key]
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise bad(file, place, "unknown split", found=repr(value), valid=", ".join(SPLIT_WORDS))
    return str(value).strip() or None


def _refuse_unread(file: str, records: Sequence[Record], names: Columns) -> None:
    """DataError where a column that nothing is read from names splits: another cut would train on the test images."""
    place, fields = records[0].place, records[0].fields
    read = {names.find(file, place, fields, field) for field in ("path", "label", "class_id")}
    for key in fields:
        if key in read:
            continue
        table = isinstance(records, Table)
        values: list[Any] = records.column(key) if table else [record.fields.get(key) for record in records]
        if not (table or all(isinstance(value, str) for value in values)):
            continue
        different = set(map(str, values))
        splits = {word: split_of(word) for word in (different if len(different) <= _MOST_WORDS else ())}
        if None not in splits.values() and len(set(splits.values())) > 1:
            raise bad(
                file,
                place,
                f"the column {key} names splits but is not called split",
                found=", ".join(sorted(splits)),
                fix=f"if it is the split: {names.saying({'split': key})} or, if raycls is to cut the splits anew, "
                f"{names.saying({'split': None})}",
            )


def _meanings(
    file: str, records: Sequence[Record], words: Sequence[str | None], given: Mapping[str, str]
) -> dict[str, str]:
    """The split that each word stands for."""
    for word, meant in given.items():
        if not isinstance(meant, str) or split_of(meant) is None:
            raise DataError("unknown split", where=f"{_SPLITS}.{word}", found=str(meant), valid=", ".join(SPLIT_WORDS))
    known: dict[str, str] = {}
    unknown: dict[str, str] = {}
    for index, word in enumerate(words):
        if word is not None and word not in known and word not in unknown:
            split = split_of(given.get(word, word))
            if split is None:
                unknown[word] = records[index].place
            else:
                known[word] = split
    if unknown:
        free = [split for split in ("train", "test", "val") if split not in known.values()]
        example = {word: free.pop(0) if free else "train" for word in unknown}
        raise bad(
            file,
            next(iter(unknown.values())),
            "unknown split",
            found=", ".join(map(repr, list(unknown)[:8])),
            valid=", ".join(SPLIT_WORDS),
            fix=f"say what is meant, such as {override(_SPLITS, dict(given) | example)} "
            f"or, if the column names no splits, {_SPLITS}={NO_SPLITS}",
        )
    return known


def _samples(
    place: Place,
    keys: Keys,
    labels: Sequence[Sequence[Label]],
    categories: Sequence[Category],
    splits: Mapping[str, Sequence[int]],
    notes: Sequence[str],
    several: bool,
) -> Samples:
    different = {id(row): row for row in labels}.values()  # the rows of a table share theirs
    classes, ordered, more = declared([label for row in different for label in row], categories)
    number = {name: index for index, name in enumerate(classes)}
    matrix = np.zeros((len(labels), len(classes)), bool)
    for marks, row in zip(matrix, labels, strict=True) if several else ():
        marks[[number[label.name] for label in row]] = True
    return Samples(
        classes=classes,
        labels=matrix if several else np.array([number[row[0].name] for row in labels], dtype=np.int64),
        keys=keys,
        reader=place.reader(keys),
        splits={name: np.array(index) for name, index in splits.items()} or None,
        ordered=ordered,
        notes=(*notes, *more),
    )
