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

from raycls.config.errors import Path, Place, Problem, dotted, nearest, value_at
from raycls.config.names.belongings import PUBLISHED, name_of
from raycls.config.names.builders import BUILDERS, argument_problems, binding_problems, problem_of
from raycls.config.names.builtin import (
    BATCH_OPERATIONS,
    MASK_OPERATIONS,
    MODELS,
    NESTED,
    OPERATIONS,
    SOURCES,
    TASKS,
    VOLUME_OPERATIONS,
    VOLUME_TASKS,
)
from raycls.config.names.networks import timm_models, torchvision_models
from raycls.config.names.suggest import suggest
from raycls.config.space.text import SPACE, Places, read
from raycls.errors import ConfigError
from raycls.plugins import find

__all__ = ["name_problems"]

Found = tuple[str, inspect.Signature] | None
PlaceOf = Callable[[Path], Place]


def name_problems(values: Mapping[str, Any], places: Mapping[Path, Place], home: Place) -> list[Problem]:
    """What is wrong with the names of a config and their arguments, each at its place.

    `values` are as `load` has them: the layers of a config laid over each other, perhaps with other errors.
    """
    at = partial(nearest, places, home)
    problems = [
        *_section(values, ("data", "source"), _source, ("path",), at),
        *_section(values, ("model",), _model, ("num_classes",), at),
        *_weights(values, at),
    ]
    for section in BUILDERS:
        problems += _builder(values, section, places, home)
    task = name_of(values, ("task",))
    for key in ("train", "eval", "batch"):
        kinds = BATCH_OPERATIONS if key == "batch" else _operations_of(task)
        problems += _operations(value_at(values, ("augment", key)), ("augment", key), at, kinds)
    return [*problems, *_searched(values, at, Places(places, home), task)]


def _weights(values: Mapping[str, Any], at: PlaceOf) -> Iterator[Problem]:
    """A name of published weights that the model has not. A file is looked for when the run starts."""
    name, model = value_at(values, _WEIGHTS), name_of(values, ("model",))
    searched = value_at(values, SPACE)
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
        ", ".join([*offered, "a .safetensors or .pth file"]),
        None if near is None else f"did you mean {near}?",
    )


_WEIGHTS: Path = ("model", "weights")


def _source(name: str) -> Found:
    return find("source", name, SOURCES)


def _model(name: str) -> Found:
    if name.startswith(timm_models.PREFIX):
        timm_models.check_name(name)
        return None
    if name in MODELS or ":" in name:
        return find("model", name, MODELS)
    listed = torchvision_models.find(name)
    if listed is not None:
        return None if listed.signature is None else (name, listed.signature)
    names = torchvision_models.names()
    return find("model", name, {**MODELS, **dict.fromkeys(names)}) if names else None


def _builder(values: Mapping[str, Any], section: str, places: Mapping[Path, Place], home: Place) -> Iterator[Problem]:
    """The name of what is built, and the arguments of a plug-in: those of a built-in are checked with the schema."""
    at, kind = partial(nearest, places, home), BUILDERS[section]
    name, args = name_of(values, (section,)), value_at(values, (section, "args"))
    try:
        found = find(kind.kind, name, kind.builtins)
    except ConfigError as error:
        yield problem_of(error, (section, "name"), at((section, "name")))
        return
    if found is None or name in kind.builtins or not (args is None or isinstance(args, Mapping)):
        return
    arguments, whole = cast("Mapping[str, Any]", args or {}), not _args_are_searched(values, (section,))
    yield from argument_problems(section, *found, arguments, values, places, home, whole)


def _args_are_searched(values: Mapping[str, Any], section: Path) -> bool:
    """Whether a trial brings arguments of its own, which may be missing in the config and are checked with it."""
    searched = value_at(values, SPACE)
    return isinstance(searched, Mapping) and any(
        str(key).startswith(f"{dotted(section)}.args") for key in cast("Mapping[str, Any]", searched)
    )


