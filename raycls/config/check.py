"""From plain values to a `Run`, with every error in words of its own and at its place."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from raycls.config import describe
from raycls.config.errors import Path, Place, Problem, dotted, keys_of, value_at
from raycls.config.names.builders import BUILDERS, builtin_problems
from raycls.config.names.moved import MOVED
from raycls.config.names.suggest import suggest
from raycls.config.names.values import value_problem
from raycls.config.sections.run import Run
from raycls.config.sections.types import Section
from raycls.config.write import flow

__all__ = ["known", "validate"]

_ROUNDS = 40


def known(
    values: Mapping[str, Any], places: Mapping[Path, Place], home: Place, model: type[Section] = Run, path: Path = ()
) -> tuple[dict[str, Any], list[Problem]]:
    """The part of `values` whose keys the schema knows, and an error for each of the others.

    A section that is null holds nothing and is left out; one that is not a mapping is an error.
    `home` is the place of what `places` does not have.
    """
    result: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in values.items():
        here = (*path, key)
        place = places.get(here, home)
        if key not in model.model_fields:
            problems.append(_unknown(str(key), value, place, model, path))
            continue
        section = describe.child(model, key)
        if section is None:
            if value is not None or not describe.is_free(model, key):
                result[key] = value
        elif isinstance(value, Mapping):
            inner = cast("Mapping[str, Any]", value)
            result[key], more = known(inner, places, home, section, here)
            problems += more
        elif value is not None:
            valid = describe.allowed(keys_of(here))[0]
            problems.append(
                Problem(place, dotted(here), "this is a section, not a value", describe.shown(value), valid)
            )
    return result, problems


def validate(
    values: Mapping[str, Any],
    places: Mapping[Path, Place],
    home: Place,
    problems: Sequence[Problem] = (),
    *,
    rules: bool = True,
) -> tuple[Run | None, list[Problem]]:
    """The `Run` of `values` whose keys are all known, or None, and every error in the values.

    pydantic checks a rule over several options only where each of them is valid. So what is wrong is
    taken out and the rest checked again; a rule that looks at an option which was taken out (or is among
    the `problems` found before) says nothing about what the user wrote, and is left unsaid. So are all
    of them without `rules`, for values that are not all there.
    """
    rest = copy.deepcopy(dict(values))
    gone = {problem.path for problem in problems}
    found: list[Problem] = []
    for _ in range(_ROUNDS):
        try:
            run = Run.model_validate(rest)
        except ValidationError as error:
            bad, broken = _sorted(error.errors(include_url=False), rest)
            found += [value_problem(path, errors, rest, places, home) for path, errors in bad.items()]
            for path in bad:
                gone.add(dotted(keys_of(path)))
            removed = [_remove(rest, keys_of(path)) for path in bad]
            for path, rule in broken:
                named = _named(path, str(rule))
                if rules and not gone & {dotted(name) for name in named}:
                    found.append(_rule_problem(path, rule, named, rest, places, home))
                gone |= {dotted(name) for name in named}
                removed += [_remove(rest, name) for name in named or [path]]
            if not any(removed):
                return None, found
        else:
            names = {
                section: getattr(run, section).name
                for section in BUILDERS
                if not gone & {section, f"{section}.name", f"{section}.args"}
            }
            found += builtin_problems(rest, names, places, home, whole=rules)
            return (None if found else run), found
    return None, found


def _unknown(key: str, value: Any, place: Place, model: type[Section], path: Path) -> Problem:
    here = dotted((*path, key))
    prefix = dotted(path) + "." if path else ""
    others = _moved(key, model, path) or describe.meant(key, model, prefix)
    fix = f"did you mean {' or '.join(others)}?" if others else None
    if others == (key,) and "." in key:
        *sections, last = key.split(".")
        fix = "keys are nested in a file: " + ": {".join([*sections, last]) + ": ..." + "}" * len(sections)
    shown = None if isinstance(value, Mapping) else describe.shown(value)
    what = "there is no such option" if path else "there is no such section"
    return Problem(place, here, what, shown, ", ".join(model.model_fields), fix)


def _moved(key: str, model: type[Section], path: Path) -> tuple[str, ...]:
    """The argument that an unknown key may have meant: one near to an option that this section had."""
    inside = {old.partition(".")[2]: new for old, new in MOVED.items() if old.partition(".")[0] == dotted(path)}
    near = None if suggest(key, model.model_fields) else suggest(key, inside)
    elsewhere = (new for old, new in MOVED.items() if old.partition(".")[2] == key and path and not inside)
    return tuple(dict.fromkeys(elsewhere)) if near is None else (inside[near],)


def _sorted(
    errors: Sequence[ErrorDetails], values: Mapping[str, Any]
) -> tuple[dict[Path, list[ErrorDetails]], list[tuple[Path, object]]]:
    """pydantic's errors by option (and list item), and the rules over several options that are broken."""
    bad: dict[Path, list[ErrorDetails]] = {}
    rules: list[tuple[Path, object]] = []
    for error in errors:
        path, option = _option(error["loc"], values)
        if option:
            bad.setdefault(path, []).append(error)
        else:
            rules.append((path, error.get("ctx", {}).get("error", error["msg"])))
    return bad, rules


def _option(location: Path, values: Mapping[str, Any]) -> tuple[Path, bool]:
    """(path, whether it is an option and not a section) of pydantic's location.

    After the option come the names of union members, which are not ours, and perhaps an index.
    """
    model: type[Section] = Run
    path: list[str | int] = []
    for depth, part in enumerate(location):
        path.append(part)
        section = describe.child(model, str(part))
        if section is None:
            index = next((step for step in location[depth + 1 :] if isinstance(step, int)), None)
            if index is not None and isinstance(value_at(values, tuple(path)), (list, tuple)):
                path.append(index)
            return tuple(path), True
        model = section
    return tuple(path), False


def _named(path: Path, message: str) -> list[Path]:
    """The options that a rule of the section at `path` speaks of, in the order it names them."""
    tokens = re.findall(r"[A-Za-z_][\w.]*\w", message)
    if not path:
        everything = {option for option in describe.options() if "." in option}  # `loss` is a metric's name, too
        named = (token for token in tokens if token in everything or _is_argument(token))
        return list(dict.fromkeys(tuple(token.split(".")) for token in named))
    model: type[Section] = Run
    for part in path:
        model = describe.child(model, str(part)) or model
    inside = [tuple(token.split(".")) for token in tokens]
    return list(dict.fromkeys((*path, *keys) for keys in inside if keys[0] in model.model_fields))


def _is_argument(token: str) -> bool:
    section, found, _ = token.partition(".args.")
    return bool(found) and section in BUILDERS


def _rule_problem(
    path: Path, rule: object, named: list[Path], values: Mapping[str, Any], places: Mapping[Path, Place], home: Place
) -> Problem:
    written = [name for name in named if value_at(values, name) is not None]
    place = next((places[name] for name in written if name in places), places.get(path, home))
    subject = named[0] if len(named) == 1 or (not path and named) else path
    found = ", ".join(f"{dotted(name)}: {flow(value_at(values, name))}" for name in written)
    return Problem(place, dotted(subject), str(rule), found or None, fix=getattr(rule, "fix", None))


def _remove(values: dict[str, Any], path: Path) -> bool:
    """Take the value at `path` out; whether there was one."""
    inner = value_at(values, path[:-1])
    if not path or not isinstance(inner, dict) or path[-1] not in inner:
        return False
    del inner[path[-1]]
    return True
