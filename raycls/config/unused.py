"""Options that do nothing beside the value of another one: a value written for nothing is an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from raycls.config.describe import shown
from raycls.config.errors import Path, Place, Problem, dotted, value_at
from raycls.config.names.builders import BUILDERS, builtin
from raycls.config.sections.run import Run
from raycls.config.space.conditions import in_order
from raycls.config.space.effective import EFFECTIVE, Beside
from raycls.config.space.space import Space
from raycls.config.space.text import SPACE, Places, read
from raycls.config.write import flow, leaves, to_dict
from raycls.config.yaml_text import Document

__all__ = ["overruled", "searched_in_vain", "without_effect"]

_CORNERS = 512
_PRINTED = 0.5
"""Share of the options from which on a file was printed by raycls, this or an earlier one: nobody writes half."""


def without_effect(
    documents: Sequence[Document],
    values: Mapping[str, Any],
    places: Mapping[Path, Place],
    home: Place,
    wrong: Collection[str] = (),
) -> list[Problem]:
    """An error for each option of `values` (all `documents` laid over each other) that was written for nothing.

    Dotted paths in `wrong` have an error of their own already, and nothing is said that hangs on them.

    Where a later layer chose otherwise than the one with the option (`data.executor=inline` over a file with
    `data: {executor: processes, processes: 4}`), or where the space searches the choice, nothing is wrong. Nor is it
    in a file in which nearly every option is written: raycls printed that one, maybe before there were as many.
    """
    layers = _layers(documents)
    printed = {name for document in documents if _is_whole(document) for name in _files(document)}
    space = _space(values)
    problems: list[Problem] = []
    for option, needs in EFFECTIVE.items():
        path, searched = _path(option), option in space
        place = Places(places, home)(option) if searched else places.get(path)
        if place is None or place.file in printed or not {option, needs.choice}.isdisjoint(wrong):
            continue
        if _met(needs, values, space, home):
            continue
        chosen = places.get(_path(needs.choice))
        if chosen is not None and layers[chosen.file] > layers[place.file]:
            continue
        where = dotted((*SPACE, option)) if searched else option
        found = shown(value_at(values, (*SPACE, option) if searched else path))
        what = f"it has no effect beside {needs.choice}: {flow(_value(values, needs.choice))}"
        problems.append(Problem(place, where, what, found, f"beside {needs}", "leave it out, or change the other one"))
    return problems


def overruled(
    documents: Sequence[Document], values: dict[str, Any], places: dict[Path, Place], home: Place
) -> list[str]:
    """Take the options out of `values` that only another name reads than the one that a later layer chose.

    `search.scheduler.name=median` over a file with `search: {scheduler: {name: asha, brackets: 2}}` drops the brackets.
    Returns a line for each.
    """
    layers, space, defaults = _layers(documents), _space(values), to_dict(Run())
    notes: list[str] = []
    for option, needs in EFFECTIVE.items():
        path, choice = _path(option), _path(needs.choice)
        place, chosen = places.get(path), places.get(choice)
        if place is None or chosen is None or choice[-1] != "name" or layers[chosen.file] <= layers[place.file]:
            continue
        if _met(needs, values, space, home):
            continue
        value = cast("dict[str, Any]", value_at(values, path[:-1])).pop(path[-1])
        for inside in [inside for inside in places if inside[: len(path)] == path]:
            del places[inside]
        if flow(value) != flow(value_at(defaults, path)):
            notes.append(f"{option} {flow(value)} left out: {needs.choice} is {flow(value_at(values, choice))} now")
    return notes


def searched_in_vain(values: Mapping[str, Any], places: Mapping[Path, Place], home: Place) -> list[Problem]:
    """Searched options that some trials would have for nothing: trials that differ in nothing else are the same one.

    The space is right otherwise (`check_space`).
    """
    space = _space(values)
    effective = {**EFFECTIVE, **_arguments(space, home)}
    hanging = {option: needs for option, needs in effective.items() if {option, needs.choice} <= space.keys()}
    if not hanging:
        return []
    at = Places(places, home)
    parameters, _ = read(space, at)
    found: dict[str, Problem] = {}
    listed = {parameter.path for parameter in parameters if parameter.kind == "choice"}
    for chosen in Space(tuple(in_order(parameters))).corners(_CORNERS):
        for option, needs in hanging.items():
            beside = chosen.get(needs.choice, _value(values, needs.choice))
            if option in found or option not in chosen or needs.choice not in listed or needs.holds(beside):
                continue
            what = f"it has no effect beside {needs.choice}: {flow(beside)}, which is searched too"
            (choice,) = (parameter for parameter in parameters if parameter.path == needs.choice)
            good = [value for value in choice.values if needs.holds(value)]
            when = f"{{when: {{{needs.choice}: {flow(good[0] if len(good) == 1 else good)}}}, values: ...}}"
            fix = f"write a condition: {option}: {when}" if good else "leave it out"
            found[option] = Problem(at(option), dotted((*SPACE, option)), what, None, f"beside {needs}", fix)
    return list(found.values())


def _arguments(space: Mapping[str, Any], home: Place) -> dict[str, Beside]:
    """Searched arguments, and the searched names that take them. A plug-in may take any."""
    found: dict[str, Beside] = {}
    for option in space:
        section, _, key = option.partition(".args.")
        choice = f"{section}.name"
        if section in BUILDERS and choice in space:
            parameters, _ = read({choice: space[choice]}, Places({}, home))
            names = {str(value): builtin(section, str(value)) for each in parameters for value in each.values}
            takers = (name for name, taken in names.items() if taken is None or key in taken[1].parameters)
            found[option] = Beside(choice, tuple(takers))
    return found


def _met(needs: Beside, values: Mapping[str, Any], space: Mapping[str, Any], home: Place) -> bool:
    if needs.choice not in space:
        return needs.holds(_value(values, needs.choice))  # where both are searched: searched_in_vain
    parameters, _ = read({needs.choice: space[needs.choice]}, Places({}, home))
    return not parameters or any(needs.holds(value) for value in parameters[0].ends)


def _space(values: Mapping[str, Any]) -> Mapping[str, Any]:
    written = value_at(values, SPACE)
    return cast("Mapping[str, Any]", written) if isinstance(written, Mapping) else {}


def _layers(documents: Sequence[Document]) -> dict[str, int]:
    return {name: layer for layer, document in enumerate(documents) for name in _files(document)}


def _files(document: Document) -> set[str]:
    return {place.file for place in document.places.values()}


def _is_whole(document: Document) -> bool:
    every = [path in document.places for path, _ in leaves(to_dict(Run()))]
    return sum(every) >= _PRINTED * len(every)


def _value(values: Mapping[str, Any], option: str) -> Any:
    written = value_at(values, _path(option))
    return value_at(to_dict(Run()), _path(option)) if written is None else written


def _path(option: str) -> tuple[str, ...]:
    return tuple(option.split("."))
