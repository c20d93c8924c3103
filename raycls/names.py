"""Every name of a config that can be looked up without torch: sources, models, operations and their arguments.

The text of files is read and nothing imported: `raycls config` answers at once, `raycls train` before torch is there.
What only running the code would tell is left to the start of a run.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from raycls.config.errors import Path, Place, Problem, dotted
from raycls.config.names import torchvision_models
from raycls.config.names.arguments import bind_signature
from raycls.config.names.belongings import PUBLISHED, name_of
from raycls.config.names.builders import BUILDERS, argument_problems
from raycls.config.names.builtin import MODELS, OPERATIONS, SOURCES
from raycls.config.names.suggest import suggest
from raycls.config.space.text import SPACE, Places, read
from raycls.errors import ConfigError
from raycls.plugins import find

__all__ = ["name_problems"]

Found = tuple[str, inspect.Signature] | None


def name_problems(values: Mapping[str, Any], places: Mapping[Path, Place], home: Place) -> list[Problem]:
    """What is wrong with the names of a config and their arguments, each at its place.

    `values` are as `load` has them: the layers of a config laid over each other, perhaps with other errors.
    """
    at = _Placed(places, home)
    problems = [
        *_section(values, ("data", "source"), _source, ("path",), at),
        *_section(values, ("model",), _model, ("num_classes",), at),
        *_weights(values, at),
    ]
    for section in BUILDERS:
        problems += _builder(values, section, places, home)
    for key in ("train", "eval"):
        problems += _operations(_at(values, ("augment", key)), ("augment", key), at)
    return [*problems, *_searched(values, at, Places(places, home))]


def _weights(values: Mapping[str, Any], at: _Placed) -> Iterator[Problem]:
    """A name of published weights that the model has not. A file is looked for when the run starts."""
    name, model = _at(values, _WEIGHTS), name_of(values, ("model",))
    searched = _at(values, SPACE)
    if not isinstance(name, str) or not PUBLISHED.fullmatch(name) or os.path.exists(name):
        return
    if isinstance(searched, Mapping) and {"model.name", "model.weights"} & searched.keys():
        return  # a trial brings its own
    listed = torchvision_models.find(model)
    offered = () if listed is None else listed.weights
    enum = "" if listed is None else listed.enum
    if not torchvision_models.names() or name.removeprefix(f"{enum}.") in offered:
        return
    near = suggest(name, offered)
    yield Problem(
        at(_WEIGHTS),
        dotted(_WEIGHTS),
        f"{model} has no weights of this name",
        name,
        ", ".join([*offered, "a local .safetensors or .pth file"]),
        None if near is None else f"did you mean {near}?",
    )


_WEIGHTS: Path = ("model", "weights")


class _Placed:
    def __init__(self, places: Mapping[Path, Place], home: Place) -> None:
        self._places, self._home = places, home

    def __call__(self, path: Path) -> Place:
        """The place of `path`, or of the nearest thing around it."""
        inner = (self._places.get(path[:depth]) for depth in range(len(path), 0, -1))
        return next((place for place in inner if place is not None), self._home)


def _source(name: str) -> Found:
    return find("source", name, SOURCES)


def _model(name: str) -> Found:
    if name in MODELS or ":" in name:
        return find("model", name, MODELS)
    listed = torchvision_models.find(name)
    if listed is not None:
        return None if listed.signature is None else (name, listed.signature)
    names = torchvision_models.names()
    return find("model", name, {**MODELS, **dict.fromkeys(names)}) if names else None


def _builder(values: Mapping[str, Any], section: str, places: Mapping[Path, Place], home: Place) -> Iterator[Problem]:
    """The name of what is built, and the arguments of a plug-in: those of a built-in are checked with the schema."""
    at, kind = _Placed(places, home), BUILDERS[section]
    name, args = name_of(values, (section,)), _at(values, (section, "args"))
    try:
        found = find(kind.kind, name, kind.builtins)
    except ConfigError as error:
        yield _problem(error, (section, "name"), at((section, "name")))
        return
    if found is None or name in kind.builtins or not (args is None or isinstance(args, Mapping)):
        return
    searched = _at(values, SPACE)
    whole = not isinstance(searched, Mapping) or not any(
        str(key).startswith(f"{section}.args") for key in cast("Mapping[str, Any]", searched)
    )
    arguments = cast("Mapping[str, Any]", args or {})
    yield from argument_problems(section, *found, arguments, values, places, home, whole)


def _alone(look_up: Callable[[str], Found]) -> Callable[[str], Found]:
    """`look_up` for a name whose arguments are not looked at."""

    def looked_up(name: str) -> Found:
        look_up(name)
        return None

    return looked_up


def _operation(name: str) -> Found:
    return find("augmentation", name, OPERATIONS)


def _section(
    values: Mapping[str, Any], section: Path, look_up: Callable[[str], Found], given: Sequence[str], at: _Placed
) -> Iterator[Problem]:
    """The name in a section with a name and arguments, and these."""
    args = _at(values, (*section, "args"))
    searched = _at(values, SPACE)
    if isinstance(searched, Mapping) and any(
        str(key).startswith(f"{dotted(section)}.args") for key in cast("Mapping[str, Any]", searched)
    ):
        look_up = _alone(look_up)  # a trial brings arguments that may be missing here, and they are checked with it
    yield from _named(name_of(values, section), args, (*section, "name"), (*section, "args"), look_up, given, at)


def _named(
    name: str,
    args: Any,
    where: Path,
    args_path: Path,
    look_up: Callable[[str], Found],
    given: Sequence[str],
    at: _Placed,
) -> Iterator[Problem]:
    try:
        found = look_up(name)
    except ConfigError as error:
        yield _problem(error, where, at(where))
        return
    if found is None or not (args is None or isinstance(args, Mapping)):
        return
    arguments = cast("Mapping[str, Any]", args or {})
    try:
        bind_signature(*found, arguments, given=given, where=dotted(args_path))
    except ConfigError as error:
        known = found[1].parameters
        wrong = next((key for key in arguments if key in given or key not in known), None)
        yield _problem(error, args_path, at(args_path if wrong is None else (*args_path, wrong)))


def _operations(entries: Any, path: Path, at: _Placed) -> Iterator[Problem]:
    """The operations of a list, each a name or a name with arguments; another kind of entry is the schema's to tell."""
    for index, entry in enumerate(cast("list[Any]", entries) if isinstance(entries, list) else ()):
        here = (*path, index)
        if isinstance(entry, str):
            name, args = entry, {}
        elif isinstance(entry, Mapping) and len(cast("Mapping[str, Any]", entry)) == 1:
            ((name, args),) = cast("Mapping[str, Any]", entry).items()
        else:
            continue
        given = ("image_size",) if name in OPERATIONS else ()
        yield from _named(name, args, here, (*here, name), _operation, given, at)


