"""Options that are text: `run.name=001` is the name 001, whatever number YAML would read there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from raycls.config.errors import Path
from raycls.config.sections.run import Run
from raycls.config.sections.types import Section, child
from raycls.config.yaml_text import Document

__all__ = ["as_written", "is_text", "item_is_text", "keep_texts"]

_SPACE = ("search", "space")


def as_written(document: Document) -> Document:
    """`document`, with the text itself where an option is text and YAML read a number or a boolean.

    `true` and `false` stay what they are where the option can be `off`, for which they may be meant; null is nothing
    everywhere. So does what lies in a free mapping, such as `model.args`.
    """
    for path, text in document.texts.items():
        option = _text_option(path)
        holder: Any = document.values
        for part in path[:-1]:
            holder = holder[part]
        if option is not None and _may_be_text(option, holder[path[-1]]):
            holder[path[-1]] = text
    return document


def keep_texts(path: str, values: list[Any], texts: Mapping[Path, str]) -> list[Any]:
    """`values` that a list of the option `path` holds, with their own `texts` (by index) where the option is text."""
    text = is_text(path)
    return [
        texts[index,] if text and (index,) in texts and _may_be_text(path, value) else value
        for index, value in enumerate(values)
    ]


@cache
def is_text(path: str) -> bool:
    """Whether the option at the dotted `path` is text and nothing else (but perhaps null)."""
    option = _annotation(path.split("."))
    return path == "extends" or (_is_text(option) and not any(map(_is_container, _members(option))))


@cache
def item_is_text(path: str) -> bool:
    """Whether the option at the dotted `path` is a list whose items are text. No operation has a number for a name."""
    items = _items(_annotation(path.split(".")))
    return any(_is_text(item) and not any(_is_container(member) for member in _members(item)) for item in items)


def _text_option(path: Path) -> str | None:
    """The option whose value, or an item of whose value, stands at `path`, where that is text; else None."""
    if path[:2] == _SPACE:
        return _searched_text_option(path[2:])
    keys = tuple(part for part in path if isinstance(part, str))
    option = ".".join(keys)
    if path == keys:
        return option if is_text(option) else None
    return option if path[:-1] == keys and item_is_text(option) else None


def _searched_text_option(path: Path) -> str | None:
    """The same for what stands below `search.space`, where a list holds the values of an option."""
    option, rest = _option(path)
    if rest[:1] == ("values",):
        rest = rest[1:]
    elif rest[:1] == ("when",):
        option, rest = _option(rest[1:])
    if not all(isinstance(part, int) for part in rest) or len(rest) > 2:
        return None
    return option if (item_is_text if len(rest) == 2 else is_text)(option) else None


def _option(path: Path) -> tuple[str, Path]:
    """The option at the beginning of `path`, whose keys may be dotted, and what comes after it."""
    name = ""
    for depth, part in enumerate(path):
        name = f"{name}.{part}" if name else str(part)
        annotation = _annotation(name.split("."))
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            return name, path[depth + 1 :]
    return name, ()


def _annotation(keys: list[str]) -> Any:
    """The type of the section or option; None where there is no such option."""
    model: type[Section] = Run
    for depth, key in enumerate(keys):
        if key not in model.model_fields:
            return None
        section = child(model, key)
        if section is None:
            return model.model_fields[key].annotation if depth == len(keys) - 1 else None
        model = section
    return model


def _is_text(annotation: Any) -> bool:
    """Whether text is all that the type takes, apart from null, lists and mappings."""
    kinds = [member for member in _members(annotation) if member is not NoneType and not _is_container(member)]
    return bool(kinds) and all(kind is str or _is_choice(kind) for kind in kinds)


def _items(annotation: Any) -> list[Any]:
    lists = [member for member in _members(annotation) if get_origin(member) is tuple]
    return [item for member in lists for item in get_args(member) if item is not Ellipsis]


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [inner for member in get_args(annotation) for inner in _members(member)]
    return [annotation]


def _is_container(kind: Any) -> bool:
    return get_origin(kind) in (tuple, dict)


def _is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal and all(isinstance(choice, str) for choice in get_args(kind))


def _may_be_text(path: str, value: Any) -> bool:
    return not isinstance(value, bool) or not _can_be_off(path)


@cache
def _can_be_off(path: str) -> bool:
    members = _members(_annotation(path.split(".")))
    return any("off" in get_args(member) for member in members if get_origin(member) is Literal)
