"""JSON manifests: annotations beside the images (COCO), inside them, or a plain list of records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from raycls.data.sources.listing.columns import bad
from raycls.data.sources.listing.tables import Claim, Record, escape_fix, parse_json
from raycls.errors import DataError

__all__ = ["Category", "read_json", "record_of"]

_FORMS = (
    '{"images": [{"file_path": ..., "annotations": [{"label": ...}]}]}, '
    '{"images": [{"id": 1, "file_name": ...}], "annotations": [{"image_id": 1, "label": ... or "category_id": ...}], '
    '"categories": [{"id": ..., "name": ...}]}, or [{"path": ..., "label": ...}]'
)
_ANNOTATIONS = "annotations"


class Category(NamedTuple):
    """A class that the manifest lists."""

    place: str
    id: str
    name: str


def read_json(file: str, text: str) -> tuple[list[Record], list[Category]]:
    """The images of a JSON manifest with what is said about their classes, and the classes that it lists."""
    try:
        content = parse_json(text)
    except ValueError as error:
        place = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise bad(file, place, "not valid JSON", found=str(error), fix=escape_fix(error)) from error
    if isinstance(content, list):
        records = _objects(file, content, "")
        return [record_of(file, f"[{index}]", record) for index, record in enumerate(records)], []
    if not isinstance(content, dict) or "images" not in content:
        raise DataError(
            "the manifest has no list of objects named images", where=file, found=_shown(content), valid=_FORMS
        )
    images = _objects(file, content["images"], "images")
    beside = _objects(file, content.get(_ANNOTATIONS) or [], _ANNOTATIONS)
    categories = _categories(file, _objects(file, content.get("categories") or [], "categories"))
    if beside:
        records = list(_joined(file, images, beside))
    else:
        _identities(file, images, required=False)
        records = [record_of(file, f"images[{index}]", image) for index, image in enumerate(images)]
    by_id = {category.id: category for category in categories}
    whole = all(identity.lstrip("+-").isdigit() for identity in by_id)
    return [_named(file, record, by_id, whole) for record in records], categories


def record_of(file: str, place: str, fields: dict[str, Any]) -> Record:
    """An object that describes an image; its class stands in itself or in its list `annotations` (empty: nowhere)."""
    if _ANNOTATIONS not in fields:
        return Record(place, fields, (Claim(place, fields),))
    inner = _objects(file, fields[_ANNOTATIONS], f"{place}.{_ANNOTATIONS}")
    claims = tuple(Claim(f"{place}.{_ANNOTATIONS}[{index}]", each) for index, each in enumerate(inner))
    return Record(place, fields, claims)


def _objects(file: str, entries: Any, name: str) -> list[dict[str, Any]]:
    wrong = None
    if not isinstance(entries, list):
        wrong = name, entries
    elif others := [index for index, entry in enumerate(entries) if not isinstance(entry, dict)]:
        wrong = f"{name}[{others[0]}]", entries[others[0]]
    if wrong is not None:
        what = f"the manifest has no list of objects named {name}" if name else "the manifest is not a list of objects"
        raise bad(file, wrong[0], what, found=_shown(wrong[1]), valid=_FORMS)
    return entries


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _joined(file: str, images: Sequence[dict[str, Any]], beside: Sequence[dict[str, Any]]) -> Iterator[Record]:
    """Images with the annotations that stand beside them."""
    for index, image in enumerate(images):
        if image.get(_ANNOTATIONS):
            raise bad(
                file,
                f"images[{index}].{_ANNOTATIONS}",
                "the manifest has annotations both inside the images and beside them",
                found=f"{len(beside)} annotations beside the images",
                valid="one of the two",
            )
    with_id = [index for index, each in enumerate(beside) if "image_id" in each]
    if not with_id:
        if len(images) != len(beside):
            raise DataError(
                "cannot match images and annotations by position",
                where=file,
                found=f"{len(images)} images, {len(beside)} annotations",
                valid="one annotation for each image, or annotations with an image_id",
            )
        for index, (image, each) in enumerate(zip(images, beside, strict=True)):
            yield Record(f"images[{index}]", image, (Claim(f"{_ANNOTATIONS}[{index}]", each),))
        return
    if len(with_id) < len(beside):
        first = next(index for index in range(len(beside)) if "image_id" not in beside[index])
        found = f"{len(with_id)} of {len(beside)}"
        raise bad(file, f"{_ANNOTATIONS}[{first}]", "only some annotations have an image_id", found=found)
    places = _identities(file, images, required=True)
    claims: dict[str, list[Claim]] = {}
    for index, each in enumerate(beside):
        place = f"{_ANNOTATIONS}[{index}]"
        claims.setdefault(_identity(file, place, each, "image_id"), []).append(Claim(place, each))
    for identity, first in claims.items():
        if identity not in places:
            what = "an annotation names an image that is not listed"
            raise bad(file, first[0].place, what, found=f"image_id {identity}", valid="the id of one of images")
    for (identity, place), image in zip(places.items(), images, strict=True):
        yield Record(place, image, tuple(claims.get(identity, ())))


def _identities(file: str, images: Sequence[dict[str, Any]], *, required: bool) -> dict[str, str]:
    """The place of each image by its id, in the order of the images."""
    places: dict[str, str] = {}
    for index, image in enumerate(images):
        place = f"images[{index}]"
        if not required and image.get("id") is None:
            continue
        identity = _identity(file, place, image, "id")
        if identity in places:
            raise bad(file, place, "an id is used twice", found=f"id {identity}, first in {places[identity]}")
        places[identity] = place
    return places


def _identity(file: str, place: str, fields: Mapping[str, Any], name: str) -> str:
    """An id as text: `7`, `7.0` and `"7"` are one."""
    value = fields.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise bad(file, place, f"the {name} is missing, or is neither an integer nor a string", found=_shown(value))
    return str(value)


def _categories(file: str, entries: Sequence[dict[str, Any]]) -> list[Category]:
    found: dict[str, Category] = {}
    for index, entry in enumerate(entries):
        place = f"categories[{index}]"
        identity = _identity(file, place, entry, "id")
        name = entry.get("name")
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            raise bad(file, place, "a category has no name", found=_shown(entry))
        if identity in found:
            first = found[identity].place
            raise bad(file, place, "an id is used twice", found=f"id {identity}, first in {first}")
        found[identity] = Category(place, identity, str(name))
    return list(found.values())


def _named(file: str, record: Record, categories: Mapping[str, Category], whole: bool) -> Record:
    """The record with the names of its categories as labels, and their ids as class ids where all are `whole`."""
    claims: list[Claim] = []
    for claim in record.claims:
        if "category_id" not in claim.fields:
            claims.append(claim)
            continue
        identity = _identity(file, claim.place, claim.fields, "category_id")
        if categories and identity not in categories:
            raise bad(
                file,
                claim.place,
                "this category is not among the categories",
                found=f"category_id {identity}",
                valid=f"one of {', '.join(list(categories)[:12])}",
            )
        fields = {"class_id": claim.fields["category_id"], **claim.fields} if whole else dict(claim.fields)
        if categories:
            name = categories[identity].name
            own = fields.get("label", fields.get("class", name))
            if str(own).strip() != name.strip():
                found = f"label {_shown(own)}, category_id {identity} is {name}"
                raise bad(file, claim.place, "the label is not the name of its category", found=found)
            fields = {key: value for key, value in fields.items() if key != "class"} | {"label": name}
        claims.append(Claim(claim.place, fields))
    return record._replace(claims=tuple(claims))
