"""Source `webdataset`: tar shards in which the files of a sample stand under one name.

shards/train-0000.tar:  cat/001.jpg cat/001.cls cat/002.jpg cat/002.cls
shards/val-0000.tar:    003.png 003.json
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raycls.config.names.suggest import suggest
from raycls.config.paths import expand
from raycls.config.write import override
from raycls.data.ignore import ignorer, leaving_out, patterns_of
from raycls.data.samples import Keys, Samples
from raycls.data.sources.layout import told
from raycls.data.sources.listing.tables import parse_json
from raycls.data.sources.packed.files import MOST_OPENED
from raycls.data.sources.packed.labels import labels_of
from raycls.data.sources.packed.named import by_split, found_shards, split_rows
from raycls.data.sources.packed.ranges import open_ranges
from raycls.data.sources.packed.tar import Member, members
from raycls.data.sources.packed.tar_images import TarImages
from raycls.data.sources.remote.address import is_remote
from raycls.data.sources.remote.places import Place, file_of
from raycls.data.sources.remote.stored import Stored
from raycls.data.sources.shards import Shards
from raycls.errors import DataError
from raycls.progress import counted

__all__ = ["webdataset"]

_IMAGES = ("jpg", "jpeg", "png", "webp", "jpe", "jfif", "bmp", "tif", "tiff", "gif")
_FIELDS = ("label", "labels", "class", "class_name", "cls")
_COLUMNS, _CLASSES = "data.source.args.columns", "data.source.args.classes"
_NAME = re.compile(r"((?:.*/|)[^./][^./]*)\.([^/]*)")
_META = re.compile(r"__[^/]*__($|/)")
"""Members that the format keeps for what is no sample."""
_THREADS = 8
_LARGEST = 1 << 24
"""Bytes of a label, or of what else is said of a sample."""


def webdataset(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    classes: str | Sequence[str] | None = None,
    splits: Mapping[str, str] | str | None = None,
    ignore: str | Sequence[str] = (),
    ignore_file: str | None = None,
    about: Sequence[str] = (),
) -> Samples:
    """Images in tar shards: one `.tar`, all in a folder, or those of a pattern (`shards/train-{0000..0127}.tar`); on a
    disk or behind an address.

    Files of a shard belong to one sample where their names are equal up to the first dot of the last part; what comes
    after it, in small letters, says what a file is. The image is that with the suffix of one; the label is `cls`, else
    the field `label` (or `class`) of `json`, else `txt`; `columns` names others (`{image: left.jpg, label:
    json.species}`). A label is an integer, a string, or in JSON a list of these. `classes` are the names that integers
    stand for, in their order, or a file with one a line. Shards or folders named like splits are splits; `splits` says
    what other names mean (`{fold1: train}`; `none`: there are none). `ignore` and `ignore_file` leave out shards, and
    members by `SHARD/NAME`. `about` are fields of `json`, or suffixes. Compressed shards are refused, and so are links,
    devices and names that lead out of the archive. Opening reads the header of every member; the place of each image is
    kept, 16 bytes and its name. DataError names the shard and the member.
    """
    place, names = found_shards(os.fspath(path), (".tar", (".tar.gz", ".tgz")))
    given = patterns_of(ignore, ignore_file)
    ignored = ignorer(given)
    names = [name for name in names if not ignored(name)]
    if not names:
        where = place.locate("")
        raise DataError("there is no tar shard", where=where, valid="a file, or a folder of files, named *.tar")
    files = Stored.of(place, names)
    tables = _Wanted(files, columns or {}, tuple(about), given, ignored).tables()
    by_name, mapped = by_split(place.locate(""), names, splits, ".tar")
    shards = Shards.of([len(table.keys) for table in tables], most=MOST_OPENED)
    keys = [key for table in tables for key in table.keys]
    labels, matrix, ordered = labels_of(
        [label for table in tables for label in table.labels],
        _declared(classes, place),
        lambda row: place.locate(keys[row]),
        lambda row: f"correct {_CLASSES}, or {leaving_out([keys[row]], keys, given)}",
    )
    reader = TarImages(
        files,
        tuple(table.size for table in tables),
        shards,
        Keys(keys),
        np.array([each for table in tables for each in table.places], np.int64).reshape(-1, 2),
    )
    return Samples(
        labels,
        matrix,
        reader.keys,
        reader,
        split_rows(shards, map(by_name.get, names)) or None,
        ordered=ordered,
        notes=told(mapped),
        about={name: [text for table in tables for text in table.about[name]] for name in about},
    )


@dataclass
class _Table:
    """What is known of a shard before any image is read."""

    size: int
    keys: list[str] = field(default_factory=list[str])
    places: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Where the bytes of each image begin, and how many they are."""
    labels: list[Any] = field(default_factory=list[Any])
    about: dict[str, list[str]] = field(default_factory=dict[str, "list[str]"])


