"""A config from a file and the command line.

Defaults, then the file named by `extends`, then the file, then each `path=value`, the later over the
earlier. Sections, and mappings such as `model.args`, are merged key by key; an empty mapping (`args: {}`)
drops what an earlier layer put there; a list or any other value takes the place of the earlier one.
Where a layer names another model, source, optimizer or schedule, what earlier layers set for the old one is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, cast

from raycls.config.check import known, validate
from raycls.config.describe import child
from raycls.config.difference import HARMLESS, Difference, difference
from raycls.config.errors import COMMAND_LINE, ConfigProblemsError, Path, Place, Problem, dotted
from raycls.config.names.belongings import Belongings
from raycls.config.names.builders import with_defaults
from raycls.config.names.moved import moved_note, rewrite
from raycls.config.names.recipes import file_of
from raycls.config.names.suggest import suggest
from raycls.config.overrides import read_overrides
from raycls.config.sections.run import Run
from raycls.config.sections.types import Section
from raycls.config.space.check import check_space
from raycls.config.space.text import spread
from raycls.config.strings import as_written
from raycls.config.unused import overruled, searched_in_vain, without_effect
from raycls.config.write import leaves, render, schema_json, to_dict, to_yaml, word
from raycls.config.yaml_text import MAX_BYTES, Document, parse

__all__ = [
    "HARMLESS",
    "ConfigProblemsError",
    "Difference",
    "Loaded",
    "Problem",
    "difference",
    "from_dict",
    "load",
    "load_text",
    "schema_json",
    "show",
    "to_dict",
    "to_yaml",
]

Values = dict[str, Any]
NameCheck = Callable[[Mapping[str, Any], Mapping[Path, Place], Place], list[Problem]]
"""Values, the place of each, and the place of what has none -> the errors in names, such as a misspelt model."""


@dataclass(frozen=True)
class Loaded:
    """A config and, for the dotted path of every value in it, where it was set.

    An origin is `digits.yaml:4`, `command line`, or `default`. `notes` say what an earlier layer set and a later one
    left out: the arguments of a name that it replaced.
    """

    run: Run
    origins: dict[str, str]
    notes: tuple[str, ...] = ()


def load(file: str | FilePath, overrides: Sequence[str] = (), *, names: NameCheck | None = None) -> Loaded:
    """Read a config file or `recipe:NAME`, and `path=value` overrides; `names` looks up what its names stand for.

    The run is named after the file where nothing sets `run.name`. Raises `ConfigProblemsError`, a ConfigError
    with every error of the files and the overrides in `problems`.
    """
    path = file_of(file)
    text, problem = _text(path, str(file), Place(str(file)))
    if problem is not None:
        raise ConfigProblemsError(str(file), [problem])
    documents = [as_written(parse(text, str(file)))]
    base = _base(documents[0], path)
    if base is not None:
        documents.insert(0, base)
    return _resolve(str(file), documents, read_overrides(overrides), path.stem, effects=True, names=names)


def load_text(
    text: str, name: str = "config.yaml", overrides: Sequence[str] = (), *, names: NameCheck | None = None
) -> Loaded:
    """Read a config that a run folder keeps. It cannot extend a file, and may hold options without effect."""
    document = as_written(parse(text, name))
    if "extends" in document.values:
        place = document.places[("extends",)]
        document.problems.append(Problem(place, "extends", "a config that is not read from a file cannot extend one"))
        del document.values["extends"]
    return _resolve(name, [document], read_overrides(overrides), FilePath(name).stem, names=names)


def from_dict(data: Mapping[str, Any]) -> Run:
    """The config that `to_dict` wrote. Raises `ConfigProblemsError`."""
    home = Place("config")
    values, problems = known(data, {}, home)
    run, more = validate(values, {}, home, problems)
    if run is None or problems:
        raise ConfigProblemsError("config", problems + more)
    return with_defaults(run)


def show(loaded: Loaded) -> str:
    """The whole config as YAML, each value followed by a comment that says where it was set, after `notes`."""
    notes = "".join(f"# {note}\n" for note in loaded.notes)
    return notes + render(to_dict(loaded.run), loaded.origins)


def _resolve(
    title: str,
    files: Sequence[Document],
    overrides: Sequence[Document],
    stem: str,
    *,
    effects: bool = False,
    names: NameCheck | None = None,
) -> Loaded:
    home = Place(title)
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    places: dict[Path, Place] = {}
    belongings, old = Belongings(), [path for document in (*files, *overrides) for path in rewrite(document)]
    for layer in (*([file] for file in files), overrides):
        belongings.switch(values, places, layer)
        for document in layer:
            mine, unknown = known(document.values, document.places, home)
            mine, its_places, twice = spread(mine, document.places, home)
            problems += [*document.problems, *unknown, *twice]
            _merge(values, places, mine, its_places)
    notes = [*moved_note(old), *belongings.notes(values), *overruled((*files, *overrides), values, places, home)]
    values.setdefault("run", {}).setdefault("name", _name(stem))
    complete = all(document.complete for document in files)
    run, wrong = validate(values, places, home, problems, rules=complete)
    problems += wrong
    if effects and complete:
        problems += without_effect((*files, *overrides), values, places, home, {item.path for item in problems})
    if names is not None and complete:
        known_paths = {item.path for item in problems}
        problems += [item for item in names(values, places, home) if item.path not in known_paths]
    problems += check_space(values, places, home, None if problems else run)
    if effects and complete and not problems:
        problems += searched_in_vain(values, places, home)
    if run is None or problems:
        raise ConfigProblemsError(title, _in_order(problems, title))
    run = with_defaults(run)
    return Loaded(run, _origins(run, places), tuple(notes))


def _text(path: FilePath, shown: str, place: Place, key: str = "") -> tuple[str, Problem | None]:
    """The text of a config file, or the error that kept it from being read."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        near = suggest(path.name, sorted(other.name for other in path.parent.glob("*.y*ml")))
        fix = None if near is None else f"did you mean {word(str(path.parent / near))}?"
        return "", Problem(place, key, f"there is no file {shown}", fix=fix)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return "", Problem(place, key, f"the file {shown} cannot be read: {reason}")
    if len(data) > MAX_BYTES:
        what = f"{shown} is no config: it is larger than {MAX_BYTES // 1024} KiB"
        return "", Problem(place, key, what)
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"the byte 0x{data[error.start]:02x} is not UTF-8"
        return "", Problem(Place(shown, line), key, what, fix="save the file as UTF-8 text")


