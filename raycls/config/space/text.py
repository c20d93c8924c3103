"""How a space is written: lists, `loguniform(1e-4, 1)`, conditions, dotted paths or nested sections."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

from raycls.config.describe import child, is_free, shown
from raycls.config.errors import Path, Place, Problem, dotted, nearest
from raycls.config.names.moved import moved
from raycls.config.names.suggest import suggest
from raycls.config.sections.run import Run
from raycls.config.sections.types import Section
from raycls.config.space.space import Condition, Kind, Parameter
from raycls.config.strings import keep_texts
from raycls.config.uri_secrets import hidden
from raycls.config.write import flow
from raycls.config.yaml_text import read_value

__all__ = ["SPACE", "Places", "kind_of", "read", "spread", "written"]

SPACE: Path = ("search", "space")

_FORM = re.compile(r"\s*([\w.]+)\s*\((.*)\)\s*", re.DOTALL)
_FUNCTIONS: Mapping[str, str] = {
    "choice": "choice(a, b, ...)",
    "uniform": "uniform(lo, hi)",
    "loguniform": "loguniform(lo, hi)",
    "randint": "randint(lo, hi)",
    "lograndint": "lograndint(lo, hi)",
    "quniform": "quniform(lo, hi, q)",
}
_VALID = "a list of values, " + ", ".join(_FUNCTIONS.values()) + ", or {when: {path: value}, values: ...}"
_WHOLE = ("randint", "lograndint")


class Places:
    """The place of what is written in a space; `home` is that of what has none."""

    def __init__(self, places: Mapping[Path, Place], home: Place) -> None:
        self._places = places
        self._home = home

    def __call__(self, *path: str | int) -> Place:
        """The place of `path` below `search.space`, or of the nearest thing around it."""
        return nearest(self._places, self._home, (*SPACE, *path))


def kind_of(path: str) -> Literal["section", "option", "mapping", "argument", "inside", "unknown"]:
    """What a dotted path names.

    A mapping is an option with keys that are not ours, such as `model.args`; an argument is one of these keys.
    What lies inside any other option is nothing that can be set.
    """
    model: type[Section] = Run
    keys = path.split(".")
    for depth, key in enumerate(keys):
        if key not in model.model_fields or not all(keys):
            return "unknown"
        section = child(model, key)
        if section is not None:
            model = section
        elif depth == len(keys) - 1:
            return "mapping" if is_free(model, key) else "option"
        else:
            return "argument" if is_free(model, key) else "inside"
    return "section"


def spread(
    values: dict[str, Any], places: Mapping[Path, Place], home: Place
) -> tuple[dict[str, Any], dict[Path, Place], list[Problem]]:
    """A config and its places with the sections in its space written as dotted paths: `{optim: {lr: ...}}` is
    `{optim.lr: ...}`. A path that is there in both ways is an error."""
    search = values.get("search")
    space = cast("Mapping[str, Any]", search).get("space") if isinstance(search, Mapping) else None
    if not isinstance(space, Mapping):
        return values, dict(places), []
    flat: dict[str, Any] = {}
    names: dict[Path, str] = {}
    problems: list[Problem] = []
    for old, where, value in _flat(cast("Mapping[str, Any]", space), SPACE, ""):
        path = moved(old)
        if path in flat:
            place = places.get(where, home)
            what = "the path is written twice, nested and with dots"
            problems.append(Problem(place, _full(path), what, fix="keep one of the two"))
            continue
        flat[path], names[where] = value, path
    placed: dict[Path, Place] = {}
    for where, place in places.items():
        depth = next((depth for depth in range(len(SPACE) + 1, len(where) + 1) if where[:depth] in names), None)
        if depth is not None:
            placed[(*SPACE, names[where[:depth]], *where[depth:])] = place
        elif where[: len(SPACE)] != SPACE or where == SPACE:
            placed[where] = place
    return {**values, "search": {**cast("Mapping[str, Any]", search), "space": flat}}, placed, problems


def _flat(space: Mapping[str, Any], where: Path, name: str) -> Iterator[tuple[str, Path, Any]]:
    for key, value in space.items():
        path = f"{name}.{key}" if name else key
        inner = cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else dict[str, Any]()
        kind = kind_of(path)
        if inner and (kind == "section" or (kind in ("mapping", "argument") and not _is_conditional(inner))):
            yield from _flat(inner, (*where, key), path)
        else:
            yield path, (*where, key), value


def read(space: Mapping[str, Any], places: Places) -> tuple[list[Parameter], list[Problem]]:
    """The parameters of a space with dotted paths, in the order written, and what cannot be read.

    Whether the paths exist and may hold the values is not looked at.
    """
    parameters: list[Parameter] = []
    problems: list[Problem] = []
    for path, value in space.items():
        try:
            parameters.append(_parameter(path, value, places))
        except _WrongError as wrong:
            problems.append(wrong.problem)
    return parameters, problems


def written(parameter: Parameter) -> str:
    """A range as it is written in a config."""
    numbers = [parameter.low, parameter.high, *([parameter.step] if parameter.kind == "quniform" else [])]
    return f"{parameter.kind}({', '.join(map(flow, numbers))})"


class _WrongError(Exception):
    def __init__(
        self, place: Place, path: Path, what: str, found: str | None = None, valid: str | None = None, fix: str = ""
    ) -> None:
        super().__init__(what)
        self.problem = Problem(place, dotted((*SPACE, *path)), what, found, valid, fix or None)


def _parameter(path: str, value: Any, places: Places) -> Parameter:
    if not isinstance(value, Mapping):
        return _values(path, value, (path,), places, ())
    inner = cast("Mapping[str, Any]", value)
    if not _is_conditional(inner):
        raise _WrongError(places(path), (path,), "these are no values to choose from", shown(inner), _VALID)
    for key in inner:
        if key not in ("when", "values"):
            near = suggest(str(key), ("when", "values"))
            fix = f"did you mean {near}?" if near else ""
            place = places(path, key)
            raise _WrongError(place, (path, str(key)), "there is no such key here", valid="when, values", fix=fix)
    for key in ("when", "values"):
        if key not in inner:
            what = f"a condition needs {key} too"
            raise _WrongError(places(path), (path,), what, valid="{when: {path: value}, values: [...]}")
    conditions = _conditions(path, inner["when"], places)
    return _values(path, inner["values"], (path, "values"), places, conditions)


def _conditions(path: str, when: Any, places: Places) -> tuple[Condition, ...]:
    if not isinstance(when, Mapping) or not when:
        what = "a condition names other paths of the space and their values"
        raise _WrongError(places(path, "when"), (path, "when"), what, shown(when), "when: {optim.name: sgd}")
    result: list[Condition] = []
    for other, value in _named(cast("Mapping[str, Any]", when), ""):
        values = tuple(cast("list[Any]", value)) if isinstance(value, list) else (value,)
        if not values:
            raise _WrongError(places(path, "when", other), (path, "when", other), "the list of values is empty")
        result.append(Condition(moved(other), values))
    return tuple(result)


def _named(when: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    """`when` with its sections written as dotted paths."""
    for key, value in when.items():
        path = f"{name}.{key}" if name else key
        if isinstance(value, Mapping) and kind_of(path) == "section":
            yield from _named(cast("Mapping[str, Any]", value), path)
        else:
            yield path, value


def _values(path: str, value: Any, where: Path, places: Places, when: tuple[Condition, ...]) -> Parameter:
    place = places(*where)
    if isinstance(value, list):
        return _choice(path, cast("list[Any]", value), where, place, when)
    form = _FORM.fullmatch(value) if isinstance(value, str) else None
    if form is None:
        raise _WrongError(place, where, "these are no values to choose from", shown(value), _VALID, _remedy(value))
    name = form[1]
    if name not in _FUNCTIONS:
        near = suggest(name.rpartition(".")[2], _FUNCTIONS)
        fix = f"did you mean {_FUNCTIONS[near]}?" if near else ""
        raise _WrongError(place, where, f"there is no function {name}", hidden(value), _VALID, fix)
    try:
        arguments, texts = read_value(f"[{form[2]}]")
    except ValueError as error:
        raise _WrongError(place, where, str(error), hidden(value), _FUNCTIONS[name]) from error
    if name == "choice":
        return _choice(path, keep_texts(path, arguments, texts), where, place, when)
    wrong = _wrong_range(name, arguments)
    if wrong is not None:
        raise _WrongError(place, where, wrong[0], hidden(value), _FUNCTIONS[name], wrong[1])
    low, high, step = (*arguments, 0)[:3]
    return Parameter(path, cast("Kind", name), low=low, high=high, step=step, when=when)


def _choice(path: str, values: list[Any], where: Path, place: Place, when: tuple[Condition, ...]) -> Parameter:
    if not values:
        raise _WrongError(place, where, "an empty choice: there is nothing to choose from", fix="write [value, ...]")
    return Parameter(path, "choice", tuple(values), when=when)


def _wrong_range(name: str, arguments: list[Any]) -> tuple[str, str] | None:
    """(what is wrong, what to write instead) with the arguments of a range."""
    number = 3 if name == "quniform" else 2
    if len(arguments) != number:
        return f"{name} takes {number} numbers, not {len(arguments)}", ""
    for argument in arguments:
        if isinstance(argument, bool) or not isinstance(argument, (int, float)) or not math.isfinite(argument):
            return f"{name} takes numbers, {flow(argument)} is not one", ""
        if name in _WHOLE and not isinstance(argument, int):
            whole = f"write {argument:.0f}" if argument.is_integer() else ""
            return f"{name} takes integers, {flow(argument)} is not one", whole
    low, high = arguments[:2]
    if low > high:
        swapped = ", ".join(flow(argument) for argument in (high, low, *arguments[2:]))
        return f"the lower end {flow(low)} is above the upper end {flow(high)}", f"write {name}({swapped})"
    if name in ("loguniform", "lograndint") and low <= 0:
        return f"the lower end {flow(low)} has no logarithm: it must be greater than 0", ""
    if name == "quniform" and arguments[2] <= 0:
        return f"the step {flow(arguments[2])} must be greater than 0", ""
    return None


def _remedy(value: Any) -> str:
    if isinstance(value, str):
        near = suggest(re.split(r"[\W_]*\(|\s", value.strip(), maxsplit=1)[0], _FUNCTIONS)
        if near is not None:
            return f"write {_FUNCTIONS[near]}"
    return "leave the path out" if value is None else f"write [{flow(value)}]"


def _is_conditional(value: Mapping[str, Any]) -> bool:
    return "when" in value or "values" in value


def _full(path: str) -> str:
    return dotted((*SPACE, path))