def _alone(look_up: Callable[[str], Found]) -> Callable[[str], Found]:
    """`look_up` for a name whose arguments are not looked at."""

    def looked_up(name: str) -> Found:
        look_up(name)
        return None

    return looked_up


def _operations_of(task: str) -> Mapping[str, str]:
    """The operations on the samples of a task; all of them for a plug-in, which says only when it runs what it has."""
    if task == "segmentation":
        return MASK_OPERATIONS
    if task in TASKS:
        return VOLUME_OPERATIONS if task in VOLUME_TASKS else OPERATIONS
    return {**VOLUME_OPERATIONS, **OPERATIONS}


def _operation(name: str, kinds: Mapping[str, str]) -> Found:
    return find("batch operation" if kinds is BATCH_OPERATIONS else "augmentation", name, kinds)


def _section(
    values: Mapping[str, Any], section: Path, look_up: Callable[[str], Found], given: Sequence[str], at: PlaceOf
) -> Iterator[Problem]:
    """The name in a section with a name and arguments, and these."""
    args = value_at(values, (*section, "args"))
    if _args_are_searched(values, section):
        look_up = _alone(look_up)
    yield from _named(name_of(values, section), args, (*section, "name"), (*section, "args"), look_up, given, at)


def _named(
    name: str,
    args: Any,
    where: Path,
    args_path: Path,
    look_up: Callable[[str], Found],
    given: Sequence[str],
    at: PlaceOf,
) -> Iterator[Problem]:
    try:
        found = look_up(name)
    except ConfigError as error:
        yield problem_of(error, where, at(where))
        return
    if found is None or not (args is None or isinstance(args, Mapping)):
        return
    yield from binding_problems(*found, cast("Mapping[str, Any]", args or {}), given, args_path, at)


def _operations(entries: Any, path: Path, at: PlaceOf, kinds: Mapping[str, str]) -> Iterator[Problem]:
    """The operations of a list, each a name or a name with arguments; another kind of entry is the schema's to tell."""
    for index, entry in enumerate(cast("list[Any]", entries) if isinstance(entries, list) else ()):
        here = (*path, index)
        if isinstance(entry, str):
            name, args = entry, {}
        elif isinstance(entry, Mapping) and len(cast("Mapping[str, Any]", entry)) == 1:
            ((name, args),) = cast("Mapping[str, Any]", entry).items()
        else:
            continue
        look_up = partial(_operation, kinds=kinds)
        if kinds is BATCH_OPERATIONS:
            yield from _named(name, args, here, (*here, name), look_up, ("num_classes",), at)
            continue
        given = ("image_size",) if name in kinds else ()
        yield from _named(name, args, here, (*here, name), look_up, given, at)
        if name in NESTED and name in kinds and isinstance(args, Mapping):
            inner = cast("Mapping[str, Any]", args).get("operations")
            yield from _operations(inner, (*here, name, "operations"), at, kinds)


def _searched(values: Mapping[str, Any], at: PlaceOf, places: Places, task: str) -> Iterator[Problem]:
    """The models and lists of operations that a space can choose."""
    space = value_at(values, SPACE)
    if not isinstance(space, Mapping):
        return
    written = {key: value for key, value in cast("Mapping[str, Any]", space).items() if key in _SEARCHED}
    for parameter in read(written, places)[0]:
        inside = (*SPACE, parameter.path, *(("values",) if parameter.when else ()))
        for index, value in enumerate(parameter.values):
            here = (*inside, index)
            section = parameter.path.partition(".")[0]
            if section == "augment":
                kinds = BATCH_OPERATIONS if parameter.path == "augment.batch" else _operations_of(task)
                yield from _operations(value, here, at, kinds)
            elif isinstance(value, str):
                kind = BUILDERS.get(section)
                look_up = _model if kind is None else partial(find, kind.kind, builtins=kind.builtins)
                yield from _named(value, None, here, here, _alone(look_up), (), at)


_SEARCHED = ("model.name", *(f"{each}.name" for each in BUILDERS), "augment.train", "augment.eval", "augment.batch")
