"""The space of a config against the schema: every error at its place, before anything starts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic import ValidationError

from raycls.config import describe
from raycls.config.check import known, validate
from raycls.config.difference import HARMLESS
from raycls.config.errors import ConfigProblemsError, Path, Place, Problem, dotted
from raycls.config.names.belongings import name_of, without_others
from raycls.config.names.builders import BUILDERS, builtin, defaults, with_defaults
from raycls.config.names.moved import moved
from raycls.config.names.suggest import suggest
from raycls.config.sections.run import Run
from raycls.config.space.conditions import condition_problems, in_order
from raycls.config.space.space import Parameter, Space
from raycls.config.space.text import SPACE, Places, kind_of, read, spread, written
from raycls.config.write import flow, to_dict

__all__ = ["apply", "check_space", "space_of"]

_CORNERS = 512
_MOST = 200
_RANGE = "out of range"
_BROKEN = 30
"""Corners that break a rule and are looked at closely; more of them hardly tell anything new."""

_SAME_DATA = "trials are compared on the same samples"
_FIXED: Mapping[str, str] = {
    **{path: why for path, why in HARMLESS.items() if path.startswith("data.")},
    "extends": "only a file says what it extends",
    "run": "it says which run this is; search.confirm.seeds trains the best with several seeds",
    "data.source": _SAME_DATA,
    **dict.fromkeys(("data.split", "data.group", "data.fold", "data.weight"), _SAME_DATA),
    **dict.fromkeys(("data.formats", "data.max_pixels", "data.channels", "data.bit_depth"), _SAME_DATA),
    "task.name": "trials are compared by what it measures",
    "train.budget": "it says when a run pauses, not what it learns",
    "train.ledger": "it says what is written down, not what is learned",
    "checkpoint": "it says what a crash can cost, not what is learned",
    "scale": "it says who computes, and every trial has the same",
    "evaluate": "trials are compared by what it says",
    "track": "it says what is written down and shown, not what is learned",
    "search": "it is the search itself",
}
"""Sections and options that may not be searched, and why."""

_MUTABLE = (
    "optim.lr",
    "optim.weight_decay",
    "optim.args",
    "optim.clip_norm",
    "loss.args",
    "augment.train",
    "augment.batch",
)
"""What can change within a run, as population based training does."""


def check_space(values: Mapping[str, Any], places: Mapping[Path, Place], home: Place, run: Run | None) -> list[Problem]:
    """Everything that is wrong with the space of a config, whose paths are dotted (`spread`).

    `run` is the config of `values` where the rest of it is right: only then are rules over several options
    looked at, for the combinations of the space.
    """
    search = _mapping(values.get("search"))
    space = _mapping(search.get("space"))
    if not space:
        return []
    at = Places(places, home)
    if len(space) > _MOST:
        return [Problem(at(), dotted(SPACE), f"a space of more than {_MOST} paths", found=f"{len(space)} paths")]
    parameters, problems = read(space, at)
    wrong = {path: problem for path in space if (problem := _path_problem(path, at)) is not None}
    problems += wrong.values()
    for parameter in parameters:
        if parameter.path not in wrong:
            name, untaken = _builder_of(parameter, parameters, values, at)
            problems += untaken or _value_problems(parameter, name, at) or _method_problems(parameter, search, at)
    problems += _overlaps([path for path in space if path not in wrong], at)
    problems += condition_problems(parameters, tuple(space), at)
    if not problems and run is not None:
        problems += _corner_problems(Space(tuple(in_order(parameters))), run, at)
    return problems


def space_of(run: Run) -> Space:
    """The space of a config. Raises `ConfigProblemsError` where it is wrong in itself."""
    home = Place("config")
    values, places, problems = spread(to_dict(run), {}, home)
    problems += check_space(values, places, home, None)
    if problems:
        raise ConfigProblemsError("config", problems)
    parameters, _ = read(values["search"]["space"], Places(places, home))
    return Space(tuple(in_order(parameters)))


def apply(run: Run, chosen: Mapping[str, Any]) -> Run:
    """`run` with the values of a trial, without its search section, and without the arguments of the names that it
    replaces. Raises `ConfigProblemsError`."""
    home = Place("trial")
    written = {moved(path): value for path, value in chosen.items()}
    values, problems = known(_with(_base(run), written), {}, home)
    result, wrong = validate(values, {}, home, problems)
    if result is None or problems:
        raise ConfigProblemsError("the values of a trial", problems + wrong)
    return with_defaults(result)


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _base(run: Run) -> dict[str, Any]:
    return {key: value for key, value in to_dict(run).items() if key != "search"}


def _with(values: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    result = without_others(values, chosen)
    for path, value in chosen.items():
        result = _placed(result, path.split("."), value)
    return result


def _placed(values: Any, keys: Sequence[str], value: Any) -> Any:
    """`values` with `value` under nested `keys`; `values` itself stays as it is."""
    if not keys:
        return value
    inner = _mapping(values)
    return {**inner, keys[0]: _placed(inner.get(keys[0]), keys[1:], value)}


def _path_problem(path: str, at: Places) -> Problem | None:
    place, where = at(path), dotted((*SPACE, path))
    fixed = _fixed(path)
    if fixed is not None:
        return Problem(place, where, f"{fixed} cannot be searched: {_FIXED[fixed]}")
    kind, options = kind_of(path), describe.options()
    if kind == "section":
        valid = ", ".join(option for option in options if option.startswith(f"{path}."))
        return Problem(place, where, "this is a section: search its options", valid=valid)
    if kind == "inside":
        option = next(option for option in options if path.startswith(f"{option}.") and kind_of(option) == "option")
        what = f"{option} is one value and has nothing inside"
        return Problem(place, where, what, valid=describe.allowed(tuple(option.split(".")))[0], fix=f"search {option}")
    if kind == "unknown":
        section = path.rpartition(".")[0]
        valid = ", ".join(option for option in options if section and option.rpartition(".")[0] == section)
        meant = [other for other in _meant(path) if kind_of(other) != "section" and _fixed(other) is None]
        fix = f"did you mean {' or '.join(meant)}?" if meant else None
        return Problem(place, where, "there is no such option", valid=valid or None, fix=fix)
    return None


def _fixed(path: str) -> str | None:
    """The section or option around `path` that may not be searched."""
    return next((start for start in _FIXED if path == start or path.startswith(f"{start}.")), None)


def _meant(path: str) -> tuple[str, ...]:
    """The paths that a misspelt one may have meant."""
    model, keys = Run, path.split(".")
    for depth, key in enumerate(keys):
        if key not in model.model_fields:
            near = suggest(key, model.model_fields)
            mended = ".".join([*keys[:depth], near or "", *keys[depth + 1 :]])
            if near is not None and kind_of(mended) != "unknown":
                return (mended,)
            return describe.meant(key, model, "".join(f"{outer}." for outer in keys[:depth]))
        model = describe.child(model, key) or model
    return ()


def _builder_of(
    parameter: Parameter, parameters: Sequence[Parameter], values: Mapping[str, Any], at: Places
) -> tuple[str | None, list[Problem]]:
    """The name of the built-in that a searched argument is for, of those that it may meet, where it is for one.

    A problem where it is for none of them. What only some take is looked at by `searched_in_vain`.
    """
    section, _, rest = parameter.path.partition(".args.")
    if section not in BUILDERS or not rest:
        return None, []
    choice, key = f"{section}.name", rest.partition(".")[0]
    met = [value for condition in parameter.when if condition.path == choice for value in condition.values]
    names = met or [value for each in parameters if each.path == choice for value in each.values]
    names = list(map(str, names or [name_of(values, (section,))]))
    signatures = {name: builtin(section, name) for name in names}
    for name, found in signatures.items():
        if found is not None and key in found[1].parameters:
            return name, []
    if None in signatures.values():
        return None, []  # a plug-in, which is asked when a trial starts
    known = [each for name in names for each in defaults(section, name)]
    near = suggest(key, known)
    what = f"{' and '.join(names)} {'take' if len(names) > 1 else 'takes'} no argument {key}"
    fix = "leave it out, or choose another name" if near is None else f"did you mean {section}.args.{near}?"
    path = dotted((*SPACE, parameter.path))
    return None, [Problem(at(parameter.path), path, what, None, ", ".join(known) or "no arguments", fix)]


def _value_problems(parameter: Parameter, builder: str | None, at: Places) -> list[Problem]:
    """Values that the option cannot have; for a range, which of its ends. An argument is that of a `builder`."""
    if parameter.kind == "choice":
        return [*_choice_problems(parameter, builder, at), *_duplicates(parameter, at)]
    if kind_of(parameter.path) == "argument" and builder is None:
        return []
    place, where = at(parameter.path), dotted((*SPACE, parameter.path))
    text = written(parameter)
    whole = _whole_only(parameter.path, builder)
    if whole is not None and _has_fractions(parameter):
        name = {"uniform": "randint", "loguniform": "lograndint"}.get(parameter.kind, parameter.kind)
        numbers = [max(1, round(number)) for number in (parameter.low, parameter.high, parameter.step)]
        fix = f"write {name}({', '.join(map(str, numbers[: 3 if parameter.kind == 'quniform' else 2]))})"
        return [Problem(place, where, "this range gives numbers that are not integers", text, whole, fix)]
    problems: list[Problem] = []
    for name, end in zip(("lower", "upper"), parameter.ends, strict=False):
        found = _rejected(parameter.path, end, builder)
        if found is None:
            continue
        if found.what != _RANGE:
            what = "a range of numbers does not fit this option"
            return [Problem(place, where, what, text, found.valid, "write a list of values")]
        what = f"the {name} end {flow(end)} is outside of what is allowed"
        problems.append(Problem(place, where, what, text, found.valid))
    return problems


def _has_fractions(parameter: Parameter) -> bool:
    if parameter.kind == "quniform":
        return any(isinstance(number, float) for number in (parameter.low, parameter.high, parameter.step))
    return parameter.kind in ("uniform", "loguniform")


def _whole_only(path: str, builder: str | None) -> str | None:
    """What is allowed, where that is integers and no others."""
    half, one = _rejected(path, 0.5, builder), _rejected(path, 1, builder)
    return half.valid if half is not None and half.what != _RANGE and (one is None or one.what == _RANGE) else None


def _rejected(path: str, value: Any, builder: str | None) -> Problem | None:
    """What is wrong with one value of an option, whatever the other options are."""
    alone = {} if builder is None else {path.partition(".")[0]: {"name": builder}}
    _, problems = validate(_placed(alone, path.split("."), value), {}, Place(""), rules=False)
    return problems[0] if problems else None


def _choice_problems(parameter: Parameter, builder: str | None, at: Places) -> Iterator[Problem]:
    if kind_of(parameter.path) == "argument" and builder is None:
        return
    for index, value in enumerate(parameter.values):
        found = _rejected(parameter.path, value, builder)
        if found is not None:
            inside = found.path.removeprefix(parameter.path)
            where = f"{dotted((*SPACE, parameter.path, index))}{inside}"
            yield replace(found, place=_item(parameter, index, at), path=where)


def _item(parameter: Parameter, index: int, at: Places) -> Place:
    return at(parameter.path, "values", index) if parameter.when else at(parameter.path, index)


def _duplicates(parameter: Parameter, at: Places) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, value in enumerate(parameter.values):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        text = flow(float(value) if number else value)
        if text in first:
            what = f"this value is in the choice twice, as number {first[text] + 1} and {index + 1}"
            where = dotted((*SPACE, parameter.path, index))
            yield Problem(_item(parameter, index, at), where, what, describe.shown(value), fix="keep one of the two")
        first.setdefault(text, index)


def _overlaps(paths: Sequence[str], at: Places) -> Iterator[Problem]:
    for path in paths:
        keys = path.split(".")
        outer = next((start for depth in range(1, len(keys)) if (start := ".".join(keys[:depth])) in paths), None)
        if outer is not None:
            what = f"it lies inside {outer}, which is searched too"
            yield Problem(at(path), dotted((*SPACE, path)), what, fix="search one of the two")


def _method_problems(parameter: Parameter, search: Mapping[str, Any], at: Places) -> Iterator[Problem]:
    """What the algorithm and the scheduler cannot do with a path."""
    place, where = at(parameter.path), dotted((*SPACE, parameter.path))
    if search.get("algorithm") == "grid" and parameter.count is None:
        what = "search.algorithm: grid needs a finite number of values, and this range is continuous"
        ends = f"{flow(parameter.low)}, {flow(parameter.high)}"
        fix = f"write a list, quniform({ends}, STEP), or search.algorithm: random"
        yield Problem(place, where, what, written(parameter), fix=fix)
    if _mapping(search.get("scheduler")).get("name") == "pbt" and not _mutable(parameter.path):
        what = "search.scheduler.name: pbt changes values within a run, where this one cannot change"
        yield Problem(place, where, what, valid=", ".join(_MUTABLE), fix="take it out, or search.scheduler.name: asha")


def _mutable(path: str) -> bool:
    return any(path == start or path.startswith(f"{start}.") for start in _MUTABLE)


def _corner_problems(space: Space, run: Run, at: Places) -> Iterator[Problem]:
    """Rules over several options that some combination breaks, each once."""
    base, known_rules, broken = _base(run), set[str](), 0
    for chosen in space.corners(_CORNERS):
        values = _with(base, chosen)
        try:
            Run.model_validate(values)
        except ValidationError:
            broken += 1
        else:
            continue
        for problem in validate(values, {}, Place(""))[1]:
            # the numbers of a rule differ from combination to combination
            rule = f"{problem.path} {re.sub(r'[0-9.]+', '', problem.what)}"
            if rule not in known_rules:
                known_rules.add(rule)
                yield _combination_problem(problem, chosen, at)
        if broken == _BROKEN:
            return


def _combination_problem(problem: Problem, chosen: Mapping[str, Any], at: Places) -> Problem:
    """A rule that was broken with `chosen`, told with the searched values that it looks at."""
    looked_at = f", {problem.found}"
    named = [path for path in chosen if f", {path}: " in looked_at] or list(chosen)
    others = [part for part in (problem.found or "").split(", ") if part.partition(":")[0] not in named]
    found = ", ".join([*(f"{path}: {flow(chosen[path])}" for path in named), *others])
    what = f"a combination breaks a rule: {problem.what}"
    fix = "take one of the values out, or write a condition: {when: {path: value}, values: ...}"
    return Problem(at(named[0]), dotted((*SPACE, named[0])), what, found, fix=fix)
