"""The text of a manifest as records: CSV as spreadsheets write it, and JSON Lines."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

from raycls.config.write import override
from raycls.data.sources.listing.columns import Columns, bad
from raycls.data.sources.remote.places import file_of
from raycls.errors import DataError
from raycls.progress import counted

__all__ = ["Claim", "Record", "Table", "escape_fix", "parse_json", "read_csv", "read_jsonl", "read_text"]

_HALVES = "surrogatepass"
_AT_ONCE = 4096
"""Rows that become parts of columns together; and different values of a column up to which equal ones are one text."""

_DELIMITERS = (",", ";", "\t", "|")
_SEPARATOR = re.compile(r"\ufeff?\"?sep=(.)\"?\r?\n?")


class Claim(NamedTuple):
    """What a manifest says about the class of an image."""

    place: str
    fields: dict[str, Any]


class Record(NamedTuple):
    """One image of a manifest."""

    place: str
    """Where it is: `line 3`, or `images[3]`."""
    fields: dict[str, Any]
    """The columns of the row, or the keys of the object."""
    claims: tuple[Claim, ...]
    """Where its class is said: the row itself, or annotations."""


class Table(Sequence[Record]):
    """Rows of one header, kept by column: of a million of them no object is made until one is asked for."""

    def __init__(self, header: Sequence[str], lines: array[int], columns: Sequence[list[str]]) -> None:
        self._header, self._lines, self._columns = tuple(header), lines, columns

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Table: ...
    def __getitem__(self, index: int | slice) -> Record | Table:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        place = f"line {self._lines[index]}"
        fields: dict[str, Any] = dict(zip(self._header, (column[index] for column in self._columns), strict=True))
        return Record(place, fields, (Claim(place, fields),))

    def take(self, rows: Sequence[int]) -> Table:
        """The rows at these positions."""
        lines = array("L", (self._lines[row] for row in rows))
        return Table(self._header, lines, [[column[row] for row in rows] for column in self._columns])

    def column(self, name: str) -> list[str]:
        """The values of a column; of several without a name that of the last."""
        return self._columns[len(self._header) - 1 - self._header[::-1].index(name)]


def read_text(path: str | os.PathLike[str], encoding: str | None) -> str:
    """The text of a file: UTF-8, UTF-16 as Excel and PowerShell write it, or as `encoding` says."""
    place, name = file_of(path)
    file = place.locate(name)
    try:
        with place.open(name) as stream:
            data = stream.read()
    except OSError as error:
        raise DataError(
            "cannot read the manifest", where=file, found=error.strerror or str(error), fix="check data.source.path"
        ) from error
    try:
        return data.decode(encoding or _encoding(data))
    except (UnicodeDecodeError, LookupError) as error:
        other = override("data.source.args.encoding", "cp1252")
        raise DataError(
            f"the manifest is not {encoding or 'UTF-8'} text",
            where=file,
            found=str(error),
            valid="UTF-8 or UTF-16, or the encoding that data.source.args.encoding names",
            fix=f"save it as UTF-8, or name its encoding; that of many Windows programs is {other}",
        ) from error


def _encoding(data: bytes) -> str:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return encoding
    if len(data) > 1 and len(data) % 2 == 0 and (data[0] == 0) != (data[1] == 0):  # a first ASCII letter in 2 bytes
        return "utf-16-be" if data[0] == 0 else "utf-16-le"
    return "utf-8"


def read_csv(file: str, text: str, columns: Columns) -> Table:
    """The rows of a table, whatever separates its columns. DataError names the line."""
    separator = _SEPARATOR.match(text)  # a line by which Excel is told the separator
    skipped = 0 if separator is None else 1
    if separator is None:
        delimiter = _delimiter(text, columns, "\t" if file.lower().endswith(".tsv") else ",")
    else:
        text, delimiter = text[separator.end() :], separator[1]
    # StringIO would keep four bytes of each character
    lined = io.TextIOWrapper(io.BytesIO(text.encode("utf-8", _HALVES)), "utf-8", _HALVES, newline="")
    reader = csv.reader(lined, delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        named = [name.casefold() for name in header if name]
        if len(set(named)) < len(named):
            raise bad(file, f"line {1 + skipped}", "the manifest has a column twice", found=", ".join(header))
        kept, lines, rows = _Kept(len(header)), array("L"), list[list[str]]()
        for values in counted(reader, "reading the manifest", unit="rows"):
            if not (values and values[0].strip()) and not any(value.strip() for value in values):
                continue  # a blank line, or a row of a spreadsheet that was emptied
            if len(values) != len(header):
                raise bad(
                    file,
                    f"line {reader.line_num + skipped}",
                    f"this row has {len(values)} columns, the header has {len(header)}",
                    fix="quote values that hold the separator of the columns",
                )
            rows.append(values)
            lines.append(reader.line_num + skipped)
            if len(rows) == _AT_ONCE:
                kept.add(rows)
                rows.clear()
    except csv.Error as error:
        raise bad(file, f"line {reader.line_num + skipped}", "not valid CSV", found=str(error)) from error
    kept.add(rows)
    return Table(header, lines, kept.columns)


class _Kept:
    """Columns that grow, in which equal texts are one while there are not too many of them."""

    def __init__(self, count: int) -> None:
        self.columns = [list[str]() for _ in range(count)]
        self._texts = [dict[str, str]() for _ in range(count)]

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        for column, texts, values in (
            zip(self.columns, self._texts, zip(*rows, strict=True), strict=True) if rows else ()
        ):
            few = len(texts) < _AT_ONCE
            column.extend(map(texts.setdefault if few else texts.get, values, values))


def _delimiter(text: str, columns: Columns, usual: str) -> str:
    """What separates the columns: that with which the header names what is needed, else that which it has most of."""
    line = io.StringIO(text, newline="").readline()
    found: dict[str, int] = {}
    for delimiter in (usual, *(other for other in _DELIMITERS if other != usual)):
        try:
            header = next(csv.reader([line], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        if columns.known(header):
            return delimiter
        found[delimiter] = len(header)
    return max(found, key=lambda delimiter: found[delimiter], default=usual)


def read_jsonl(file: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The place and the object of each line. DataError names the line."""
    for number, line in enumerate(io.StringIO(text), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            record = parse_json(line)
        except ValueError as error:
            raise bad(file, place, "this line is not valid JSON", found=str(error), fix=escape_fix(error)) from error
        if not isinstance(record, dict):
            raise bad(file, place, "this line is not a JSON object", found=line.strip()[:60])
        yield place, record


def parse_json(text: str) -> Any:
    """What a JSON text says. ValueError where it is none, or says two things of one key, of which `json` takes one."""
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        for key, value in pairs:
            if value != fields[key]:
                raise ValueError(f"one object has the key {key} twice, with {value!r} and {fields[key]!r}")
    return fields


def escape_fix(error: ValueError) -> str | None:
    """What to do about a path of Windows that was pasted into JSON."""
    return "in JSON a backslash is written twice, and / will do as well" if "escape" in str(error) else None