def _searched(values: Mapping[str, Any], at: _Placed, places: Places) -> Iterator[Problem]:
    """The models and lists of operations that a space can choose."""
    space = _at(values, SPACE)
    if not isinstance(space, Mapping):
        return
    written = {key: value for key, value in cast("Mapping[str, Any]", space).items() if key in _SEARCHED}
    for parameter in read(written, places)[0]:
        inside = (*SPACE, parameter.path, *(("values",) if parameter.when else ()))
        for index, value in enumerate(parameter.values):
            here = (*inside, index)
            section = parameter.path.partition(".")[0]
            if section == "augment":
                yield from _operations(value, here, at)
            elif isinstance(value, str):
                kind = BUILDERS.get(section)
                look_up = _model if kind is None else partial(find, kind.kind, builtins=kind.builtins)
                yield from _named(value, None, here, here, _alone(look_up), (), at)


_SEARCHED = ("model.name", *(f"{section}.name" for section in BUILDERS), "augment.train", "augment.eval")


def _problem(error: ConfigError, path: Path, place: Place) -> Problem:
    what = error.what.removeprefix(f"{dotted(path)}: ")
    return Problem(place, dotted(path), what, error.found, error.valid, error.fix)


def _at(values: Any, path: Path) -> Any:
    for key in path:
        values = cast("Mapping[Any, Any]", values).get(key) if isinstance(values, Mapping) else None
    return values
