"""Sections whose `name` is built by a function with typed arguments, `args`: optimizers, schedules, losses, tasks.

Such a function takes what raycls passes, and what the config says by keyword. Its signature is the reference: the
names, the types, the ranges and the defaults. That of a built-in is read from its file, without importing it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from raycls.config.errors import Path, Place, Problem, dotted, nearest
from raycls.config.names import annotations
from raycls.config.names.arguments import bind_signature
from raycls.config.names.builtin import LOSSES, OPTIMIZERS, SCHEDULES, TASKS
from raycls.config.names.definitions import ours
from raycls.config.names.values import value_problem
from raycls.config.sections.duration import Duration
from raycls.config.sections.run import Run
from raycls.errors import ConfigError

__all__ = [
    "BUILDERS",
    "Builder",
    "argument_problems",
    "as_annotated",
    "binding_problems",
    "bound",
    "builtin",
    "builtin_problems",
    "defaults",
    "problem_of",
    "with_defaults",
]


@dataclass(frozen=True)
class Builder:
    """What builds the thing that a section names."""

    kind: str
    builtins: Mapping[str, str]
    given: tuple[str, ...]
    """The arguments that raycls passes."""


BUILDERS: Mapping[str, Builder] = {
    "optim": Builder("optimizer", OPTIMIZERS, ("groups", "lr")),
    "schedule": Builder("schedule", SCHEDULES, ("steps",)),
    "loss": Builder("loss", LOSSES, ()),
    "task": Builder("task", TASKS, ("setting",)),
}
"""By section."""


def builtin(section: str, name: str) -> tuple[str, inspect.Signature] | None:
    """Title and signature of the built-in; None where there is none of this name."""
    target = BUILDERS[section].builtins.get(name)
    found = None if target is None else ours(target)
    return None if found is None or found.signature is None else (name, found.signature)


def defaults(section: str, name: str) -> dict[str, Any]:
    """The defaults of a built-in's arguments, in plain values."""
    found = builtin(section, name)
    if found is None:
        return {}
    given = BUILDERS[section].given
    return {key: _plain(value) for key, value in annotations.defaults(found[1]).items() if key not in given}


def bound(section: str, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a built-in, each as its annotation has it, defaults too; those of others as written.

    Raises nothing: what does not fit stays as it is.
    """
    found = builtin(section, name)
    if found is None:
        return dict(args)
    kinds, given = annotations.typed(found[1]), BUILDERS[section].given
    every = {key: value for key, value in annotations.defaults(found[1]).items() if key not in given}
    return {**every, **{key: annotations.checked(kinds.get(key, Any), value)[0] for key, value in args.items()}}


def with_defaults(run: Run) -> Run:
    """`run` with all arguments of its built-ins, in plain values: a run keeps them whatever later defaults are."""
    sections: dict[str, Any] = {}
    for section in BUILDERS:
        config = getattr(run, section)
        args = {key: _plain(value) for key, value in bound(section, config.name, config.args).items()}
        sections[section] = config.model_copy(update={"args": args})
    return run.model_copy(update=sections)


def builtin_problems(
    values: Mapping[str, Any], names: Mapping[str, str], places: Mapping[Path, Place], home: Place, *, whole: bool
) -> Iterator[Problem]:
    """What is wrong with the arguments of built-ins in a config. `names` has the name in each section that is right.

    Not `whole`: values that are not all there, or that a search adds to.
    """
    for section, name in names.items():
        found = builtin(section, name)
        args = cast("Mapping[str, Any]", values.get(section) or {}).get("args")
        if found is None or not isinstance(args, Mapping):
            continue
        yield from argument_problems(section, *found, cast("Mapping[str, Any]", args), values, places, home, whole)


def argument_problems(
    section: str,
    title: str,
    signature: inspect.Signature,
    args: Mapping[str, Any],
    values: Mapping[str, Any],
    places: Mapping[Path, Place],
    home: Place,
    whole: bool = True,
) -> Iterator[Problem]:
    """What is wrong with the names, then with the values, of the arguments `args` of one builder."""
    given, path = BUILDERS[section].given, (section, "args")
    needed = signature if whole else _optional(signature)
    yield from binding_problems(title, needed, args, given, path, partial(nearest, places, home))
    theirs = {key: value for key, value in args.items() if key not in given}
    yield from _value_problems(annotations.typed(signature), theirs, path, values, places, home)


def binding_problems(
    title: str,
    signature: inspect.Signature,
    args: Mapping[str, Any],
    given: Sequence[str],
    path: Path,
    at: Callable[[Path], Place],
) -> Iterator[Problem]:
    """What is wrong with the names of the arguments `args` at `path`, at the place of the first that is wrong."""
    try:
        bind_signature(title, signature, args, given=given, where=dotted(path))
    except ConfigError as error:
        wrong = next((key for key in args if key in given or key not in signature.parameters), None)
        yield problem_of(error, path, at(path if wrong is None else (*path, wrong)))


def problem_of(error: ConfigError, path: Path, place: Place) -> Problem:
    """`error` as one of a config, about what is at `path`."""
    what = error.what.removeprefix(f"{dotted(path)}: ")
    return Problem(place, dotted(path), what, error.found, error.valid, error.fix)


def _value_problems(
    kinds: Mapping[str, Any],
    args: Mapping[str, Any],
    path: Path,
    values: Mapping[str, Any],
    places: Mapping[Path, Place],
    home: Place,
) -> Iterator[Problem]:
    for key, value in args.items():
        errors = annotations.checked(kinds[key], value)[1] if key in kinds else []
        if errors:
            here = annotations.inside((*path, key), value, errors)
            yield value_problem(here, errors, values, places, home, annotations.json_schema(kinds[key]))


def as_annotated(function: Callable[..., Any], args: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`args`, each value checked against the annotation of its parameter, and as that has it."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return dict(args)
    names = vars(sys.modules.get(getattr(function, "__module__", ""), inspect))
    kinds, path = annotations.typed(signature, names), tuple(where.split("."))
    whole: Any = args
    for outer in reversed(path):
        whole = {outer: whole}
    for problem in _value_problems(kinds, args, path, whole, {}, Place(where)):
        what = f"{problem.path}: {problem.what}"
        raise ConfigError(what, where=problem.path, found=problem.found, valid=problem.valid, fix=problem.fix)
    return {key: annotations.checked(kinds.get(key, Any), value)[0] for key, value in args.items()}


def _optional(signature: inspect.Signature) -> inspect.Signature:
    parameters = [
        parameter.replace(default=None) if parameter.default is parameter.empty else parameter
        for parameter in signature.parameters.values()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    any_more = [each for each in signature.parameters.values() if each.kind is each.VAR_KEYWORD]
    keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    return inspect.Signature([*keyword, *any_more])


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[Any, ...]", value)]
    return str(value) if isinstance(value, Duration) else value
