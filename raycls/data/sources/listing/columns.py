"""Which column of a manifest, or key of its JSON, is the path of an image, its label, its split, its class id."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raycls.config.names.suggest import suggest
from raycls.config.write import override
from raycls.errors import DataError

__all__ = ["Columns", "at", "bad", "record_key"]

_OPTION = "data.source.args.columns"
_NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "path": (("path", "file", "file_path", "image"), ("file_name",)),
    "label": (("label", "class"),),
    "split": (("split",),),
    "class_id": (("class_id",),),
}
"""The names of each field, in small letters; of two in one group it is open which counts, an earlier group wins."""
_PROPOSED = {
    "path": "filename file_name filepath image_path img_path image_name image_file img photo picture fname name "
    "path file image uri url source src image_id id",
    "label": "label labels label_name class class_name classname category category_name target y species breed kind "
    "type tag diagnosis class_id category_id",
}
"""Columns that are proposed where there is none of `_NAMES`, the likeliest first."""
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


class Columns:
    """The names of the columns, as raycls knows them or as the argument `columns` says."""

    def __init__(self, given: Mapping[str, str | None] | None) -> None:
        self._given = dict(given or {})
        self._found: dict[tuple[str, tuple[str, ...]], str | None] = {}
        for field, name in self._given.items():
            if field not in _NAMES or not (isinstance(name, str) or (name is None and field in ("split", "class_id"))):
                raise DataError(
                    "the columns of the manifest are not valid",
                    where=f"{_OPTION}.{field}",
                    found=str(name),
                    valid=f"the name of a column for each of {', '.join(_NAMES)}; null for no split or no class_id",
                )

    def saying(self, said: Mapping[str, str | None]) -> str:
        """The override that says `said` of the columns beside what is said of them already."""
        return override(_OPTION, {**self._given, **said})

    def says(self, field: str) -> bool:
        """Whether the user said which column `field` is, or that there is none."""
        return field in self._given

    def find(self, file: str, place: str, record: Mapping[str, Any], field: str) -> str | None:
        """The key of `record` that holds `field`, or None where there is none. DataError where it is open which."""
        header = (field, tuple(record))  # the same for every row of a table
        if header not in self._found:
            self._found[header] = self._find(file, place, record, field)
        return self._found[header]

    def _find(self, file: str, place: str, record: Mapping[str, Any], field: str) -> str | None:
        folded = {key.strip().casefold(): key for key in record}
        if field in self._given:
            name = self._given[field]
            return None if name is None else record_key(record, folded, name)
        for names in _NAMES[field]:
            found = [folded[name] for name in names if name in folded]
            if len(found) > 1:
                raise bad(
                    file,
                    place,
                    f"several columns may hold the {field}: {', '.join(found)}",
                    found=", ".join(record),
                    valid=f"one of {', '.join(names)}",
                    fix=f"say which: {self.saying(_likely(field, found, record))}",
                )
            if found:
                return found[0]
        return None

    def known(self, header: Sequence[str]) -> bool:
        """Whether a header has a path and a label."""
        names = {name.strip().casefold() for name in header}

        def there(field: str) -> bool:
            given = self._given.get(field)
            choices = [given.casefold()] if given else [name for group in _NAMES[field] for name in group]
            return not names.isdisjoint(choices)

        return there("path") and (there("label") or there("class_id"))

    def missing(self, file: str, place: str, record: Mapping[str, Any], field: str, *, whole: bool) -> DataError:
        """What to say where `record` has no such field: the columns that are there, and the likeliest of them.

        `whole`: the record holds all of a row, so that the other field may be missing too.
        """
        name = self._given.get(field)
        what = f"there is no {field}" if name is None else f"there is no column {name}"
        proposal = dict(self._given)
        for each in ("path", "label"):
            here = each == field or (whole and self.find(file, place, record, each) is None)
            guess = _guess(each, record, set(proposal.values()) - {name}, name) if here else None
            if guess is not None:
                proposal[each] = guess
        fix = f"say which column it is in {_OPTION}"
        if field in proposal and proposal != self._given:
            fix = f"if that is what they hold: {override(_OPTION, proposal)}"
        names = ", ".join(name for group in _NAMES[field] for name in group)
        return bad(
            file,
            place,
            what,
            found=", ".join(map(str, record)) or "nothing",
            valid=f"one of {names}, or the name that {_OPTION} gives",
            fix=fix,
        )


def record_key(record: Mapping[str, Any], folded: Mapping[str, str], name: str) -> str | None:
    """The key of `record` that a user means by `name`: exactly, or but for case and spaces around it."""
    return name if name in record else folded.get(name.strip().casefold())


def _likely(field: str, found: Sequence[str], record: Mapping[str, Any]) -> dict[str, str]:
    """Of several columns for a label, one with names before one with numbers, which are then the ids."""
    if field != "label":
        return {field: found[0]}
    numbers = [key for key in found if str(record[key]).strip().lstrip("+-").isdigit()]
    names = [key for key in found if key not in numbers]
    return {"label": names[0], "class_id": numbers[0]} if names and numbers else {"label": found[0]}


def _guess(field: str, record: Mapping[str, Any], taken: Iterable[Any], wanted: str | None) -> str | None:
    """The column that most likely holds a field."""
    choices = [key for key in record if key.strip() and key not in set(taken)]
    if wanted is not None and (near := suggest(wanted, choices)) is not None:
        return near
    if field == "path":
        files = [key for key in choices if os.path.splitext(str(record[key]).strip())[1].lower() in _IMAGES]
        if files:
            return files[0]
    plain = {key.strip().casefold().replace(" ", "_").replace("-", "_"): key for key in choices}
    named = [plain[name] for name in _PROPOSED[field].split() if name in plain]
    return named[0] if named else None


def bad(
    file: str, place: str, what: str, *, found: str | None = None, valid: str | None = None, fix: str | None = None
) -> DataError:
    """An error at a place of a manifest."""
    return DataError(what, where=at(file, place), found=found, valid=valid, fix=fix)


def at(file: str, place: str) -> str:
    """`file:3` for `line 3`, `file:images[3]` for what has no line, and the file alone for no place."""
    return f"{file}:{place.removeprefix('line ')}" if place else file
