"""The class or classes of each image that a manifest lists, from one or several annotations, and their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from raycls.data.names import in_order, integers, same_form
from raycls.data.sources.listing.annotations import Category
from raycls.data.sources.listing.columns import Columns, bad
from raycls.data.sources.listing.tables import Record, Table
from raycls.progress import counted

__all__ = ["Label", "Labels", "declared"]


class Label(NamedTuple):
    """The class of an image, and where that is said."""

    place: str
    name: str
    id: int | None
    """Its class id, where the manifest has ids."""


class _Said(NamedTuple):
    """What one annotation says."""

    place: str
    name: str | None
    id: int | None

    @property
    def silent(self) -> bool:
        return self.name is None and self.id is None


class Labels:
    """Reads the labels of `records`. `several`: whether an image may have any number of classes.

    That is so where a label is a list, or where `multilabel` says so; text there divides the labels of one string.
    """

    def __init__(self, file: str, columns: Columns, multilabel: bool | str, records: Sequence[Record]) -> None:
        self.file, self.columns = file, columns
        self.divider = multilabel if isinstance(multilabel, str) else ""
        texts = isinstance(records, Table)  # its values are no lists
        self.several = bool(multilabel) or any(
            key is not None and isinstance(fields[key], list)
            for record in (() if texts else records)
            for place, fields in (*record.claims, (record.place, record.fields))
            for key in (columns.find(file, place, fields, "label"),)
        )

    def of(
        self, records: Sequence[Record], categories: Sequence[Category], leave_out: Callable[[Sequence[int]], str]
    ) -> tuple[list[list[Label]], list[str]]:
        """The classes of each record, and lines on how they were read; one class for each unless `several`.

        `leave_out` gives the remedy that leaves out the records at some positions. DataError with the place of what
        contradicts itself.
        """
        firsts, kinds = self._kinds(records)
        counting = counted(firsts, "reading the labels", len(firsts), "images")
        said = [_said(self.file, record, self.columns, self._parts) for record in counting]
        renamed = integers(list({each.name for row in said for each in row if each.name is not None}))
        if renamed:
            said = [[each._replace(name=renamed.get(each.name or "", each.name)) for each in row] for row in said]
        names = _names(self.file, said, categories, self.columns)
        ids = {name: identity for identity, name in names.items()}
        labels = [[_label_of(each, names, ids) for each in row] for row in said]
        _refuse_without_id(self.file, labels, self.columns)
        if not self.several:
            _refuse_two_classes(self.file, labels, leave_out)
        if kinds is not None:
            labels = [labels[kind] for kind in kinds]
        told = next((f"data: {old} and the like are read as {new}" for old, new in renamed.items() if old != new), None)
        return labels, [told] if told else []

    def _kinds(self, records: Sequence[Record]) -> tuple[Sequence[Record], list[int] | None]:
        """Of a table the first row of each kind of label, and the kind of each row: rows of one kind say the same.

        Other records one by one, and None. Whatever is wrong about a kind is wrong about its first row.
        """
        if not isinstance(records, Table):
            return records, None
        first = records[0]
        keys = [self.columns.find(self.file, first.place, first.fields, field) for field in ("label", "class_id")]
        of: dict[tuple[str, ...], int] = {}
        values = zip(*(records.column(key) for key in keys if key is not None), strict=True)
        kinds = [of.setdefault(value, len(of)) for value in values] if any(keys) else [0] * len(records)
        starts: dict[int, int] = {}
        for row, kind in enumerate(kinds):
            if kind == len(starts):
                starts[kind] = row
        return [records[row] for row in starts.values()], kinds

    def _parts(self, value: Any) -> list[Any]:
        """The labels in a value: all of a list, of a divided text, or the one that it is."""
        if not self.several or not isinstance(value, list | str):
            return [value]
        if isinstance(value, str):
            parts = value.split(self.divider) if self.divider else [value]
            return [part for part in parts if part.strip()]
        return value


def _label_of(said: _Said, names: Mapping[int, str], ids: Mapping[str, int]) -> Label:
    if said.name is None:
        return Label(said.place, names.get(said.id or 0, str(said.id)), said.id)
    return Label(said.place, said.name, ids.get(said.name) if said.id is None else said.id)


def _refuse_without_id(file: str, labels: Sequence[Sequence[Label]], columns: Columns) -> None:
    without = next((label for row in labels for label in row if label.id is None), None)
    if without is not None and any(label.id is not None for row in labels for label in row):
        fix = f"leave the ids out: {columns.saying({'class_id': None})}"
        raise bad(file, without.place, "this label has no class_id, others have one", found=without.name, fix=fix)


def _refuse_two_classes(
    file: str, labels: Sequence[Sequence[Label]], leave_out: Callable[[Sequence[int]], str]
) -> None:
    torn = [index for index, row in enumerate(labels) if any(label.name != row[0].name for label in row)]
    if torn:
        first = labels[torn[0]][0]
        other = next(label for label in labels[torn[0]] if label.name != first.name)
        more = f", and {len(torn) - 1:,} more such images" if len(torn) > 1 else ""
        raise bad(
            file,
            other.place,
            "an image has annotations of two classes",
            found=f"{first.name} ({first.place}), {other.name} ({other.place}){more}",
            valid="one class for each image, in one annotation or several; any number with task.name=multilabel and "
            "data.source.args.multilabel=true",
            fix=f"keep the annotations of one class, or {leave_out(torn)}",
        )


def declared(labels: Sequence[Label], categories: Sequence[Category]) -> tuple[list[str], bool, list[str]]:
    """The classes, whether ids declare their order, and what is to be told of them."""
    used = {label.name for label in labels}
    order = {label.id: label.name for label in labels if label.id is not None}
    if not order:
        return in_order(used), False, []
    if all(_integer(category.id) is not None for category in categories):
        order |= {int(category.id): same_form(category.name) for category in categories}
    classes = [order[identity] for identity in sorted(order)]
    unused = [name for name in classes if name not in used]
    shown = ", ".join(unused[:5]) + (f" and {len(unused) - 5} more" if len(unused) > 5 else "")
    return classes, True, [f"data: {len(unused)} of {len(classes)} categories have no image: {shown}"] if unused else []


def _said(file: str, record: Record, columns: Columns, parts: Callable[[Any], list[Any]]) -> list[_Said]:
    """What each annotation of a record says, and the record itself where it says anything besides."""
    found = [_read(file, claim.place, claim.fields, columns, parts) for claim in record.claims]
    inside = not record.claims or record.claims[0].fields is not record.fields
    own = _read(file, record.place, record.fields, columns, parts) if inside else []
    answered = inside and not any(each.silent for each in own)  # an empty list is an answer
    own = [each for each in own if not each.silent]
    for read, claim in zip(found, record.claims, strict=True):
        if any(each.silent for each in read) and not answered:
            whole = claim.fields is record.fields
            raise columns.missing(file, claim.place, claim.fields, "label", whole=whole)
    return own + [each for read in found for each in read if not each.silent]


def _read(
    file: str, place: str, fields: Mapping[str, Any], columns: Columns, parts: Callable[[Any], list[Any]]
) -> list[_Said]:
    key = columns.find(file, place, fields, "label")
    identity = columns.find(file, place, fields, "class_id")
    number = (
        None if identity is None or identity == key else _class_id(file, place, identity, fields[identity], columns)
    )
    if key is None:
        return [_Said(place, None, number)]
    named = parts(fields[key])
    if number is not None and len(named) != 1:
        raise bad(
            file,
            place,
            "a class_id stands beside several labels",
            found=f"class_id {number}, {fields[key]!r}",
            fix=f"leave the ids out: {columns.saying({'class_id': None})}",
        )
    return [_Said(place, _label(file, place, key, value), number) for value in named]


def _label(file: str, place: str, key: str, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not same_form(value) or "\0" in value:
        raise bad(file, place, f"the {key} is empty or not a string", found=repr(value))
    return same_form(value)


def _class_id(file: str, place: str, key: str, value: Any, columns: Columns) -> int | None:
    if value is None or value == "":
        return None
    number = _integer(value)
    if number is None:
        raise bad(
            file,
            place,
            f"the {key} is not an integer",
            found=repr(value),
            fix=f"if it is no number of the class: {columns.saying({'class_id': None})}",
        )
    return number


def _integer(value: Any) -> int | None:
    """`3`, `3.0`, `"3"` and `"3.0"` as 3; None for what is no integer."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    text = str(value).strip()
    text = integers([text]).get(text, text)
    return int(text) if text.lstrip("+-").isdecimal() and len(text) < 300 else None