@dataclass
class _Wanted:
    """What is read of each sample."""

    files: Stored
    columns: Mapping[str, str]
    about: tuple[str, ...]
    given: tuple[str, ...]
    ignored: Callable[[str], bool]
    label: str = ""
    """A suffix, or `json.FIELD`."""
    scanned: dict[int, dict[str, dict[str, Member]]] = field(default_factory=dict[int, "dict[str, dict[str, Member]]"])
    """The shards that were looked at to decide; each is read once."""

    def tables(self) -> list[_Table]:
        """What is known of each shard; where the labels are, the first sample says."""
        count = len(self.files.names)
        first = next((number for number in range(count) if self.scan(number)), None)
        if first is None:
            raise DataError("the shards hold no sample", where=self.files.place.locate(""), found=f"{count} shards")
        self.decide(first, next(iter(self.scanned[first].values())))
        with ThreadPoolExecutor(_THREADS) as pool:  # a header is a round trip where the files are on a network
            found = pool.map(self.index, range(count))
            return list(counted(found, "reading the headers of the shards", count, "shards"))

    def scan(self, number: int) -> dict[str, dict[str, Member]]:
        self.scanned[number] = self.samples(number)
        return self.scanned[number]

    def keeps(self, name: str) -> bool:
        """Whether the content of a member is read while its header is passed: an object is read once then."""
        parts = _NAME.fullmatch(name)
        suffix = parts[2].lower() if parts else ""
        return not self._is_image(suffix) and (
            not self.label or suffix in (self.label.partition(".")[0], "json", *self.about)
        )

    def samples(self, number: int) -> dict[str, dict[str, Member]]:
        """The files of each sample of a shard by their suffixes, in the order in which the samples begin."""
        name, file = self.files.names[number], self.files.locate(number)
        found, left_out = dict[str, dict[str, Member]](), set[str]()
        for member in members(self.files, number, self.keeps):
            if member.name.rpartition("/")[2].startswith(".") or _META.match(member.name):
                continue
            parts = _NAME.fullmatch(member.name)
            if self.ignored(f"{name}/{member.name}"):
                if parts is not None and self._is_image(parts[2].lower()):
                    left_out.add(parts[1])  # with all that is said of it
                continue
            if parts is None:
                raise DataError(
                    "a member of a shard has no suffix that says what it is",
                    where=f"{file}: {member.name}",
                    valid="names such as 0001.jpg and 0001.cls",
                    fix=leaving_out([f"{name}/{member.name}"], (), self.given),
                )
            sample, suffix = found.setdefault(parts[1], {}), parts[2].lower()
            if suffix in sample:
                raise DataError(
                    "a sample has two members of one suffix",
                    where=f"{file}: {member.name}",
                    found=f"{sample[suffix].name}, {member.name}",
                    valid="one file of each suffix for each name up to the first dot",
                    fix=leaving_out([f"{name}/{member.name}"], (), self.given),
                )
            sample[suffix] = member
        return {key: sample for key, sample in found.items() if key not in left_out}

    def _is_image(self, suffix: str) -> bool:
        return suffix == self.columns["image"] if "image" in self.columns else suffix in _IMAGES

    def decide(self, number: int, sample: Mapping[str, Member]) -> None:
        """Find out where the labels are, from one sample."""
        unknown = sorted(set(self.columns) - {"image", "label"})
        if unknown:
            raise DataError("unknown column", where=_COLUMNS, found=unknown[0], valid="image, label")
        if "label" in self.columns:
            self.label = self.columns["label"]
            return
        fields = self._json(number, sample) if "json" in sample else {}
        named = [key for key in _FIELDS if key in fields]
        choices = ["cls"] if "cls" in sample else [f"json.{key}" for key in named]
        choices = choices or [suffix for suffix in ("txt",) if suffix in sample]
        if len(choices) == 1:
            self.label = choices[0]
            return
        there = [*(suffix for suffix in sample if suffix not in (*_IMAGES, "json")), *(f"json.{key}" for key in fields)]
        example = override(f"{_COLUMNS}.label", (choices or there or ["cls"])[0])
        raise DataError(
            "several things may be the label" if choices else "nothing is known to be the label",
            where=self._where(number, sample),
            found=", ".join(choices or there) or "images alone",
            valid="cls, a field of json called label or class, or txt",
            fix=f"name it, such as {example}",
        )

    def index(self, number: int) -> _Table:
        """What is known of the samples of a shard."""
        name = self.files.names[number]
        table = _Table(self.files.size(number), about={column: [] for column in self.about})
        reads = self.label not in ("", "cls") or self.about
        samples = self.scanned.pop(number, None)
        for sample in (self.samples(number) if samples is None else samples).values():
            image = self._image(number, sample)
            table.keys.append(f"{name}/{image.name}")
            table.places.append((image.offset, image.size))
            fields = self._json(number, sample) if reads and "json" in sample else {}
            table.labels.append(self._label(number, sample, fields))
            for column in self.about:
                table.about[column].append(self._about(number, sample, fields, column))
        return table

    def _where(self, number: int, sample: Mapping[str, Member]) -> str:
        return f"{self.files.locate(number)}: {next(iter(sample.values())).name}"

    def _leaving_out(self, number: int, sample: Mapping[str, Member]) -> str:
        return leaving_out([f"{self.files.names[number]}/{member.name}" for member in sample.values()], (), self.given)

    def _image(self, number: int, sample: Mapping[str, Member]) -> Member:
        given = self.columns.get("image")
        suffixes = [*filter(self._is_image, sample)]
        if len(suffixes) == 1:
            return sample[suffixes[0]]
        leave_out = self._leaving_out(number, sample)
        which = override(f"{_COLUMNS}.image", (suffixes or ["jpg"])[0])
        raise DataError(
            "a sample has several images" if suffixes else "a sample has no image",
            where=self._where(number, sample),
            found=", ".join(sample),
            valid=given or f"one of {', '.join(_IMAGES)}",
            fix=f"say which one it is, such as {which} , or {leave_out}" if suffixes else leave_out,
        )

    def _label(self, number: int, sample: Mapping[str, Member], fields: Mapping[str, Any]) -> Any:
        suffix, dot, inner = self.label.partition(".")
        if suffix == "json" and dot:
            value = fields.get(inner)
        elif self.label in sample:
            text = self._text(number, sample[self.label])
            is_number = re.fullmatch(r"-?[0-9]{1,18}", text) and (suffix == "cls" or text == str(int(text)))
            value = int(text) if is_number else text or None
        else:
            value = None
        if value is None:
            near = suggest(inner or self.label, list(fields) if dot else list(sample))
            found = ", ".join([*sample, *(f"json.{key}" for key in fields)])
            raise DataError(
                f"a sample has no label {self.label}",
                where=self._where(number, sample),
                found=f"{found}; did you mean {near}?" if near else found,
                fix=f"add it, name another in {_COLUMNS}.label, or {self._leaving_out(number, sample)}",
            )
        return int(value) if isinstance(value, float) and value.is_integer() else value

    def _about(self, number: int, sample: Mapping[str, Member], fields: Mapping[str, Any], column: str) -> str:
        if column in fields:
            return "" if fields[column] is None else str(fields[column])
        if column in sample:
            return self._text(number, sample[column])
        near = suggest(column, [*fields, *sample])
        raise DataError(
            f"there is no column {column}",
            where=self._where(number, sample),
            found=", ".join([*fields, *sample]),
            fix=f"did you mean {near}?" if near else "name one of these",
        )

    def _text(self, number: int, member: Member) -> str:
        """What a small member says. DataError where it is no UTF-8 text."""
        place = f"{self.files.locate(number)}: {member.name}"
        if member.size > _LARGEST:
            raise DataError("a label is too large", where=place, found=f"{member.size:,} bytes")
        data = member.content
        if data is None:
            data = open_ranges(self.files, number).read(member.size, member.offset)
        try:
            return data.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise DataError("a label is not UTF-8 text", where=place, found=str(error)) from error

    def _json(self, number: int, sample: Mapping[str, Member]) -> dict[str, Any]:
        text = self._text(number, sample["json"])
        try:
            found = parse_json(text)
        except (ValueError, RecursionError) as error:
            found = error
        if not isinstance(found, dict):
            place = f"{self.files.locate(number)}: {sample['json'].name}"
            raise DataError("this is not a JSON object", where=place, found=str(found)[:200] or text[:60])
        return found


def _declared(classes: str | Sequence[str] | None, place: Place) -> Sequence[str] | None:
    """The names of the classes that are given, or that a file lists: an address, or a path from the folder of the
    shards, or here."""
    if not isinstance(classes, str):
        return classes
    given = expand(classes, where=_CLASSES)
    beside = not is_remote(given) and not os.path.isabs(given) and place.is_file(given)
    place, name = (place, given) if beside else file_of(given, where=_CLASSES)
    try:
        with place.open(name) as stream:
            text = stream.read().decode("utf-8-sig")
        found = json.loads(text) if name.endswith(".json") else text.splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            "cannot read the names of the classes",
            where=place.locate(name) if beside else given,
            found=getattr(error, "strerror", None) or str(error),
            valid="UTF-8 text with one name per line",
            fix=f"check {_CLASSES}",
        ) from error
    if not isinstance(found, list) or not all(isinstance(name, str) and name.strip() for name in found):
        where = place.locate(name)
        raise DataError("a name of a class is empty or no string", where=where, valid="one name per line, in order")
    return found
