"""Conditions of a space: what they name exists and happens, and they do not go round in a circle."""

from __future__ import annotations

from collections.abc import Sequence

from raycls.config.describe import shown
from raycls.config.errors import Problem, dotted
from raycls.config.names.suggest import suggest
from raycls.config.space.space import Condition, Parameter
from raycls.config.space.text import SPACE, Places, written
from raycls.config.write import flow

__all__ = ["condition_problems", "in_order"]


def condition_problems(parameters: Sequence[Parameter], paths: Sequence[str], at: Places) -> list[Problem]:
    """What is wrong with the conditions of `parameters`, the readable ones of all `paths` of the space."""
    readable = {parameter.path: parameter for parameter in parameters}
    problems: list[Problem] = []
    for parameter in parameters:
        for condition in parameter.when:
            if condition.path not in paths:
                near = suggest(condition.path, paths)
                fix = f"did you mean {near}?" if near else "add the path, or leave the condition out"
                what = "this path is not in the space"
                problems.append(_problem(parameter, condition, at, what, valid=", ".join(paths), fix=fix))
            elif condition.path in readable:
                problems += _value_problems(parameter, condition, readable[condition.path], at)
    circle = _circle(readable)
    if circle:
        what = f"the conditions go round in a circle: {' -> '.join(circle)}"
        place = at(circle[0], "when", circle[1])
        problems.append(Problem(place, dotted((*SPACE, circle[0], "when")), what, fix="leave one of them out"))
    return problems


def in_order(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Each after those that its conditions name, else in the order written. The conditions have no circle."""
    by_path = {parameter.path: parameter for parameter in parameters}
    result: dict[str, Parameter] = {}

    def visit(parameter: Parameter) -> None:
        if parameter.path in result:
            return
        for condition in parameter.when:
            visit(by_path[condition.path])
        result[parameter.path] = parameter

    for parameter in parameters:
        visit(parameter)
    return list(result.values())


def _value_problems(parameter: Parameter, condition: Condition, other: Parameter, at: Places) -> list[Problem]:
    if other.count is None:
        what = f"a condition needs single values, and {other.path} has a continuous range"
        return [_problem(parameter, condition, at, what, written(other), fix="use randint, quniform or a list there")]
    valid = ", ".join(map(flow, other.values)) if other.values else written(other)
    what = f"{other.path} never has this value"
    never = [value for value in condition.values if not other.has(value)]
    return [_problem(parameter, condition, at, what, shown(value), valid) for value in never]


def _circle(parameters: dict[str, Parameter]) -> list[str]:
    """The paths of one circle of conditions, the first one again at the end; empty where there is none."""
    done: set[str] = set()

    def visit(path: str, before: list[str]) -> list[str]:
        if path in before:
            return [*before[before.index(path) :], path]
        if path in done or path not in parameters:
            return []
        for condition in parameters[path].when:
            circle = visit(condition.path, [*before, path])
            if circle:
                return circle
        done.add(path)
        return []

    circles = (visit(path, []) for path in parameters)
    return next((circle for circle in circles if circle), list[str]())


def _problem(
    parameter: Parameter,
    condition: Condition,
    at: Places,
    what: str,
    found: str | None = None,
    valid: str | None = None,
    fix: str | None = None,
) -> Problem:
    where = (parameter.path, "when", condition.path)
    return Problem(at(*where), dotted((*SPACE, *where)), what, found, valid, fix)
