"""One value that an option or an argument cannot have, with what it can have and what may be meant."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from raycls.config import describe
from raycls.config.errors import COMMAND_LINE, Path, Place, Problem, dotted, keys_of, value_at
from raycls.config.names.suggest import suggest
from raycls.config.write import override, written
from raycls.config.yaml_text import parse_value

__all__ = ["value_problem"]

_OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}
_LENGTH = {"too_short", "too_long", "missing"}
_NO = ("no", "none", "never", "false")
_TEXT = {"string_pattern_mismatch", "string_too_short", "string_too_long"}


def value_problem(
    path: Path,
    errors: list[ErrorDetails],
    values: Mapping[str, Any],
    places: Mapping[Path, Place],
    home: Place,
    schema: dict[str, Any] | None = None,
) -> Problem:
    """pydantic's `errors` about the value at `path` as one problem; `schema` is that of the value, where it is no
    option but an argument."""
    keys = keys_of(path)
    kinds = {error["type"] for error in errors}
    if kinds <= _LENGTH:  # the list as a whole is wrong, not the item that is not there
        path = keys
    index = path[-1] if isinstance(path[-1], int) else None
    valid, choices = describe.allowed(keys, index, schema)
    value = value_at(values, path)
    own = [str(context["error"]) for context in (error.get("ctx", {}) for error in errors) if "error" in context]
    if kinds & _OUT_OF_RANGE:
        what = "out of range"
    elif own and isinstance(value, str) and not choices:
        what = own[0]
    elif isinstance(value, str) and choices:
        what = "this value is not one of the choices"
    elif kinds & _LENGTH:
        what = "the wrong number of values"
    else:
        what = "this string is not allowed" if kinds & _TEXT else "the wrong type of value"
    place = places.get(path, places.get(keys, home))
    fix = _remedy(value, kinds, choices, valid) if value is not None else _for_null(place, keys)
    if isinstance(fix, tuple):
        fix = " or ".join(_written(place, path, each, values) for each in fix)
    is_number = isinstance(value, str) and choices and isinstance(_number(value), (int, float))
    found = str(value) if is_number else describe.shown(value)  # a number became a string where a string is wanted
    return Problem(place, dotted(path), what, found, valid, fix)


def _for_null(place: Place, keys: tuple[str, ...]) -> str:
    name = dotted(keys) if place.file == COMMAND_LINE else "the key"
    return f"leave {name} out to use the default"


def _written(place: Place, path: Path, value: Any, values: Mapping[str, Any]) -> str:
    """How to write `value` at `path`: as YAML in a file, on the command line as it is typed there."""
    if place.file != COMMAND_LINE:
        return f"write {written(value)}"
    keys = keys_of(path)
    if path != keys:  # an item: the list is typed whole
        whole = copy.deepcopy(value_at(values, keys))
        value_at(whole, path[len(keys) : -1])[path[-1]] = value
        value = whole
    return f"write {override(dotted(keys), value)}"


def _remedy(value: Any, kinds: set[str], choices: Sequence[str], valid: str) -> str | tuple[Any, ...] | None:
    """The values that may be meant, or words, where that can be told from what was written."""
    if isinstance(value, bool) and "off" in choices:
        return ("off",) if value is False else None
    if isinstance(value, str):
        if "bool_type" in kinds and value.lower() in ("yes", "no", "on", "off", "true", "false"):
            return (value.lower() in ("yes", "on", "true"),)
        near = "off" if "off" in choices and value.lower() in _NO else suggest(value, choices)
        if near is not None:
            return f"did you mean {near}?"
        if "number" in valid and re.fullmatch(r"[-+]?[\d.]+(?:[eE][-+]?\d+)?", value):
            return (_number(value),)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if "a duration" in valid:
            return f"{value:g}ep", f"{value:g}st"
        if "string_type" in kinds and "{name:" not in valid:  # no operation has a number for a name
            return (str(value),)
        if isinstance(value, float) and value.is_integer() and "an integer" in valid and "int_type" in kinds:
            return (int(value),)
    if valid.startswith("a list, each") and not isinstance(value, (list, tuple, dict)):
        return ([value],)
    return None


def _number(text: str) -> Any:
    try:
        return parse_value(text)
    except ValueError:
        return text