def _names(
    file: str, said: Sequence[Sequence[_Said]], categories: Sequence[Category], columns: Columns
) -> dict[int, str]:
    """The label of each class id. DataError where one has two, or where two have one."""
    label: dict[int | None, _Said] = {}
    owner: dict[str, _Said] = {}
    listed = [_Said(each.place, same_form(each.name), _integer(each.id)) for each in categories]
    given = [each for each in listed if each.id is not None]
    given += [each for row in said for each in row if each.id is not None and each.name is not None]
    fix = f"if the ids are no numbers of the classes: {columns.saying({'class_id': None})}"
    for each in given:
        first = label.setdefault(each.id, each)
        if first.name != each.name:
            found = f"class_id {each.id}: {first.name} ({first.place}), {each.name} ({each.place})"
            raise bad(file, each.place, "one class_id has two labels", found=found, fix=None if categories else fix)
        first = owner.setdefault(str(each.name), each)
        if first.id != each.id:
            found = f"{each.name}: class_id {first.id} ({first.place}), {each.id} ({each.place})"
            raise bad(file, each.place, "one label has two class_ids", found=found, fix=None if categories else fix)
    if label and any(each.name is None and each.id not in label for row in said for each in row):
        lost = next(each for row in said for each in row if each.name is None and each.id not in label)
        raise bad(file, lost.place, "this class_id has no label, others have one", found=f"class_id {lost.id}")
    return {identity: str(each.name) for identity, each in label.items() if identity is not None}