def _base(document: Document, path: FilePath) -> Document | None:
    """The file that `document` (read from `path`) extends; what is wrong with that is noted in one of the two."""
    if "extends" not in document.values:
        return None
    name, place = document.values.pop("extends"), document.places[("extends",)]
    if not isinstance(name, str) or not name:
        what = "the name of one other config file is expected"
        document.problems.append(Problem(place, "extends", what, found=str(name)))
        document.complete = False
        return None
    file = path.parent / file_of(name, where=str(place))
    text, problem = _text(file, str(file), place, "extends")
    if problem is not None:
        document.problems.append(problem)
        document.complete = False
        return None
    base = as_written(parse(text, str(file)))
    if "extends" in base.values:
        what = "a file that is extended cannot extend another one"
        found = str(base.values.pop("extends"))
        fix = "name one file that holds all shared values"
        base.problems.append(Problem(base.places[("extends",)], "extends", what, found, fix=fix))
        base.complete = False
    return base


def _merge(
    below: Values,
    places: dict[Path, Place],
    above: Mapping[str, Any],
    above_places: Mapping[Path, Place],
    path: Path = (),
) -> None:
    """Lay `above` over `below`, in place."""
    for key, value in above.items():
        here = (*path, key)
        old = below.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and (value or _is_section(here)):
            if here in above_places:
                places[here] = above_places[here]
            _merge(cast("Values", old), places, cast("Values", value), above_places, here)
            continue
        for gone in [place for place in places if place[: len(here)] == here]:
            del places[gone]
        places.update({at: place for at, place in above_places.items() if at[: len(here)] == here})
        below[key] = value


def _is_section(path: Path) -> bool:
    model: type[Section] | None = Run
    for key in path:
        if model is None or key not in model.model_fields:
            return False
        model = child(model, str(key))
    return model is not None


def _name(stem: str) -> str:
    """A file's name as a run's name, which is narrower: `my run` becomes `my-run`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:128] or "run"


def _in_order(problems: Sequence[Problem], title: str) -> list[Problem]:
    """In the order one would mend them: the file, what it extends, the command line; each from its top."""
    files = {title: 0, COMMAND_LINE: 2}
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda problem: (files.get(problem.place.file, 1), problem.place.line or 0))


def _origins(run: Run, places: Mapping[Path, Place]) -> dict[str, str]:
    files = {place.file for place in places.values()}
    names = {file: file if file == COMMAND_LINE else FilePath(file).name for file in files}
    if len(set(names.values())) < len(names):  # two folders hold a file of one name
        names = {file: file for file in files}
    origins: dict[str, str] = {}
    for path, _ in leaves(to_dict(run)):
        place = places.get(path)
        origins[dotted(path)] = "default" if place is None else str(Place(names[place.file], place.line))
    return origins
